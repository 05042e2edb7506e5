"""Figures of what lies inside pruned networks: layer densities and weight distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.plotting import COLOURS, COLUMN_WIDTH, LINES, figure_style, new_figure, shortened
from shrinkbench.results.record import RunResult


def density_figure(results: Sequence[RunResult], *, compression: float, width: float = COLUMN_WIDTH) -> Figure:
    """Share of weights kept, layers by methods, mean over seeds, at one compression target of one task.

    Every cell carries its number, so the figure reads without colour. Raises ``ShrinkbenchError`` where no run
    at ``compression`` records its layers, or where runs are of different networks.
    """
    densities = _mean_densities(results, compression)
    methods = list(densities)
    layers = list(densities[methods[0]])
    values = np.array([[densities[method][layer] for method in methods] for layer in layers])
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
        axes.set_title(f"weights kept at {compression:g}×, in %")
    return figure


def _mean_densities(results: Sequence[RunResult], compression: float) -> dict[str, dict[str, float]]:
    runs: dict[str, list[Mapping[str, float]]] = {}
    networks = set()
    for result in results:
        if result.status == "done" and result.layers and result.spec.compression == compression:
            shares = {name: d.kept / max(1, d.total) for name, d in result.layers.items()}
            runs.setdefault(result.spec.method.name, []).append(shares)
            networks.add(tuple(shares))
    if not runs:
        raise ShrinkbenchError(f"no finished run at compression {compression:g} records its layers")
    if len(networks) > 1:
        raise ShrinkbenchError("runs of different networks share no layers; pass the runs of one task")
    return {
        method: {layer: float(np.mean([share[layer] for share in shares])) for layer in shares[0]}
        for method, shares in sorted(runs.items())
    }


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
