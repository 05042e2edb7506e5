"""Figures for papers: the tradeoff curves of the results, drawn with matplotlib."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from shrinkbench.plotting import (
    COLUMN_WIDTH,
    CONTROL_COLOUR,
    CONTROL_LINES,
    PAGE_WIDTH,
    figure_style,
    panel_grid,
    ratio_axis,
    save,
    series_styles,
    shortened,
)
from shrinkbench.report.statistics.compare import references
from shrinkbench.report.statistics.observations import AXES, METRICS, Observations, aggregate

if TYPE_CHECKING:  # matplotlib is loaded where something is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCURACIES = ("top1", "top5")
SIZES = ("compression", "theoretical_speedup")
"""What the paper's figures show against what."""
FIGURES = tuple(itertools.product(ACCURACIES, SIZES))
"""The files of a report: accuracy, and what it is drawn against."""


def write_tradeoffs(observations: Observations, folder: Path, *, metric: str) -> list[Path]:
    """Draw the figures of ``metric`` among ``FIGURES``; SVG, PDF and PNG of each."""
    paths = []
    for axis in (axis for drawn, axis in FIGURES if drawn == metric):
        figure = tradeoff_figure(observations, metric=metric, axis=axis)
        paths += save(figure, folder / figure_name(metric, axis))
    return paths


def figure_name(metric: str, axis: str) -> str:
    """Name of a tradeoff figure's files.

    >>> figure_name("top1", "theoretical_speedup")
    'top1-theoretical-speedup'
    """
    return f"{metric}-{axis.replace('_', '-')}"


def tradeoff_figure(observations: Observations, *, metric: str, axis: str) -> Figure:
    """One panel per task: mean over seeds with one sample standard deviation, against what was achieved.

    Every control is a horizontal line (mean) with its band; a curve starts at the control of its method.
    """
    tasks = [task for task in observations.tasks if _has(observations.pruned, task, axis)]
    drawing = _Drawing(observations, metric, axis)
    low, high = drawing.cells[axis].min(), drawing.cells[axis].max()

    def finish(panel: Axes, *, lowest: bool) -> None:
        ratio_axis(panel, low=min(1.0, low), high=high)  # one range for all panels
        if lowest:
            panel.set_xlabel(f"{AXES[axis]} (log scale)")
        else:
            panel.tick_params(labelbottom=False)

    return _panels(drawing, tasks, finish)


def efficiency_figure(observations: Observations, *, metric: str) -> Figure:
    """One panel per task: mean over seeds with one sample standard deviation, against parameters kept.

    The parameter-efficiency curves of Liu et al. 2019 (Figures 3, 5 and 6); the control is the last point.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    def finish(panel: Axes, **_: bool) -> None:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel("parameters kept (log scale)")

    return _panels(_Drawing(observations, metric, "parameters_kept"), observations.tasks, finish)


class _Drawing:
    """What the panels of one figure share: cells, controls, and the styles of both."""

    def __init__(self, observations: Observations, metric: str, axis: str) -> None:
        self.metric, self.axis = metric, axis
        self.cells = aggregate(observations.pruned, [metric, axis])
        self.controls = aggregate(observations.control, [metric, axis])
        self.starts = references(observations, metric)
        at = observations.control.groupby("task")[axis].mean().to_dict()
        self.unpruned = dict.fromkeys(at, 1.0) if axis in AXES else at
        self.styles = series_styles(observations.methods)
        names = sorted(self.controls["method"].unique())
        self.dashes = {name: CONTROL_LINES[index % len(CONTROL_LINES)] for index, name in enumerate(names)}

    @property
    def names(self) -> tuple[str, ...]:
        """Entries of the legend, in order."""
        return (*self.dashes, *self.styles)


def _panels(drawing: _Drawing, tasks: Sequence[str], finish: Callable[..., None]) -> Figure:
    """One panel for each of ``tasks`` under one legend; ``finish`` sets a panel's horizontal axis."""
    columns = min(max(len(tasks), 1), 3)
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    entries = _legend_columns(drawing.names, width)
    with figure_style():
        head = 0.08 + 0.15 * math.ceil(len(drawing.names) / entries)
        figure, panels = panel_grid(max(len(tasks), 1), columns=columns, width=width, head=head)
        for index, (panel, task) in enumerate(zip(panels, tasks, strict=False)):
            _draw_controls(panel, drawing, task)
            _draw_curves(panel, drawing, task)
            finish(panel, lowest=index + columns >= len(tasks))
            if index % columns == 0:
                panel.set_ylabel(METRICS[drawing.metric].label)
        _add_legend(figure, panels, drawing.names, entries)
    return figure


def _add_legend(figure: Figure, panels: Iterable[Axes], names: Iterable[str], columns: int) -> None:
    handles = {
        label: handle for p in panels for handle, label in zip(*p.get_legend_handles_labels(), strict=True)
    }
    order = [name for name in names if name in handles]
    if order:
        most = int((figure.get_figwidth() - 0.6) / 0.052)
        labels = [shortened(name, most) for name in order]
        figure.legend([handles[name] for name in order], labels, loc="upper center", ncols=columns)


def _draw_controls(panel: Axes, drawing: _Drawing, task: str) -> None:
    """A line for each control of ``task``, and a band of one sample standard deviation."""
    here = drawing.controls[drawing.controls["task"] == task]
    columns = (here[c] for c in ("method", drawing.metric, f"{drawing.metric}_std"))
    for name, mean, spread in zip(*columns, strict=True):
        if not math.isfinite(mean):
            continue
        dash = drawing.dashes[name]
        panel.axhline(mean, color=CONTROL_COLOUR, linewidth=0.9, linestyle=dash, label=name, zorder=1)
        if math.isfinite(spread):
            panel.axhspan(mean - spread, mean + spread, color=CONTROL_COLOUR, alpha=0.12, linewidth=0)


def _draw_curves(panel: Axes, drawing: _Drawing, task: str) -> None:
    """The curves of one task, each with the control of its method, which lies where nothing is pruned."""
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    panel.title.set_text(task)
    cells, axis, metric = drawing.cells, drawing.axis, drawing.metric
    here = cells[(cells["task"] == task) & cells[axis].notna() & cells[metric].notna()]
    curves = dict(iter(here.sort_values(axis).groupby("method")))
    unpruned = drawing.unpruned.get(task, math.nan)
    bars: list[tuple[tuple[float, float], tuple[float, float]]] = []
    colours: list[str] = []
    for method, style in drawing.styles.items():
        if method not in curves:
            continue
        x, y, deviation = (curves[method][column].to_numpy() for column in (axis, metric, f"{metric}_std"))
        bars += [((a, b - d), (a, b + d)) for a, b, d in zip(x, y, deviation, strict=True) if d > 0]
        colours += [style.colour] * (len(bars) - len(colours))
        start = drawing.starts.get((task, method))
        if start is not None and math.isfinite(unpruned):
            x, y = np.r_[x, unpruned], np.r_[y, start.mean]
            order = x.argsort()
            x, y = x[order], y[order]
        panel.plot(
            x,
            y,
            label=method,
            color=style.colour,
            marker=style.marker,
            linestyle=style.line,
            markeredgewidth=0.5,
            markeredgecolor="white",
        )
    panel.add_collection(LineCollection(bars, colors=colours, linewidths=0.9, zorder=2))
    if METRICS[metric].percent:
        panel.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def _has(rows: pd.DataFrame, task: str, axis: str) -> bool:
    return bool(rows.loc[rows["task"] == task, axis].notna().any())


def _legend_columns(labels: Iterable[str], width: float) -> int:
    """How many legend entries fit side by side; widths are of 7 pt text, in inches."""
    longest = max((len(label) for label in labels), default=1)
    return max(1, int((width - 0.1) / (0.5 + 0.048 * longest)))
