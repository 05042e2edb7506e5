"""Figures of what lies inside pruned networks: layer densities and weight distributions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.plotting import COLOURS, COLUMN_WIDTH, LINES, figure_style, new_figure, shortened
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
                histogram.after, histogram.edges, color=colour, linestyle=style, linewidth=1.3, label=label
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


def _same_seed(results: Sequence[RunResult]) -> dict[str, RunResult]:
    """One run per method, all of one seed where there is such a seed."""
    of_method = {method: {run.spec.seed: run for run in runs} for method, runs in _by_method(results).items()}
    common = set.intersection(*(set(runs) for runs in of_method.values()))
    return {method: runs[min(common or runs)] for method, runs in of_method.items()}
