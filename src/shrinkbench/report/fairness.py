"""Under which conditions methods were compared: how much their runs had in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations, product

from shrinkbench.budget import SET_UPS, SetUp, common_set_up
from shrinkbench.report.tables import Cell, Table
from shrinkbench.results.record import RunResult

MEANING: dict[SetUp, str] = {
    "none": "not even data, network and compression",
    "task": "data, network and compression",
    "weights": "also the weights to start from",
    "finetuning": "also the training after pruning",
    "effort": "also the multiply-adds of all stages, up to 5 %",
}


def common_set_ups(results: Iterable[RunResult]) -> dict[tuple[str, str], SetUp]:
    """Pair of methods -> the strictest set-up in which all their runs of one cell can be compared.

    A cell is data, network, compression and seed. Where a method has several runs there, those that have most
    in common count. Set-ups are those of :func:`shrinkbench.budget.common_set_up` (after Wang et al. 2023).
    """
    cells: dict[object, dict[str, list[RunResult]]] = defaultdict(lambda: defaultdict(list))
    for run in results:
        if run.status == "done" and run.spec.compression > 1:
            spec = run.spec
            cells[spec.data, spec.model, spec.compression, spec.seed][spec.method.name].append(run)
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for by_method in cells.values():
        for first, second in combinations(sorted(by_method), 2):
            shared = (SET_UPS.index(_shared(a, b)) for a, b in product(by_method[first], by_method[second]))
            found[first, second].append(max(shared))
    return {pair: SET_UPS[min(levels)] for pair, levels in sorted(found.items())}


def _shared(a: RunResult, b: RunResult) -> SetUp:
    budgets = (a.budget, b.budget) if a.budget and b.budget else None
    return common_set_up(a.spec, b.spec, budgets)


def set_up_table(results: Iterable[RunResult]) -> Table | None:
    """What the runs of each pair of methods have in common; ``None`` where no two methods share a cell."""
    found = common_set_ups(results)
    if not found:
        return None
    return Table(
        name="set-ups",
        caption="Conditions of each comparison: what the runs of two methods have in common in every cell of "
        "data, network, compression and seed, from the same task to the same effort (after Wang et al. 2023).",
        columns=("first", "second", "set-up", "in common"),
        rows=tuple(
            (Cell(first), Cell(second), Cell(level), Cell(MEANING[level]))
            for (first, second), level in found.items()
        ),
        stubs=2,
    )
