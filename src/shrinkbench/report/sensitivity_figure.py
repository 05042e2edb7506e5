"""A figure of what each layer alone can lose: a line for each, or a map where they are many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shrinkbench.plotting import (
    COLUMN_WIDTH,
    CONTROL_COLOUR,
    PAGE_WIDTH,
    figure_style,
    legend_name,
    new_figure,
    series_styles,
    shortened_apart,
)
from shrinkbench.results.sensitivity import Sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 8
"""Groups of layers that are drawn as lines; more become a map."""
_ROW, _TALLEST = 0.125, 8.5  # inches
_NAME = 30  # characters


def sensitivity_figure(found: Sensitivity) -> Figure:
    """Quality against the density of each layer alone, in the layers' order."""
    return _lines(found) if len(found.groups) <= MOST_LINES else _map(found)


def _names(found: Sensitivity) -> dict[str, str]:
    """What a group is called: its first layer, and how many others are pruned with it."""
    short = shortened_apart([group.name for group in found.groups], _NAME)
    return {
        group.name: short[group.name] + (f" (+{len(group.layers) - 1})" if len(group.layers) > 1 else "")
        for group in found.groups
    }


def _scale(found: Sensitivity) -> tuple[float, str]:
    """By what values are multiplied, and the metric with its unit."""
    metric = found.metric
    if metric.unit == "fraction":
        return 100.0, f"{metric.name} (%)"
    return 1.0, f"{metric.name} ({metric.unit})" if metric.unit else metric.name


def _lines(found: Sensitivity) -> Figure:
    factor, label = _scale(found)
    whole = factor * found.whole[found.metric.name]
    names = _names(found)
    with figure_style():
        figure = new_figure(width=COLUMN_WIDTH, height=2.0 + 0.14 * len(names))
        axes = figure.subplots()
        axes.axhline(whole, color=CONTROL_COLOUR, linestyle=(0, (2, 1.5)), linewidth=0.9)
        xs = (1.0, *found.densities)
        for group, style in series_styles(names).items():
            values = np.array([found.values(group, density) for density in found.densities]) * factor
            axes.plot(
                xs,
                [whole, *values.mean(axis=1)],
                color=style.colour,
                marker=style.marker,
                markersize=style.size,
                linestyle=style.line,
                label=legend_name(names[group]),
            )
            if values.shape[1] > 1:
                low, high = ([whole, *end(axis=1)] for end in (values.min, values.max))
                axes.fill_between(xs, low, high, color=style.colour, alpha=0.15, linewidth=0)
        _density_axis(axes, found.densities)
        axes.set_ylabel(f"validation {label}")
        figure.legend(loc="outside upper center", ncols=2 if max(map(len, names.values())) < 18 else 1)
    return figure


def _density_axis(axes: Axes, densities: tuple[float, ...]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([1.0, *densities]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(1.08, densities[-1] / 1.08)  # more is gone to the right
    axes.set_xlabel("density of the layer (log scale)")


def _map(found: Sensitivity) -> Figure:
    factor, label = _scale(found)
    names, densities = _names(found), found.densities
    lost = np.array([[factor * found.lost(g, d) for d in densities] for g in names])
    height = min(0.75 + _ROW * len(names), _TALLEST)
    with figure_style():
        figure = new_figure(
            width=min(PAGE_WIDTH, COLUMN_WIDTH + 0.25 * max(len(densities) - 5, 0)), height=height
        )
        axes = figure.subplots()
        axes.grid(visible=False)
        highest = max(float(lost.max()), 1e-9)
        image = axes.imshow(lost, aspect="auto", cmap="Blues", vmin=0, vmax=highest, interpolation="nearest")
        size = min(6.0, 0.75 * 72 * (height - 0.75) / len(names))
        axes.set_yticks(range(len(names)), names.values(), fontsize=size)
        axes.set_xticks(range(len(densities)), [f"{density:g}" for density in densities])
        axes.set_xlabel("density of the layer")
        if size >= 4:
            for (row, column), value in np.ndenumerate(lost):
                dark = value > 0.6 * highest
                axes.text(
                    column,
                    row,
                    _digits(value, highest),
                    ha="center",
                    va="center",
                    fontsize=size,
                    color="white" if dark else "black",
                )
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        bar.outline.set_visible(False)
        unit = label.replace("(%)", "(points)")
        bar.set_label(f"validation {unit} lost", fontsize=7)
    return figure


def _digits(value: float, highest: float) -> str:
    """A loss with as many digits as tell it beside the highest; none is negative zero."""
    text = f"{value:.1f}" if highest >= 5 else f"{value:.2g}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")
