"""Counts of single layers that do not go with the multiply-adds of the whole network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from shrinkbench.results.record import RunResult

_FLOORS = 1e-6  # of the largest number: each product is rounded down
_FORGED = 0.1
"""Where more of the runs than this do not fit, the network's products are of another kind: nothing is said."""


def find_other_layers(results: Iterable[RunResult]) -> Iterator[str]:
    """Runs whose multiply-adds do not follow from their layers as those of all other runs do.

    A weight is used at as many places in every run of a network, so that multiply-adds are the sum over layers
    of the weights kept times these places. They are not stored; as many runs as layers settle them, and every
    further one has to agree. It finds counts that were moved from one layer to another.
    """
    groups: dict[object, list[RunResult]] = defaultdict(list)
    for run in results:
        if run.status == "done" and run.size is not None and run.layers and run.size.multiply_adds:
            network = run.spec.task.model, run.spec.data.name, run.spec.data.sides, run.size.multiply_adds
            groups[(network, tuple(sorted(run.layers)))].append(run)
    for runs in groups.values():
        yield from (
            f"run {', or '.join(run.key[:12] for run in strays)}: its multiply-adds do not follow from its "
            f"layers as in {len(runs) - 1} other runs"
            for strays in _strays(runs)
        )


def find_unequal_shares(results: Iterable[RunResult]) -> Iterator[str]:
    """Runs of a method that takes the same share of every layer, and took another than for another seed."""
    first: dict[str, RunResult] = {}
    for run in results:
        rule = run.spec.method.allocation
        if run.status != "done" or run.spec.is_control or rule.scope != "layerwise" or not rule.uniform:
            continue
        alike = first.setdefault(run.spec.model_copy(update={"seed": 0}).key, run)
        both = run.layers.keys() & alike.layers.keys()
        other = sorted(name for name in both if run.layers[name].kept != alike.layers[name].kept)
        if other:
            yield (
                f"run {run.key[:12]}: it keeps {run.layers[other[0]].kept:,} of '{other[0]}', and run "
                f"{alike.key[:12]}, which differs in the seed alone, {alike.layers[other[0]].kept:,}: "
                f"'{run.spec.method.name}' takes the same share of every layer whatever the seed is"
            )


def _strays(runs: Sequence[RunResult]) -> Iterator[Sequence[RunResult]]:
    """Runs without which the others fit: one at a time, and those of which it may be either."""
    names = sorted(runs[0].layers)
    counts = np.array([[*(run.layers[name].kept for name in names), 1.0] for run in runs], dtype=float)
    counts /= counts.max(axis=0).clip(min=1)
    adds = np.array([run.size.multiply_adds_kept for run in runs if run.size is not None], dtype=float)
    inside, found = np.arange(len(runs)), list[list[RunResult]]()
    while not _fits(counts[inside], adds[inside]):
        if len(found) >= max(1, _FORGED * len(runs)):
            return
        without = [np.delete(inside, place) for place in range(len(inside))]
        misfits = [_misfit(counts[rest], adds[rest]) for rest in without]
        least = max(min(misfits), _FLOORS * float(adds.max()))
        found.append([runs[inside[place]] for place, misfit in enumerate(misfits) if misfit <= least])
        inside = without[int(np.argmin(misfits))]
    if len(inside) > np.linalg.matrix_rank(counts[inside]):  # else any numbers would fit
        yield from found


def _fits(counts: NDArray[np.float64], adds: NDArray[np.float64]) -> bool:
    return len(adds) > 0 and _misfit(counts, adds) <= _FLOORS * float(adds.max())


def _misfit(counts: NDArray[np.float64], adds: NDArray[np.float64]) -> float:
    """The largest difference from the best sum over layers."""
    places = np.linalg.lstsq(counts, adds, rcond=1e-12)[0]
    return float(np.abs(counts @ places - adds).max(initial=0.0))
