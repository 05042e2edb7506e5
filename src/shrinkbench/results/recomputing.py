"""What a result states and what follows from the rest of it by arithmetic: computation and learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from shrinkbench.results.record import RunResult
from shrinkbench.spec import DETECTION
from shrinkbench.spec.recipe import learning_rate

_EXACT = 1e-9
_FLOORS = 1e-3  # each product of a network is rounded down


def find_other_rates(results: Iterable[RunResult]) -> Iterator[str]:
    """Runs whose epochs had other learning rates than their recipe gives; one clause for each run.

    Of recipes that are stretched to equal computation nothing is said.
    """
    for run in results:
        if run.spec.migrated_from is not None or run.spec.method.finetuning.equal == "computation":
            continue
        for epoch in run.epochs:
            expected = learning_rate(run.spec.recipe, epoch.epoch)
            if not math.isclose(epoch.learning_rate, expected, rel_tol=_EXACT, abs_tol=_EXACT**2):
                yield (
                    f"run {run.key[:12]}: the learning rate of epoch {epoch.epoch} is {epoch.learning_rate:g}, "
                    f"and that of recipe '{run.spec.recipe.name}' is {expected:g}"
                )
                break


def find_other_computation(results: Iterable[RunResult]) -> Iterator[str]:
    """Runs whose multiply-adds do not go with what is kept of their layers.

    A product of a share of a layer's weights takes that share: so all of them together take a share between the
    smallest and 1, and networks of which as much is kept of every layer take as much. A detector is cut beside.
    """
    taken: dict[object, RunResult] = {}
    for run in results:
        size = run.size
        if size is None or not run.layers or not size.multiply_adds:
            continue
        if run.spec.task.objective.headline == DETECTION.headline:
            continue
        least = min(layer.kept / max(1, layer.total) for layer in run.layers.values())
        share = size.multiply_adds_kept / size.multiply_adds
        if not least - _FLOORS <= share <= 1:
            yield (
                f"run {run.key[:12]}: it keeps {share:.4g} of its multiply-adds, and of every layer at least "
                f"{least:.4g}"
            )
            continue
        kept = tuple(sorted((name, layer.kept, layer.positions) for name, layer in run.layers.items()))
        network = run.spec.task.model, run.spec.data.name, run.spec.data.sides, size.multiply_adds
        first = taken.setdefault((network, kept), run)
        alike = first.size.multiply_adds_kept if first.size is not None else 0
        if not math.isclose(size.multiply_adds_kept, alike, rel_tol=_FLOORS):
            yield (
                f"run {run.key[:12]}: it keeps {size.multiply_adds_kept:,} multiply-adds, and run "
                f"{first.key[:12]}, with as much of every layer, {alike:,}"
            )
