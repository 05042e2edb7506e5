"""Runs that a set of results lacks for the checklist: found, swept, and looked for again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.gaps import Repair, Resolve, plan_repair
from shrinkbench.report.grids import Define, Pair
from shrinkbench.results.store import ResultStore
from shrinkbench.spec import ExperimentSpec

MOST_ROUNDS = 6
"""Compression doubles from round to round until accuracy collapses; this bounds it."""


def repair(
    store: ResultStore,
    *,
    resolve: Resolve,
    sweep: Callable[[ExperimentSpec], object],
    define: Define,
    proposed: Sequence[str] = (),
    pairs: Sequence[Pair] = (),
    on_round: Callable[[Repair], None] = lambda repair: None,
) -> tuple[str, ...]:
    """Plan and run what is missing, round after round, until nothing is; what no run can mend is returned.

    ``sweep`` carries a grid out into ``store``, ``on_round`` is told what it is about to run; the others are
    those of :func:`shrinkbench.report.gaps.plan_repair`. Raises ``ShrinkbenchError`` where a round changes
    nothing.
    """
    earlier: Repair | None = None
    for _ in range(MOST_ROUNDS):
        missing = plan_repair(
            store.read_plan(),
            store.results()[0],
            resolve=resolve,
            proposed=proposed,
            pairs=pairs,
            define=define,
        )
        if not missing.experiments:
            return missing.notes
        if missing == earlier:
            raise ShrinkbenchError(
                f"{missing.runs} runs are still missing after they were run; `shrinkbench report {store.root}` "
                "lists those that failed"
            )
        on_round(missing)
        for key in missing.incomplete:
            store.discard(key)
        for experiment in missing.experiments:
            sweep(experiment)
        earlier = missing
    return ()
