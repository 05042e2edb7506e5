"""Runs that a set of results lacks for the checklist: found, timed, swept, and looked for again."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shrinkbench.cells import say_count
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.links import check_links
from shrinkbench.report.checklist.causes import Point, say
from shrinkbench.report.gaps import Repair, Resolve, plan_repair
from shrinkbench.report.grids import Define, Pair
from shrinkbench.results.labels import label_runs, recipe_labels
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import ResultStore
from shrinkbench.spec import ExperimentSpec, Recipe, RunSpec, TaskSpec

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
                f"{say_count(missing.runs, 'run is', 'runs are')} still missing after "
                f"{'it was' if missing.runs == 1 else 'they were'} run; "
                f"`shrinkbench report {store.root}` lists those that failed"
            )
        check_links(store.root)
        on_round(missing)
        for key in missing.incomplete:
            store.ask_again(key)
        for experiment in missing.experiments:
            sweep(experiment)
        earlier = missing
    return ()


_Training = tuple[TaskSpec, Recipe, Recipe | None]
"""What decides how long a run takes: the task, and the recipes of its last training and of its search."""


@dataclass(frozen=True)
class Expected:
    """Runs of one task and recipe that would be added: where they lie, and how long they are expected to take.

    ``seconds`` are those of all together, by the mean of ``finished`` runs of the same task and recipe;
    ``None`` where there is none. ``grid`` are the points of both.
    """

    task: str
    recipe: str
    points: tuple[Point, ...]
    grid: tuple[Point, ...]
    keys: tuple[str, ...]
    finished: int
    seconds: float | None


def expect(missing: Sequence[RunSpec], results: Iterable[RunResult]) -> tuple[Expected, ...]:
    """What the runs ``missing`` would take, in groups of one task and recipe.

    Controls are left out of the mean: one that several methods share is trained once and stored by each.
    """
    new = {spec.key for spec in missing}
    done = [r for r in results if r.status == "done" and r.key not in new]
    labels = label_runs([*missing, *(result.spec for result in done)])
    points = [
        (label.task, label.method, label.amount, s.seed) for label, s in zip(labels, missing, strict=False)
    ]
    took: dict[_Training, list[float]] = defaultdict(list)
    there: dict[_Training, list[Point]] = defaultdict(list)
    for result, label in zip(done, labels[len(missing) :], strict=True):
        there[_training(result.spec)].append((label.task, label.method, label.amount, result.spec.seed))
        if not result.spec.is_control:
            took[_training(result.spec)].append(result.provenance.seconds)
    groups: dict[_Training, list[int]] = defaultdict(list)
    for number, spec in enumerate(missing):
        groups[_training(spec)].append(number)
    recipes = recipe_labels(recipe for _, *pair in groups for recipe in pair if recipe is not None)
    return tuple(
        Expected(
            task=points[numbers[0]][0] or "",
            recipe=recipes[key[1]] + (f" after a search by {recipes[key[2]]}" if key[2] is not None else ""),
            points=tuple(points[n] for n in numbers),
            grid=tuple(dict.fromkeys([*(points[n] for n in numbers), *there[key]])),
            keys=tuple(missing[n].key for n in numbers),
            finished=len(took[key]),
            seconds=len(numbers) * statistics.mean(took[key]) if took[key] else None,
        )
        for key, numbers in groups.items()
    )


def _training(spec: RunSpec) -> _Training:
    return spec.task, spec.recipe, spec.search


def say_expected(groups: Sequence[Expected]) -> list[str]:
    """One sentence for each group and method, with the expected time of the group, and one for all."""
    lines = []
    for group in groups:
        basis = f"by the mean of {group.finished} finished runs of this task and recipe"
        time = f"about {_duration(group.seconds)} {basis}" if group.seconds is not None else "time unknown"
        lines.append(f"{_runs(len(group.points))} on {group.task}, trained by {group.recipe}: {time}")
        for method in dict.fromkeys(point[1] for point in group.points):
            own = [point for point in group.points if point[1] == method]
            lines.append(f"  {_runs(len(own))}: {say(own, group.grid, limit=None)}")
    known = [group.seconds for group in groups if group.seconds is not None]
    unknown = sum(len(group.points) for group in groups if group.seconds is None)
    if known:
        rest = f"; {_runs(unknown)} of unknown time" if unknown else ""
        lines.append(f"In all about {_duration(sum(known))}, one run after another{rest}.")
    return lines


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _duration(seconds: float) -> str:
    """A time in the largest unit of which there is one at least.

    >>> _duration(90), _duration(7200), _duration(8.4)
    ('1.5 minutes', '2 hours', '8.4 seconds')
    """
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return (
                f"{seconds / length:.2g} {unit}" if seconds < 10 * length else f"{seconds / length:.0f} {unit}"
            )
    return f"{seconds:.2g} seconds"


def expected_as_json(groups: Sequence[Expected]) -> dict[str, Any]:
    """The runs that would be added one by one, and the seconds of all whose time is expected."""
    runs = [
        {
            "key": key,
            "task": task,
            "method": method,
            "amount": amount,
            "seed": seed,
            "recipe": group.recipe,
            "seconds": None if group.seconds is None else group.seconds / len(group.points),
            "finished": group.finished,
        }
        for group in groups
        for key, (task, method, amount, seed) in zip(group.keys, group.points, strict=True)
    ]
    return {
        "runs": runs,
        "seconds": sum(group.seconds for group in groups if group.seconds is not None),
        "unknown": sum(run["seconds"] is None for run in runs),
    }
