"""Facts of a set of results that the checklist's lines are judged by."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.compared import split_by_metric
from shrinkbench.report.statistics.observations import Observations, observe
from shrinkbench.results.record import LayerDensity, RunResult
from shrinkbench.spec import MethodSpec, RunSpec, TaskSpec

OPERATING_POINTS = (2.0, 4.0, 8.0, 16.0, 32.0)
FEWEST_POINTS = 5
FEWEST_SEEDS = 3
FEWEST_PAIRS = 3
COLLAPSE = 0.10
"""A point counts as extreme where mean accuracy lies this far below the control."""
TOY_DATASETS = frozenset({"mnist", "fashion-mnist", "digits"})
OLD_NETWORKS = frozenset(
    {
        *("alexnet-2012", "alexnet-ungrouped", "caffenet", "torchvision/alexnet"),
        *("lenet-300-100", "lenet5", "lenet5-caffe"),
    }
)
LARGE_DATASETS = frozenset({"imagenet", "places365"})

GridCell = tuple[str, str, str]
"""Task, method and amount."""


def is_random(method: MethodSpec) -> bool:
    """Whether the score is chance."""
    return method.score.kind == "random"


def is_magnitude(method: MethodSpec) -> bool:
    """Whether the score is the size of weights."""
    return method.score.kind == "magnitude"


def is_plain(method: MethodSpec) -> bool:
    """Whether a method prunes trained weights once and then fine-tunes what is left, as a baseline does."""
    schedule, after = method.schedule, method.finetuning
    once = schedule.start == "trained" and schedule.rounds == 1 and not schedule.during
    return once and after.weights == "kept" and after.recipe == "finetuning"


def is_global(method: MethodSpec) -> bool:
    """Whether all layers compete, or chance does not look at layers."""
    return method.allocation.scope == "global"


def is_uniform(method: MethodSpec) -> bool:
    """Whether every layer keeps the same share."""
    return method.allocation.uniform


def is_control(method: MethodSpec) -> bool:
    """Whether a method takes the layerwise proportions of another, to show what its own score adds."""
    return method.allocation.like is not None


def is_baseline(method: MethodSpec) -> bool:
    """Whether a method is one of the checklist's own: plain chance or magnitude, global or uniform."""
    simple = is_global(method) or is_uniform(method)
    return (is_random(method) or is_magnitude(method)) and is_plain(method) and simple


def judged(methods: Iterable[MethodSpec]) -> frozenset[MethodSpec]:
    """The methods that are judged unless the author names others: neither baselines nor controls.

    Where there are baselines only, all that are not random are judged.
    """
    others = [m for m in methods if not is_control(m)]
    proposed = [m for m in others if not is_baseline(m)]
    return frozenset(proposed or [m for m in others if not is_random(m)])


@dataclass(frozen=True)
class Evidence:
    """Finished runs as the checklist sees them; ``proposed`` are the labels of the methods that it judges."""

    results: tuple[RunResult, ...]
    observations: Observations
    proposed: tuple[str, ...]

    @cached_property
    def by_key(self) -> Mapping[str, RunResult]:
        """Finished runs by key."""
        return {result.key: result for result in self.results}

    @cached_property
    def methods(self) -> Mapping[str, MethodSpec]:
        """Definition of every method that pruned something, by its label."""
        rows = self.observations.pruned
        return {m: self.by_key[k].spec.method for m, k in zip(rows["method"], rows["key"], strict=True)}

    @cached_property
    def cells(self) -> Mapping[GridCell, tuple[RunResult, ...]]:
        """Finished runs that prune by task, method and amount, in order of the compression reached."""
        found: dict[GridCell, list[RunResult]] = defaultdict(list)
        rows = self.observations.pruned
        columns = (rows[c] for c in ("task", "method", "amount", "key"))
        for task, method, amount, key in zip(*columns, strict=True):
            found[task, method, amount].append(self.by_key[key])
        return {cell: tuple(runs) for cell, runs in found.items()}

    @cached_property
    def _controls(self) -> Mapping[str, RunResult]:
        """Every finished control by the key under which runs name it."""
        rows = self.observations.control
        keys = zip(rows["control_key"], rows["key"], strict=True)
        return {control: self.by_key[key] for control, key in keys}

    @cached_property
    def _control_keys(self) -> Mapping[str, str]:
        """The key of each pruned run's control by the run's own key."""
        rows = self.observations.pruned
        return dict(zip(rows["key"], rows["control_key"], strict=True))

    def control_of(self, run: RunResult) -> RunResult | None:
        """The run's own control: nothing pruned, trained alike, of the same seed; if it is finished."""
        return self._controls.get(self._control_keys[run.key])

    @cached_property
    def tasks(self) -> Mapping[str, TaskSpec]:
        """Every task on which something was pruned, by its label."""
        return {task: runs[0].spec.task for (task, _, _), runs in self.cells.items()}

    @cached_property
    def _amounts(self) -> Mapping[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for task, method, amount in self.cells:
            found[task, method].append(amount)
        return found

    def amounts(self, task: str, method: str) -> list[str]:
        """How much ``method`` pruned on ``task``, in order of the compression reached."""
        return self._amounts.get((task, method), [])

    def curves(self, methods: Iterable[str] | None = None) -> Iterator[tuple[str, str]]:
        """Pairs of task and method that were run."""
        wanted = None if methods is None else set(methods)
        for task, method in self._amounts:
            if wanted is None or method in wanted:
                yield task, method

    def collapsed(self, task: str, method: str) -> bool | None:
        """Whether some point lies far below the runs' own controls, on average; undefined without controls."""
        known = False
        for amount in self.amounts(task, method):
            pairs = [(run, self.control_of(run)) for run in self.cells[task, method, amount]]
            losses = [_loss(run, control) for run, control in pairs if control is not None]
            known = known or bool(losses)
            if losses and sum(losses) / len(losses) >= COLLAPSE:
                return True
        return False if known else None

    def same_proportions(self, task: str, method: str, kind: str) -> dict[str, list[str]]:
        """For every amount of ``method``: keys of ``kind`` runs that keep as much of every layer.

        ``kind`` is ``random`` or ``magnitude``. What counts is what the runs of one seed kept, not what they
        are called.
        """
        wanted = is_random if kind == "random" else is_magnitude
        others = [name for name, definition in self.methods.items() if wanted(definition)]
        found = {}
        for amount in self.amounts(task, method):
            own = {run.spec.seed: run.layers for run in self.cells[task, method, amount]}
            found[amount] = [
                run.key
                for other in others
                for run in self.cells.get((task, other, amount), ())
                if keep_alike(
                    own.get(run.spec.seed, {}), run.layers, drawn=not run.spec.method.allocation.exact
                )
            ]
        return found


def _loss(run: RunResult, control: RunResult) -> float:
    """How much worse a run is than its control in the metric that its task leads with."""
    objective = run.spec.task.objective
    before, after = control.headline, run.headline
    if before is None or after is None:
        return 0.0
    return before - after if objective.metric(objective.headline).direction == "higher" else after - before


def keep_alike(
    first: Mapping[str, LayerDensity], second: Mapping[str, LayerDensity], *, drawn: bool = False
) -> bool:
    """Whether two runs keep equally much of every layer, to the weight or (``drawn``) up to chance.

    >>> one, two = {"a": LayerDensity(kept=50, total=100)}, {"a": LayerDensity(kept=52, total=100)}
    >>> keep_alike(one, two), keep_alike(one, two, drawn=True)
    (False, True)
    """
    if not first or first.keys() != second.keys():
        return False
    for name, one in first.items():
        share = one.kept / one.total if one.total else 1.0
        chance = 3 * math.sqrt(one.total * share * (1 - share)) if drawn else 0.0
        if abs(one.kept - second[name].kept) > 1 + chance:
            return False
    return True


def gather(
    results: Sequence[RunResult], *, proposed: Sequence[str] = (), missing: Sequence[RunSpec] = ()
) -> Evidence:
    """Collect the evidence; ``proposed`` are names or labels of methods, by default those of :func:`judged`.

    Runs of tasks that lead with another metric than top-1 take no part (:func:`split_by_metric`). Raises
    ``ShrinkbenchError`` where the results hold no method of a name.
    """
    results = split_by_metric(results).compared
    observations = observe(results, missing=missing)
    evidence = Evidence(tuple(r for r in results if r.status == "done"), observations, ())
    methods = evidence.methods
    default = judged(methods.values())
    chosen = [label for label, method in methods.items() if not proposed and method in default]
    for name in proposed:
        found = [label for label, method in methods.items() if name in (label, method.name)]
        if not found:
            known = ", ".join(methods) or "none"
            raise ShrinkbenchError(f"the results hold no method '{name}'; methods that were run: {known}")
        chosen += found
    return Evidence(evidence.results, observations, tuple(dict.fromkeys(chosen)))
