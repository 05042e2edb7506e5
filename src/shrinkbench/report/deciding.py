"""Seeds are added, cell by cell, until the comparison that was asked for is decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shrinkbench.report.races import describe_race
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.observations import Observations, observe_bundle
from shrinkbench.report.statistics.sequential import Race
from shrinkbench.results.bundle import Bundle, read_source
from shrinkbench.results.store import ResultStore, Status
from shrinkbench.spec import ExperimentSpec, Recipe, RunSpec, TaskSpec, UntilDecided
from shrinkbench.spec.axes import MethodSpec

Wanted = Callable[[RunSpec], bool]
_Cell = tuple[TaskSpec, MethodSpec, Recipe, Recipe | None]


def decide(
    experiment: ExperimentSpec,
    store: ResultStore,
    *,
    sweep: Callable[[Wanted], Status],
    on_look: Callable[[Sequence[str]], None] = lambda sentences: None,
) -> tuple[Race, ...]:
    """Sweep the seeds of each look, and look, until every task is decided or cannot be.

    ``sweep`` carries out those runs of ``experiment`` that are wanted. A method that is told apart as worse
    takes no further seed. Ends early, with tasks that wait, where runs stay missing.
    """
    rules = experiment.until_decided or UntilDecided()
    races: tuple[Race, ...] = ()
    before: set[tuple[str, int]] = set()
    wanted: Wanted = _first(experiment.seed[: rules.first_look])
    while True:
        status = sweep(wanted)
        bundle = read_source(store.root)
        observations = observe_bundle(bundle)
        races = tuple(task.race for task in judge(observations).tasks if task.race is not None)
        on_look([describe_race(race, rules, observations.metric(race.task)) for race in races])
        waiting = [race for race in races if race.state == "waiting"]
        needs = {(race.task, race.needs) for race in waiting}
        if not waiting or status.missing or needs == before:
            return races
        before = needs
        wanted = _next(waiting, observations, bundle, experiment.seed)


def _first(seeds: Sequence[int]) -> Wanted:
    return lambda spec: spec.seed in seeds


def _next(waiting: Sequence[Race], observations: Observations, bundle: Bundle, seeds: Sequence[int]) -> Wanted:
    """What is planned already, and all amounts of the next seeds of methods that are still compared."""
    planned = {run.key for run in bundle.plan.runs} if bundle.plan else set()
    specs = {result.key: result.spec for result in bundle.results}
    needs = {(race.task, method): race.needs for race in waiting for method in race.active}
    cells: dict[_Cell, int] = {}
    for rows in (observations.pruned, observations.gaps):
        for task, method, key in zip(rows["task"], rows["method"], rows["key"], strict=True):
            if (task, method) in needs and key in specs:
                cells[_cell(specs[key])] = needs[task, method]
    return lambda spec: spec.key in planned or spec.seed in seeds[: cells.get(_cell(spec), 0)]


def _cell(spec: RunSpec) -> _Cell:
    return spec.task, spec.method, spec.recipe, spec.search
