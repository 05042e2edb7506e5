"""Drawings of trade-offs: families (Figure 1), fragmentation (Figure 3) and variability (Figure 5)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from shrinkbench.literature.curves import CHANGES, EFFICIENCIES, Pair, PublishedCurve, PublishedPanel
from shrinkbench.literature.standard import FamilyPanel
from shrinkbench.plotting import COLOURS, COLUMN_WIDTH, LINES, MARKERS, PAGE_WIDTH, new_figure, series_style

_SIZES = {"parameters": "Number of parameters", "multiply_adds": "Number of multiply-adds"}
_ACCURACIES = {"top1": "Top-1 accuracy (%)", "top5": "Top-5 accuracy (%)"}


DENSE = 40
"""Curves of more points than this are drawn without a line between them."""


@dataclass(frozen=True)
class _Look:
    """How one curve is drawn; hollow markers double the number that can be told apart."""

    colour: str
    marker: str
    hollow: bool
    line: str | tuple[float, tuple[float, ...]]


def draw_families(panels: Sequence[FamilyPanel]) -> Figure:
    """Figure 1: families of unpruned networks as lines, pruned networks of the same family as stars."""
    figure = new_figure(width=COLUMN_WIDTH * 1.5, height=4.7)
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    families = list(dict.fromkeys(panel.family.name for panel in panels))
    for panel in panels:
        row, column = list(_ACCURACIES).index(panel.accuracy), list(_SIZES).index(panel.size)
        axes, index = grid[row][column], families.index(panel.family.name)
        colour = COLOURS[index]
        axes.plot(
            [point.size for point in panel.unpruned],
            [100 * point.accuracy for point in panel.unpruned],
            color=colour,
            marker=MARKERS[index],
            label=f"{panel.family.name} ({panel.family.year})",
            zorder=3,
        )
        if panel.pruned:
            axes.plot(
                [point.size for point in panel.pruned],
                [100 * point.accuracy for point in panel.pruned],
                color=colour,
                marker="*",
                markersize=4.2,
                markerfacecolor="none",
                markeredgewidth=0.6,
                linestyle="",
                label=f"{panel.family.name} pruned",
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    for row, label in enumerate(_ACCURACIES.values()):
        grid[row][0].set_ylabel(label)
    for column, label in enumerate(_SIZES.values()):
        grid[1][column].set_xlabel(label)
    figure.suptitle("Speed and size trade-offs of original and pruned models", fontsize=8)
    _add_shared_legend(figure, columns=len(families), fontsize=6)
    return figure


def draw_fragmentation(panels: Sequence[PublishedPanel]) -> Figure:
    """Figure 3: a column per pair, a row per choice of metrics, a curve per method, coloured by year."""
    pairs = list(dict.fromkeys(panel.pair for panel in panels))
    rows = [
        (x, y) for x in EFFICIENCIES for y in CHANGES if any(p.curves for p in panels if (p.x, p.y) == (x, y))
    ]
    looks = _choose_looks(panels)
    columns = legend_columns(looks, width=PAGE_WIDTH, fontsize=5.2, most=6)
    legend_rows = -(-len(looks) // columns)
    figure = new_figure(width=PAGE_WIDTH, height=1.45 * max(len(rows), 1) + 0.13 * legend_rows + 0.4)
    grid = figure.subplots(max(len(rows), 1), max(len(pairs), 1), squeeze=False)
    for panel in panels:
        if (panel.x, panel.y) not in rows:
            continue
        row, column = rows.index((panel.x, panel.y)), pairs.index(panel.pair)
        axes = grid[row][column]
        if not panel.curves:
            axes.remove()
            continue
        _draw_panel(axes, panel, looks)
        if row == 0:
            axes.set_title(_pair_title(panel.pair), fontsize=7)
        if column == 0:
            axes.set_ylabel(CHANGES[panel.y].replace(" in ", " in\n") + " (%)")
        axes.set_xlabel(EFFICIENCIES[panel.x], labelpad=1)
    handles = [_handle(label, look) for label, look in looks.items()]
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=columns,
            fontsize=5.2,
            columnspacing=0.8,
            handlelength=2.0,
        )
    return figure


def draw_variability(
    magnitude: Sequence[PublishedCurve], other: Sequence[PublishedCurve], pair: Pair
) -> Figure:
    """Figure 5: magnitude pruning in its variants above, all other methods below, one pair of axes."""
    figure = new_figure(width=COLUMN_WIDTH, height=5.4)
    top, bottom = figure.subplots(2, 1, sharex=True, sharey=True)
    index = 0
    for axes, curves in ((top, magnitude), (bottom, other)):
        for curve in curves:
            style = series_style(index)
            _draw_curve(axes, curve, _Look(style.colour, style.marker, axes is bottom, style.line))
            index += 1
        axes.set_ylabel(_ACCURACIES["top1"])
    figure.suptitle(f"Pruning {_pair_title(pair)}", fontsize=8)
    top.set_title("Unstructured magnitude-based pruning")
    bottom.set_title("All other methods")
    bottom.set_xlabel(_SIZES["parameters"])
    bottom.set_xscale("log")
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bottom.xaxis.set_major_locator(LogLocator(base=10, numticks=6))
    sizes = [point.x for curve in (*magnitude, *other) for point in curve.points]
    if max(sizes) / min(sizes) > 10:
        bottom.xaxis.set_minor_formatter(NullFormatter())
    labels = [curve.label for curve in (*magnitude, *other)]
    columns = legend_columns(labels, width=COLUMN_WIDTH, fontsize=5.6, most=2)
    _add_shared_legend(figure, columns=columns, fontsize=5.6)
    return figure


def legend_columns(labels: Collection[str], *, width: float, fontsize: float, most: int) -> int:
    """How many legend columns of the longest label fit into ``width`` inches, ``most`` at most."""
    longest = max(map(len, labels), default=1)
    entry = (0.58 * longest + 5) * fontsize / 72  # a letter is 0.58 of the font size wide on average
    return max(1, min(most, int(width / entry)))


def _choose_looks(panels: Sequence[PublishedPanel]) -> dict[str, _Look]:
    """A look per method: colour by year where years differ, markers in order within a year."""
    methods = sorted({(curve.year, curve.label) for panel in panels for curve in panel.curves})
    years = sorted({year for year, _ in methods})
    colours = _year_colours(years)
    looks: dict[str, _Look] = {}
    for year in years:
        for index, label in enumerate(label for y, label in methods if y == year):
            colour = colours[year] if len(years) > 1 else COLOURS[index % len(COLOURS)]
            looks[label] = _Look(
                colour, MARKERS[index % len(MARKERS)], index >= len(MARKERS), LINES[index % len(LINES)]
            )
    return looks


def _year_colours(years: Sequence[int]) -> dict[int, str]:
    """Dark to light with the years: an order that survives colour blindness and grey print."""
    scale = colormaps["plasma"]
    return {year: to_hex(scale(0.72 * index / max(len(years) - 1, 1))) for index, year in enumerate(years)}


def _draw_panel(axes: Axes, panel: PublishedPanel, looks: dict[str, _Look]) -> None:
    for curve in panel.curves:
        _draw_curve(axes, curve, looks[curve.label])
    xs = [point.x for curve in panel.curves for point in curve.points]
    if panel.x == "compression" and max(xs) / min(xs) > 2:
        powers_of_two(axes, min(xs), max(xs))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if max(xs) - min(xs) > 1 else 3))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def powers_of_two(axes: Axes, low: float, high: float) -> None:
    """A base-2 logarithmic x axis whose ticks are the powers of two around the data."""
    axes.set_xscale("log", base=2)
    ticks = [2.0**power for power in range(8) if low / 1.3 <= 2.0**power <= high * 1.3]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_curve(axes: Axes, curve: PublishedCurve, look: _Look) -> None:
    """One curve in percent, with a bar where a spread is known; dense ones as dots, without a line."""
    dense = len(curve.points) > DENSE
    xs, ys = [point.x for point in curve.points], [100 * point.y for point in curve.points]
    axes.plot(
        xs,
        ys,
        color=look.colour,
        marker=look.marker,
        markerfacecolor="white" if look.hollow else look.colour,
        markeredgewidth=0.4 if dense else 0.7,
        markersize=2.0 if dense else 3.2,
        linewidth=0.9,
        linestyle="" if dense else look.line,
        label=curve.label,
    )
    spread = [100 * (point.spread or 0.0) for point in curve.points]
    if any(spread):
        axes.errorbar(xs, ys, yerr=spread, fmt="none", color=look.colour, linewidth=0.7)


def _handle(label: str, look: _Look) -> Line2D:
    line = Line2D(
        [],
        [],
        label=label,
        color=look.colour,
        marker=look.marker,
        markerfacecolor="white" if look.hollow else look.colour,
        markeredgewidth=0.7,
        linewidth=0.9,
    )
    line.set(linestyle=look.line)
    return line


def _pair_title(pair: Pair) -> str:
    return f"{pair[1]} on {pair[0]}"


def _add_shared_legend(figure: Figure, *, columns: int, fontsize: float = 6.5) -> None:
    """One legend below all panels, every label once."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=columns, fontsize=fontsize
        )
