"""Figures for papers: the tradeoff curves of the results, drawn with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from shrinkbench.plotting import (
    COLUMN_WIDTH,
    CONTROL_COLOUR,
    PAGE_WIDTH,
    SeriesStyle,
    figure_style,
    new_figure,
    ratio_axis,
    save,
    series_styles,
)
from shrinkbench.report.observations import AXES, METRICS, Observations, aggregate

TRADEOFFS = tuple(
    (metric, axis) for metric in ("top1", "top5") for axis in ("compression", "theoretical_speedup")
)
"""Metric and axis of the paper's figures."""


def write_tradeoffs(observations: Observations, folder: Path) -> list[Path]:
    """Draw top-1 and top-5 against compression ratio and theoretical speedup; SVG, PDF and PNG of each."""
    paths = []
    for metric, axis in TRADEOFFS:
        figure = tradeoff_figure(observations, metric=metric, axis=axis)
        paths += save(figure, folder / f"{metric}-{axis.replace('_', '-')}")
    return paths


def tradeoff_figure(observations: Observations, *, metric: str, axis: str) -> Figure:
    """One panel per task: mean over seeds with one sample standard deviation, against what was achieved.

    The control is the horizontal line (mean) with its band, and the first point of every curve.
    """
    tasks = [task for task in observations.tasks if _has(observations.pruned, task, axis)]
    columns = min(max(len(tasks), 1), 3)
    rows = max(1, math.ceil(len(tasks) / columns))
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    styles = series_styles(observations.methods)
    with figure_style():
        figure = new_figure(
            width=width, height=1.95 * rows + 0.45 + 0.14 * math.ceil(len(styles) / (2 * columns))
        )
        grid = figure.subplots(rows, columns, squeeze=False)
        cells = aggregate(observations.pruned, [metric, axis])
        for index, panel in enumerate(grid.flat):
            if index >= len(tasks):
                panel.set_visible(False)
                continue
            draw_tradeoff(panel, cells, observations.control, tasks[index], metric, axis, styles)
            if index % columns == 0:
                panel.set_ylabel(METRICS[metric].label)
            if index + columns >= len(tasks):
                panel.set_xlabel(f"{AXES[axis]} (log scale)")
        _legend(figure, grid.flat[0], columns)
    return figure


def draw_tradeoff(
    panel: Axes,
    cells: pd.DataFrame,
    control: pd.DataFrame,
    task: str,
    metric: str,
    axis: str,
    styles: Mapping[str, SeriesStyle],
) -> None:
    """Draw one task's curves and its control."""
    panel.set_title(task)
    reference = control.loc[control["task"] == task, metric].dropna()
    mean, spread = reference.mean(), reference.std(ddof=1)
    if len(reference):
        panel.axhline(
            mean, color=CONTROL_COLOUR, linewidth=0.9, linestyle=(0, (2, 1.5)), label="control", zorder=1
        )
        if math.isfinite(spread):
            panel.axhspan(mean - spread, mean + spread, color=CONTROL_COLOUR, alpha=0.12, linewidth=0)
    here = cells[(cells["task"] == task) & cells[axis].notna() & cells[metric].notna()]
    for method, style in styles.items():
        curve = here[here["method"] == method].sort_values(axis)
        if curve.empty:
            continue
        x, y = curve[axis].to_numpy(), curve[metric].to_numpy()
        deviation = curve[f"{metric}_std"].fillna(0.0).to_numpy()
        if len(reference):
            x, y, deviation = np.r_[1.0, x], np.r_[mean, y], np.r_[0.0, deviation]
        panel.errorbar(
            x,
            y,
            yerr=np.where(deviation > 0, deviation, np.nan),
            label=method,
            color=style.colour,
            marker=style.marker,
            linestyle=style.line,
            elinewidth=0.8,
            markeredgewidth=0.5,
            markeredgecolor="white",
        )
    if METRICS[metric].percent:
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    ratio_axis(panel, low=min(1.0, float(here[axis].min())) if len(here) else 1.0, high=_high(here[axis]))


def _high(values: pd.Series[float]) -> float:
    return float(values.max()) if len(values) else 2.0


def _has(rows: pd.DataFrame, task: str, axis: str) -> bool:
    return bool(rows.loc[rows["task"] == task, axis].notna().any())


def _legend(figure: Figure, panel: Axes, columns: int) -> None:
    """One legend for all panels, above them."""
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 2 * columns))
