"""Figures of what lies inside pruned networks: layer densities and weight distributions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from matplotlib.figure import Figure

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.plotting import COLOURS, COLUMN_WIDTH, LINES, figure_style, new_figure, shortened
from shrinkbench.results.record import RunResult


def weight_figure(*results: RunResult, width: float = COLUMN_WIDTH) -> Figure:
    """Distribution of the prunable weights before pruning and of those kept after training (log counts).

    With the runs of several methods on one network at one compression (fine-tuned, trained from scratch), one
    curve each, of the lowest seed that all have, as Figure 8 of Liu et al. 2019.
    """
    for result in results:
        if result.weight_histogram is None:
            raise ShrinkbenchError(f"run {result.key[:12]} records no weight distribution")
    chosen = _same_seed(results)
    spec = chosen[0].spec
    alone = len(chosen) == 1
    with figure_style():
        figure = new_figure(width=width, height=1.8 + 0.15 * (1 + len(chosen)))
        axes = figure.subplots()
        for index, (result, colour) in enumerate(zip(chosen, cycle(COLOURS))):
            histogram = result.weight_histogram
            assert histogram is not None  # noqa: S101  told above
            if index == 0:
                axes.stairs(
                    histogram.before, histogram.edges, fill=True, color="#C9CED4", label="before pruning"
                )
            name = shortened(result.spec.method.name, int((width - 0.6) / 0.052))
            label = "kept, fine-tuned" if alone else name
            style = LINES[index % len(LINES)]
            axes.stairs(
                histogram.after, histogram.edges, color=colour, linestyle=style, linewidth=1.3, label=label
            )
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("weight")
        axes.set_ylabel("count (log scale)")
        named = f"{spec.model}, {spec.method.name}" if alone else spec.model
        axes.set_title(f"{named} at {spec.compression:g}×")
        figure.legend(loc="outside upper center")
    return figure


def _same_seed(results: Sequence[RunResult]) -> list[RunResult]:
    """One run per method, all of one seed where there is such a seed."""
    of_method: dict[str, dict[int, RunResult]] = {}
    for result in results:
        of_method.setdefault(result.spec.method.name, {})[result.spec.seed] = result
    common = set.intersection(*(set(runs) for runs in of_method.values()))
    return [runs[min(common or runs)] for _, runs in sorted(of_method.items())]
