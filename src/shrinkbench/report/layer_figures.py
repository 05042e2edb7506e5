"""Figures of what lies inside pruned networks: layer densities and weight distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.plotting import (
    COLOURS,
    COLUMN_WIDTH,
    LINES,
    PAGE_WIDTH,
    figure_style,
    legend_name,
    new_figure,
    shortened,
)
from shrinkbench.report.tables import achieved_text, amount_text
from shrinkbench.results.labels import label_runs
from shrinkbench.results.record import RunResult


def _by_method(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Runs by the label of their method, in order of labels."""
    runs: dict[str, list[RunResult]] = {}
    for result, label in zip(results, label_runs([r.spec for r in results]), strict=True):
        runs.setdefault(label.method, []).append(result)
    return dict(sorted(runs.items()))


def _achieved(results: Sequence[RunResult]) -> str:
    """The compression in brackets where it is another than was asked for."""
    sizes = [result.size.compression for result in results if result.size]
    return achieved_text(results[0].spec.target, float(np.mean(sizes)))


def weight_figure(*results: RunResult, width: float = COLUMN_WIDTH) -> Figure:
    """Distribution of the prunable weights before pruning and of those kept after training (log counts).

    With the runs of several methods on one network at one amount (fine-tuned, trained from scratch), one
    curve each, of the lowest seed that all have, as Figure 8 of Liu et al. 2019.
    """
    for result in results:
        if result.weight_histogram is None:
            raise ShrinkbenchError(f"run {result.key[:12]} records no weight distribution")
    chosen = _same_seed(results)
    first = next(iter(chosen.values()))
    alone = len(chosen) == 1
    with figure_style():
        figure = new_figure(width=width, height=1.8 + 0.15 * (1 + len(chosen)))
        axes = figure.subplots()
        for index, ((method, result), colour) in enumerate(zip(chosen.items(), cycle(COLOURS))):
            histogram = result.weight_histogram
            assert histogram is not None  # noqa: S101  told above
            if index == 0:
                axes.stairs(
                    histogram.before, histogram.edges, fill=True, color="#C9CED4", label="before pruning"
                )
            name = shortened(method, int((width - 0.6) / 0.052) - 8)
            label = "kept, after training" if alone else name + _achieved([result])
            style = LINES[index % len(LINES)]
            axes.stairs(
                histogram.after,
                histogram.edges,
                color=colour,
                linestyle=style,
                linewidth=1.3,
                label=legend_name(label),
            )
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("weight")
        axes.set_ylabel("count (log scale)")
        asked = amount_text(first.spec.amount.label, first.spec.target)
        title = f"{first.spec.model.name} at {asked}"
        if alone:
            title = f"{first.spec.model.name}, {name}\nat {asked}{_achieved([first])}"
        axes.set_title(title)
        figure.legend(loc="outside upper center")
    return figure


def kernel_figure(
    title: str, kernels: Mapping[str, Sequence[Sequence[float]]], *, width: float = PAGE_WIDTH
) -> Figure:
    """Shares of weights kept at each position of square kernels, as Figure 4 of Liu et al. 2019.

    ``kernels`` holds for each amount the stages, each with its shares row by row. A row of the figure is an
    amount, a column a stage; darker stays more often, from white (nothing stays) to the most of its amount.
    """
    most = max(len(stages) for stages in kernels.values())
    with figure_style():
        figure = new_figure(width=width, height=0.5 + 1.05 * width / PAGE_WIDTH * 6 / 5 * len(kernels))
        grid = figure.subplots(len(kernels), most, squeeze=False)
        for line, (amount, stages) in zip(grid, kernels.items(), strict=True):
            top = max((share for stage in stages for share in stage), default=0.0) or 1.0
            for number, axes in enumerate(line, start=1):
                axes.set_axis_off()
                if number > len(stages):
                    continue
                shares = np.array(stages[number - 1])
                side = math.isqrt(len(shares))
                axes.imshow(shares.reshape(side, side), cmap="Greys", vmin=0, vmax=top)
                for place, share in enumerate(shares):
                    row, column = divmod(place, side)
                    ink = "white" if share > 0.6 * top else "black"
                    axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=ink, fontsize=6)
                axes.set_title(f"stage {number}" if number > 1 else f"{amount}, stage 1")
        figure.suptitle(shortened(title, int(width / 0.06)), fontsize=8)
    return figure


def _same_seed(results: Sequence[RunResult]) -> dict[str, RunResult]:
    """One run per method, all of one seed where there is such a seed."""
    of_method = {method: {run.spec.seed: run for run in runs} for method, runs in _by_method(results).items()}
    common = set.intersection(*(set(runs) for runs in of_method.values()))
    return {method: runs[min(common or runs)] for method, runs in of_method.items()}
