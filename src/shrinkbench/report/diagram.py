"""Mean ranks (Demsar 2006) as a drawing for the page and for papers: a picture of the order, not a test."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shrinkbench.plotting import COLUMN_WIDTH, figure_style, fixed_figure, save, shortened
from shrinkbench.report.statistics.ranks import Ranking

if TYPE_CHECKING:  # matplotlib is loaded where something is drawn
    from matplotlib.figure import Figure

AXIS_WIDTH, ROW, CHARACTER, NUMBER = 330.0, 22.0, 6.9, 20.0
RANKING = "mean-ranks"
"""Name of the files of the figure for papers."""


def mean_ranks_svg(methods: Sequence[str], ranking: Ranking) -> str:
    """An SVG element: methods at their mean rank, bars over those that are not told apart."""
    count = len(methods)
    order = sorted(range(count), key=lambda i: ranking.mean_ranks[i])
    half = (count + 1) // 2
    top = 58.0 + 12 * len(ranking.joined)
    height = top + ROW * half + 8

    labels = [f"{methods[i]} ({ranking.mean_ranks[i]:.2f})" for i in range(count)]
    side = 24 + CHARACTER * max(map(len, labels))
    width = AXIS_WIDTH + 2 * side

    def x(rank: float) -> float:
        return side + (rank - 1) / max(1, count - 1) * AXIS_WIDTH

    parts = [_line(x(1), 44, x(count), 44)]
    every = math.ceil(count * NUMBER / AXIS_WIDTH)  # numbers that would touch are left out
    for rank in range(1, count + 1):
        parts.append(_line(x(rank), 38, x(rank), 44))
        if (rank - 1) % every == 0:
            parts.append(_text(x(rank), 32, str(rank), "middle"))
    for place, index in enumerate(order):
        rank = ranking.mean_ranks[index]
        left = place < half
        y = top + ROW * (place if left else count - 1 - place)
        edge = side - 12 if left else width - side + 12
        parts += [
            f'<path d="M{x(rank):.1f} 44V{y:.1f}H{edge:.1f}" fill="none" stroke="#57606a"/>',
            _text(edge - 6 if left else edge + 6, y + 4, labels[index], "end" if left else "start"),
        ]
    for level, clique in enumerate(ranking.joined):
        ranks = [ranking.mean_ranks[i] for i in clique]
        y = 53 + 12 * level
        parts.append(_line(x(min(ranks)) - 4, y, x(max(ranks)) + 4, y, 4))
    told = html.escape(describe_ranking(methods, ranking), quote=True)
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:g}" role="img" aria-label="{told}" '
        f'style="max-width:{width:.0f}px">{"".join(parts)}</svg>'
    )


def describe_ranking(methods: Sequence[str], ranking: Ranking) -> str:
    """The diagram in words."""
    order = sorted(range(len(methods)), key=lambda i: ranking.mean_ranks[i])
    ranks = ", ".join(f"{methods[i]} {ranking.mean_ranks[i]:.2f}" for i in order)
    together = "; ".join(" and ".join(methods[i] for i in clique) for clique in ranking.joined)
    return f"Mean ranks: {ranks}. Not told apart: {together or 'none'}."


def mean_ranks_figure(methods: Sequence[str], ranking: Ranking) -> Figure:
    """The same for papers: one row per method in order of rank, bars at the right over tied groups."""
    from matplotlib.ticker import MaxNLocator

    order = sorted(range(len(methods)), key=lambda i: -ranking.mean_ranks[i])
    row = {index: place for place, index in enumerate(order)}
    names = [shortened(name, 36) for name in methods]
    width, left = COLUMN_WIDTH, 0.17 + 0.056 * max(map(len, names))
    height = 0.5 + 0.17 * len(methods)
    with figure_style():
        figure = fixed_figure(width=width, height=height)
        axes = figure.add_axes((left / width, 0.38 / height, 1 - (left + 0.1) / width, 1 - 0.45 / height))
        axes.plot([ranking.mean_ranks[i] for i in order], range(len(order)), "o", color="#0072B2")
        axes.set_yticks(range(len(order)), [names[i] for i in order])
        for level, clique in enumerate(ranking.joined):
            at = len(methods) + 0.35 + 0.18 * level
            rows = [row[i] for i in clique]
            axes.plot([at, at], [min(rows) - 0.15, max(rows) + 0.15], color="k")
        axes.set_xlim(0.7, len(methods) + 0.5 + 0.18 * len(ranking.joined))
        axes.set_ylim(-0.5, len(methods) - 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        label = "mean rank (1 is best); bars: not told apart"
        axes.set_xlabel(label, loc="right")  # it may be wider than the axes, not than the figure
    return figure


def write_ranking(methods: Sequence[str], ranking: Ranking, folder: Path) -> list[Path]:
    """Draw it into ``folder`` as SVG, PDF and PNG."""
    return save(mean_ranks_figure(methods, ranking), folder / RANKING)


def _line(x1: float, y1: float, x2: float, y2: float, width: float = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="#1b1f24" stroke-width="{width:g}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
