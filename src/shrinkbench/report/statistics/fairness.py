"""Under which conditions methods were compared: how much their runs had in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations, product
from typing import Literal

from shrinkbench.report.tables import Cell, Table
from shrinkbench.results.labels import label_runs
from shrinkbench.results.record import RunResult
from shrinkbench.spec import Recipe, RunSpec
from shrinkbench.spec.measures import Cost
from shrinkbench.spec.training_cost import total

MEANING: dict[SetUp, str] = {
    "none": "not even data, network and amount of pruning",
    "task": "data, network and amount of pruning",
    "weights": "also the weights to start from",
    "finetuning": "also the training after pruning",
    "effort": "also the multiply-adds of all phases, up to 5 %",
}


def common_set_ups(results: Iterable[RunResult]) -> dict[tuple[str, str], SetUp]:
    """Pair of methods -> the strictest set-up in which all their runs of one cell can be compared.

    A cell is data, network, amount of pruning and seed. Where a method has several runs there, those that have
    most in common count. Set-ups are those of :func:`common_set_up` (after Wang et al. 2023).
    """
    cells: dict[object, dict[str, list[RunResult]]] = defaultdict(lambda: defaultdict(list))
    done = [run for run in results if run.status == "done"]
    for run, label in zip(done, label_runs([run.spec for run in done]), strict=True):
        spec = run.spec
        if not spec.is_control:
            cells[spec.data, spec.model, spec.amount, spec.seed][label.method].append(run)
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for by_method in cells.values():
        for first, second in combinations(sorted(by_method), 2):
            shared = (SET_UPS.index(_shared(a, b)) for a, b in product(by_method[first], by_method[second]))
            found[first, second].append(max(shared))
    return {pair: SET_UPS[min(levels)] for pair, levels in sorted(found.items())}


def _shared(a: RunResult, b: RunResult) -> SetUp:
    costs = (a.cost, b.cost) if a.cost and b.cost else None
    return common_set_up(a.spec, b.spec, costs)


def set_up_table(results: Iterable[RunResult]) -> Table | None:
    """What the runs of each pair of methods have in common; ``None`` where no two methods share a cell."""
    found = common_set_ups(results)
    if not found:
        return None
    return Table(
        name="set-ups",
        caption="Conditions of each comparison: what the runs of two methods have in common in every cell of "
        "data, network, amount and seed, from the same task to the same effort (after Wang et al. 2023).",
        columns=("first", "second", "set-up", "in common"),
        rows=tuple(
            (Cell(first), Cell(second), Cell(level), Cell(MEANING[level]))
            for (first, second), level in found.items()
        ),
        stubs=2,
        group="Conditions of each comparison",
    )


SetUp = Literal["none", "task", "weights", "finetuning", "effort"]


SET_UPS: tuple[SetUp, ...] = ("none", "task", "weights", "finetuning", "effort")


def common_set_up(
    a: RunSpec, b: RunSpec, costs: tuple[Cost, Cost] | None = None, *, tolerance: float = 0.05
) -> SetUp:
    """The strictest of four ever fairer set-ups in which two runs can be compared (after Wang et al. 2023).

    ``task``: the same data, network and amount of pruning. ``weights``: and the same weights to start from.
    ``finetuning``: and the same epochs and learning rates after pruning. ``effort``: and, by their
    ``costs``, the same multiply-adds in all phases together, up to ``tolerance``. ``none``: not even the
    task.
    """
    if (a.data, a.model, a.amount) != (b.data, b.model, b.amount):
        return "none"
    if (a.weights, a.seed, a.method.start) != (b.weights, b.seed, b.method.start):
        return "task"
    if a.recipe != b.recipe and _training(a.recipe) != _training(b.recipe):
        return "weights"
    if costs is None:
        return "finetuning"
    first, second = (total(cost).multiply_adds for cost in costs)
    alike = abs(first - second) <= tolerance * max(first, second)
    return "effort" if alike else "finetuning"


def _training(recipe: Recipe) -> Recipe:
    """Two recipes that differ in name alone are one."""
    return recipe.model_copy(update={"name": "", "reference": ""})
