"""Figures of what lies inside pruned networks: layer densities and weight distributions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.plotting import COLOURS, COLUMN_WIDTH, LINES, figure_style, new_figure, shortened
from shrinkbench.report.tables import achieved_text, amount_text
from shrinkbench.results.labels import label_runs
from shrinkbench.results.record import RunResult
from shrinkbench.spec import Amount


def density_figure(results: Sequence[RunResult], *, amount: Amount, width: float = COLUMN_WIDTH) -> Figure:
    """Share of weights kept, layers by methods, mean over seeds, at one amount of pruning of one task.

    Every cell carries its number, so the figure reads without colour. Raises ``ShrinkbenchError`` where no run
    at ``amount`` records its layers, or where runs are of different networks.
    """
    runs = _runs_at(results, amount)
    methods = [method + _achieved(found) for method, found in runs.items()]
    densities = [_mean_densities(found) for found in runs.values()]
    layers = list(densities[0])
    values = np.array([[density[layer] for density in densities] for layer in layers])
    with figure_style():
        figure = new_figure(width=width, height=0.9 + 0.16 * len(layers))
        axes = figure.subplots()
        axes.grid(visible=False)
        axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(methods)), methods, rotation=30, ha="right")
        axes.set_yticks(range(len(layers)), layers)
        for (row, column), value in np.ndenumerate(values):
            shade = "white" if value > 0.6 else "black"
            text = f"{100 * value:.1f}" if value < 0.0995 else f"{100 * value:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=6)
        asked = next(iter(runs.values()))[0].spec
        axes.set_title(f"weights kept at {amount_text(amount.label, asked.target)}, in %")
    return figure


def _runs_at(results: Sequence[RunResult], amount: Amount) -> dict[str, list[RunResult]]:
    """Finished runs at ``amount`` that record their layers, by method."""
    chosen = [r for r in results if r.status == "done" and r.layers and r.spec.amount == amount]
    if not chosen:
        raise ShrinkbenchError(f"no finished run at {amount.label} records its layers")
    if len({tuple(result.layers) for result in chosen}) > 1:
        raise ShrinkbenchError("runs of different networks share no layers; pass the runs of one task")
    return _by_method(chosen)


def _by_method(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Runs by the label of their method, in order of labels."""
    runs: dict[str, list[RunResult]] = {}
    for result, label in zip(results, label_runs([r.spec for r in results]), strict=True):
        runs.setdefault(label.method, []).append(result)
    return dict(sorted(runs.items()))


def _mean_densities(results: Sequence[RunResult]) -> dict[str, float]:
    shares = [{name: d.kept / max(1, d.total) for name, d in result.layers.items()} for result in results]
    return {layer: float(np.mean([share[layer] for share in shares])) for layer in shares[0]}


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
