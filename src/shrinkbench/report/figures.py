"""Figures for papers: the tradeoff curves of the results, drawn with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from shrinkbench.plotting import (
    CONTROL_COLOUR,
    CONTROL_LINES,
    Mark,
    SeriesStyle,
    draw_strip,
    figure_style,
    legend_name,
    panel_grid,
    ratio_axis,
    save,
    series_styles,
)
from shrinkbench.report.legends import add_legend, lay_out
from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.compare import references
from shrinkbench.report.statistics.metrics import HEADLINE
from shrinkbench.report.statistics.observations import AXES, Observations, Scale, aggregate

if TYPE_CHECKING:  # matplotlib is loaded where something is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZES = ("compression", "theoretical_speedup")
"""What the paper's figures show a metric against."""
WIDE = 50.0
"""A metric whose largest value is more than so many times the smallest is drawn on a log scale."""


REACH = 3.0
"""A panel shows this many times the drop that three quarters of the better methods' points stay within."""
LEAST_REACH = 0.02
"""A panel shows at least this drop of a fraction."""
OFF_SCALE = "Grey strip: points below the axis, which lie between the two values at its left."


def drawn_metrics(observations: Observations, *, everything: bool) -> list[tuple[Scale, str, str]]:
    """Scales with the columns that have figures and the stems of their files; headlines alone or others too."""
    found: dict[str, tuple[Scale, str]] = {}
    for scale in observations.scales:
        found.setdefault(observations.stem(scale.metric), (scale, HEADLINE))
        others = dict.fromkeys(c for task in scale.tasks for c in observations.others(task))
        for column in others if everything else ():
            found.setdefault(column, (scale, column))
    return [(scale, metric, stem) for stem, (scale, metric) in found.items()]


def write_tradeoffs(observations: Observations, folder: Path, *, metric: str, stem: str) -> list[Path]:
    """Draw ``metric`` against each of ``SIZES``; SVG, PDF and PNG of each."""
    paths = []
    for axis in SIZES:
        figure = tradeoff_figure(observations, metric=metric, axis=axis)
        paths += save(figure, folder / figure_name(stem, axis))
    return paths


def figure_name(metric: str, axis: str) -> str:
    """Name of a tradeoff figure's files.

    >>> figure_name("top1", "theoretical_speedup")
    'top1-theoretical-speedup'
    """
    return f"{metric}-{axis.replace('_', '-')}"


def tradeoff_figure(observations: Observations, *, metric: str, axis: str) -> Figure:
    """One panel per task: mean over seeds with one sample standard deviation, against what was achieved.

    Every control is a horizontal line (mean) with its band; a curve starts at the control of its method. Where
    a few networks collapsed, the axis ends at :func:`readable_floor`, and they are marked in a strip beneath.
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

    def finish(panel: Axes, **_: bool) -> None:
        count_axis(panel)
        panel.set_xlabel("parameters kept (log scale)")

    return _panels(_Drawing(observations, metric, "parameters_kept"), observations.tasks, finish)


def count_axis(panel: Axes) -> None:
    """A logarithmic x axis with ticks at 1, 2 and 5 of every power of ten."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.xaxis.set_minor_locator(NullLocator())


def percent_axis(panel: Axes) -> None:
    """A y axis of fractions, in percent."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    panel.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def number_axis(panel: Axes, values: pd.Series) -> None:
    """A y axis of plain numbers, logarithmic where ``values`` are far apart."""
    low, high = values.min(), values.max()
    if low > 0 and high > WIDE * low:
        panel.set_yscale("log")


def readable_floor(curves: Iterable[stats.Floats], controls: Iterable[float] = ()) -> float | None:
    """Where an accuracy axis ends so that the better methods can be told apart; ``None`` where all fits.

    The better methods are those whose median is at least the median of all methods' medians. Down to the lower
    quartile of their points is a drop d from the highest value; the axis shows 3 d, at least two points, and
    every control. It is cut only where that saves half of it.
    """
    curves = [points for points in curves if len(points)]
    if not curves:
        return None
    medians = [float(np.median(points)) for points in curves]
    better = np.concatenate(
        [c for c, median in zip(curves, medians, strict=True) if median >= np.median(medians)]
    )
    controls = list(controls)
    top, bottom = max([*map(np.max, curves), *controls]), min(map(np.min, curves))
    floor = float(min(top - max(REACH * (top - np.quantile(better, 0.25)), LEAST_REACH), *controls, top))
    return floor if bottom < floor and top - floor < (top - bottom) / 2 else None


class _Drawing:
    """What the panels of one figure share: cells, controls, and the styles of both."""

    def __init__(self, observations: Observations, metric: str, axis: str) -> None:
        self.metric, self.axis = metric, axis
        self.kinds = {task: observations.metric(task, metric) for task in observations.tasks}
        cells = aggregate(observations.pruned, [metric, axis])
        self.cells = cells[cells[axis].notna() & cells[metric].notna()]
        self.controls = aggregate(observations.control, [metric, axis]).dropna(subset=[metric])
        self.starts = references(observations, metric)
        at = observations.control.groupby("task")[axis].mean().to_dict()
        self.unpruned = dict.fromkeys(at, 1.0) if axis in AXES else at
        self.styles = series_styles(observations.methods)
        names = sorted(self.controls["method"].unique())
        self.dashes = {name: CONTROL_LINES[index % len(CONTROL_LINES)] for index, name in enumerate(names)}
        present = set(self.cells["method"])
        methods = [method for method in self.styles if method in present]
        self.names = {name: name for name in (*names, *methods)}
        self.floors = self._floors()

    def _floors(self) -> dict[str, float]:
        """Where the vertical axis of a task ends, for tasks in which some points lie below."""
        found = {}
        for task, cells in self.cells.groupby("task"):
            if not (self.kinds[str(task)].percent and self.kinds[str(task)].higher_is_better):
                continue
            curves = [part[self.metric].to_numpy(dtype=float) for _, part in cells.groupby("method")]
            floor = readable_floor(curves, self.controls.loc[self.controls["task"] == task, self.metric])
            if floor is not None:
                found[str(task)] = floor
        return found


def _panels(drawing: _Drawing, tasks: Sequence[str], finish: Callable[..., None]) -> Figure:
    """One panel for each of ``tasks`` under one legend; ``finish`` sets a panel's horizontal axis."""
    count = max(len(tasks), 1)
    columns = min(count, 3)
    legend, width, panel_height = lay_out(drawing.names, rows=-(-count // columns), alone=columns == 1)
    strips = any(task in drawing.floors for task in tasks)
    with figure_style():
        figure, panels = panel_grid(
            count, columns=columns, width=width, panel_height=panel_height, head=legend.height, strips=strips
        )
        for index, (panel, task) in enumerate(zip(panels, tasks, strict=False)):
            _draw_controls(panel, drawing, task)
            _draw_curves(panel, drawing, task)
            finish(panel, lowest=index + columns >= len(tasks))
            if task in drawing.floors:
                _cut(panel, drawing, task)
            if index % columns == 0:
                panel.set_ylabel(next(iter(drawing.kinds.values())).label)
        if strips:
            say_off_scale(figure)
        add_legend(figure, panels, legend)
    return figure


def _cut(panel: Axes, drawing: _Drawing, task: str) -> None:
    """End the vertical axis at the floor of ``task``."""
    cells = drawing.cells[drawing.cells["task"] == task]
    columns = zip(cells["method"], cells[drawing.axis], cells[drawing.metric], strict=True)
    points = [Point(float(x), float(y), drawing.styles[method]) for method, x, y in columns]
    controls = drawing.controls.loc[drawing.controls["task"] == task, drawing.metric]
    cut_axis(panel, points, floor=drawing.floors[task], highest=controls.max())


class Point(NamedTuple):
    """One point of a panel, as it is drawn."""

    x: float
    y: float
    style: SeriesStyle


def cut_axis(panel: Axes, points: Sequence[Point], *, floor: float, highest: float = -math.inf) -> None:
    """End the vertical axis at ``floor``, and mark the ``points`` below in a strip beneath it.

    The axis reaches a little above the points and ``highest``. Call it once the horizontal axis is set.
    """
    top = max(highest, *(point.y for point in points))
    panel.set_ylim(floor, min(panel.get_ylim()[1], top + 0.08 * (top - floor)))
    below = [point for point in points if point.y < floor]
    low, high = math.floor(100 * min(point.y for point in below)), math.ceil(100 * floor)
    marks = [Mark(point.x, point.style.colour, point.style.marker) for point in below]
    draw_strip(panel, marks, range_text=f"{low}–{high} %")


def say_off_scale(figure: Figure) -> None:
    """Say at the bottom of ``figure`` what strips are."""
    figure.text(0.02, 0.02 / figure.get_figheight(), OFF_SCALE, fontsize=5.5, va="bottom")


def _draw_controls(panel: Axes, drawing: _Drawing, task: str) -> None:
    """A line for each control of ``task``, and a band of one sample standard deviation."""
    here = drawing.controls[drawing.controls["task"] == task]
    columns = (here[c] for c in ("method", drawing.metric, f"{drawing.metric}_std"))
    for name, mean, spread in zip(*columns, strict=True):
        dash = drawing.dashes[name]
        panel.axhline(
            mean, color=CONTROL_COLOUR, linewidth=0.9, linestyle=dash, label=legend_name(name), zorder=1
        )
        if math.isfinite(spread):
            panel.axhspan(mean - spread, mean + spread, color=CONTROL_COLOUR, alpha=0.12, linewidth=0)


def _draw_curves(panel: Axes, drawing: _Drawing, task: str) -> None:
    """The curves of one task, each with the control of its method, which lies where nothing is pruned."""
    from matplotlib.collections import LineCollection

    panel.title.set_text(task)
    cells, axis, metric = drawing.cells, drawing.axis, drawing.metric
    here = cells[cells["task"] == task]
    curves = dict(iter(here.sort_values(axis).groupby("method")))
    unpruned = drawing.unpruned.get(task, math.nan)
    floor = drawing.floors.get(task, -math.inf)
    bars: list[tuple[tuple[float, float], tuple[float, float]]] = []
    colours: list[str] = []
    for method, style in drawing.styles.items():
        if method not in curves:
            continue
        x, y, deviation = (curves[method][column].to_numpy() for column in (axis, metric, f"{metric}_std"))
        spread = (deviation > 0) & (y >= floor)
        seen = zip(x[spread], y[spread], deviation[spread], strict=True)
        bars += [((a, b - d), (a, b + d)) for a, b, d in seen]
        colours += [style.colour] * (len(bars) - len(colours))
        start = drawing.starts.get((task, method))
        if start is not None and math.isfinite(unpruned):
            x, y = np.r_[x, unpruned], np.r_[y, start.mean]
            order = x.argsort()
            x, y = x[order], y[order]
        panel.plot(
            x,
            y,
            label=legend_name(method),
            color=style.colour,
            marker=style.marker,
            linestyle=style.line,
            markersize=style.size,
            markeredgewidth=0.5,
            markeredgecolor="white",
        )
    panel.add_collection(LineCollection(bars, colors=colours, linewidths=0.9, zorder=2))
    if drawing.kinds[task].percent:
        percent_axis(panel)
    else:
        number_axis(panel, here[metric])


def _has(rows: pd.DataFrame, task: str, axis: str) -> bool:
    return bool(rows.loc[rows["task"] == task, axis].notna().any())
