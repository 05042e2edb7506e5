"""Facts of a set of results that the checklist's lines are judged by."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.checklist.causes import Point
from shrinkbench.report.checklist.roles import is_magnitude, is_random, judged
from shrinkbench.report.statistics.curves import TOLERANCE
from shrinkbench.report.statistics.metrics import metric_of
from shrinkbench.report.statistics.observations import SMALLEST_YARDSTICK, Observations, observe
from shrinkbench.results.conflicts import find_differing_controls
from shrinkbench.results.labels import label_runs
from shrinkbench.results.record import LayerDensity, RunResult
from shrinkbench.spec import MethodSpec, RunSpec, SeedsAdded, TaskSpec

OPERATING_POINTS = (2.0, 4.0, 8.0, 16.0, 32.0)
FEWEST_POINTS = 5
FEWEST_SEEDS = 3
FEWEST_PAIRS = 3
COLLAPSE = 0.10
"""A point counts as extreme where the mean is so much worse than the control: 10 points, or 10 % of others."""
DRAWN = 4.0
"""Standard deviations within which weights that are drawn one by one are of equal shares."""
ERROR = 0.01
"""Chance that any draw at random on a page is taken for one of other proportions."""
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


@dataclass(frozen=True)
class Evidence:
    """Finished runs as the checklist sees them; ``proposed`` are the labels of the methods that it judges.

    ``disputed`` are keys of runs, controls included, that another source contradicts.
    """

    results: tuple[RunResult, ...]
    observations: Observations
    proposed: tuple[str, ...]
    disputed: frozenset[str] = frozenset()

    @cached_property
    def by_key(self) -> Mapping[str, RunResult]:
        """Finished runs by key."""
        return {result.key: result for result in self.results}

    @cached_property
    def stem(self) -> str:
        """What figures of the (first) metric that tasks lead with are called after."""
        scales = self.observations.scales
        return self.observations.stem(scales[0].metric) if scales else "top1"

    @cached_property
    def measured(self) -> str:
        """What is measured in words: accuracy, or the metric that every task leads with."""
        metrics = [scale.metric for scale in self.observations.scales]
        if all(metric.is_accuracy for metric in metrics):
            return "accuracy"
        return metrics[0].short if len(metrics) == 1 else "quality"

    @cached_property
    def collapse(self) -> str:
        """By how much a collapsed network is worse, in words."""
        kinds = {scale.metric.percent for scale in self.observations.scales} or {True}
        told = [
            f"{100 * COLLAPSE:.0f} {'points' if percent else '%'}" for percent in sorted(kinds, reverse=True)
        ]
        return " or ".join(told)

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
    def grid(self) -> tuple[Point, ...]:
        """Task, method, amount and seed of every finished run that prunes."""
        return tuple((*cell, run.spec.seed) for cell, runs in self.cells.items() for run in runs)

    @cached_property
    def judged_points(self) -> tuple[Point, ...]:
        """Those of the judged methods."""
        return tuple(point for point in self.grid if point[1] in self.proposed)

    @cached_property
    def _labelled(self) -> Mapping[str, tuple[Point, str]]:
        """Where each finished run stands, controls included, and the key of its control; by its own key."""
        labels = label_runs([run.spec for run in self.results])
        return {
            run.key: ((label.task, label.method, label.amount, run.spec.seed), label.control_key)
            for run, label in zip(self.results, labels, strict=True)
        }

    def point_of(self, run: RunResult) -> Point:
        """Task, method, amount and seed of a finished run."""
        return self._labelled[run.key][0]

    @cached_property
    def controls(self) -> Mapping[str, tuple[RunResult, ...]]:
        """Finished controls by the key under which runs name them: methods may have stored one each."""
        found: dict[str, list[RunResult]] = defaultdict(list)
        for run in self.results:
            if run.spec.is_control:
                found[self._labelled[run.key][1]].append(run)
        return {key: tuple(copies) for key, copies in found.items()}

    def controls_of(self, run: RunResult) -> tuple[RunResult, ...]:
        """The run's own control, in all its copies: nothing pruned, trained alike, of the same seed."""
        return self.controls.get(self._labelled[run.key][1], ())

    @cached_property
    def _doubted(self) -> frozenset[str]:
        """Keys of copies of a control that contradict each other, by the first of them that do."""
        return frozenset(copy.key for pair in find_differing_controls(self.results) for copy in pair)

    def control_of(self, run: RunResult) -> RunResult | None:
        """The run's own control, if it is finished; the copy of its own method where there are several.

        Of copies that contradict each other none is.
        """
        copies = self.controls_of(run)
        if any(copy.key in self._doubted for copy in copies):
            return None
        return next((c for c in copies if c.spec.method == run.spec.method), copies[0] if copies else None)

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
        """Whether some point lies far below the runs' own controls, on average.

        Only points whose every run has its control tell; undefined where no point does so and some cannot.
        """
        known = True
        for amount in self.amounts(task, method):
            runs = self.cells[task, method, amount]
            losses = [_loss(run, own) for run in runs if (own := self.control_of(run)) is not None]
            if len(losses) < len(runs):
                known = False
            elif sum(losses) / len(losses) >= COLLAPSE:
                return True
        return False if known else None

    def same_proportions(self, task: str, method: str, kind: str) -> dict[tuple[str, int], tuple[str, ...]]:
        """For every amount and seed of ``method``: keys of ``kind`` runs that keep as much of every layer.

        ``kind`` is ``random`` or ``magnitude``. What counts is what the runs of one seed kept, not what they
        are called.
        """
        found: dict[tuple[str, int], tuple[str, ...]] = {}
        for amount in self.amounts(task, method):
            for run in self.cells[task, method, amount]:
                others = self._of_kind(task, amount, kind)
                found[amount, run.spec.seed] = tuple(r.key for r in others if self._keeps_as_much(r, run))
        return found

    def own_controls(self, task: str, method: str, kind: str) -> list[str]:
        """Methods whose every ``kind`` run keeps as much of every layer as that of ``method`` beside it."""
        runs = {
            (a, run.spec.seed): run for a in self.amounts(task, method) for run in self.cells[task, method, a]
        }
        matches: dict[str, list[bool]] = defaultdict(list)
        for (amount, seed), run in runs.items():
            for other in self._of_kind(task, amount, kind):
                if other.spec.seed == seed:
                    matches[self.point_of(other)[1] or ""].append(self._keeps_as_much(other, run))
        return [name for name, found in matches.items() if all(found)]

    def _of_kind(self, task: str, amount: str, kind: str) -> list[RunResult]:
        wanted = is_random if kind == "random" else is_magnitude
        names = [name for name, definition in self.methods.items() if wanted(definition)]
        return [run for name in names for run in self.cells.get((task, name, amount), ())]

    @cached_property
    def _deviations(self) -> float:
        """Standard deviations beyond which a layer's share is another, however many layers are looked at."""
        layers = sum(len(run.layers) for runs in self.cells.values() for run in runs)
        return NormalDist().inv_cdf(1 - ERROR / max(2 * layers, 2))

    def _keeps_as_much(self, other: RunResult, run: RunResult) -> bool:
        drawn = not other.spec.method.allocation.exact
        deviations = self._deviations if drawn else 0.0
        return other.spec.seed == run.spec.seed and keep_alike(run.layers, other.layers, deviations=deviations)


def _loss(run: RunResult, control: RunResult) -> float:
    """How much worse a run is than its control in the metric that its task leads with, as a share."""
    objective = run.spec.task.objective
    before, after = control.headline, run.headline
    if before is None or after is None:
        return 0.0
    metric = metric_of(objective.metric(objective.headline))
    worse = metric.sign * (before - after)
    return worse if metric.percent else worse / max(abs(before), SMALLEST_YARDSTICK)


def keep_alike(
    first: Mapping[str, LayerDensity], second: Mapping[str, LayerDensity], *, deviations: float = 0.0
) -> bool:
    """Whether two runs keep equally much of every layer: to the weight or, of weights drawn, up to chance.

    Drawn weights may be one off beside chance, as their number is rounded.

    >>> one, two = {"a": LayerDensity(kept=50, total=100)}, {"a": LayerDensity(kept=52, total=100)}
    >>> keep_alike(one, two), keep_alike(one, two, deviations=3)
    (False, True)
    """
    if not first or first.keys() != second.keys():
        return False
    for name, one in first.items():
        share = one.kept / one.total if one.total else 1.0
        # The last term is that of skewness, which counts where few weights stay.
        chance = 1 + deviations * math.sqrt(one.total * share * (1 - share)) + deviations**2 / 6
        if one.total != second[name].total or abs(one.kept - second[name].kept) > (chance if deviations else 0):
            return False
    return True


def removes_as_much(other: RunResult, run: RunResult) -> bool:
    """Whether ``other`` reached the compression asked for, up to 10 %, or at least what ``run`` reached.

    Of amounts that are no compression each counts by what was asked.
    """
    if run.size is None or other.size is None or run.spec.target is None:
        return True
    return other.size.compression >= (1 - TOLERANCE) * min(run.spec.target, run.size.compression)


def keeps_equal_shares(run: RunResult) -> bool:
    """Whether single weights were removed in equal shares of every layer, up to a weight or a tenth.

    Drawn one by one: up to chance. Of larger units, patterns and bounds on layers nobody can tell by weights.
    """
    method = run.spec.method
    if method.structure.unit != "weight" or method.structure.pattern is not None or run.spec.constraints.label:
        return True
    layers = list(run.layers.values())
    share = sum(layer.kept for layer in layers) / max(1, sum(layer.total for layer in layers))
    drawn = 0.0 if method.allocation.exact else DRAWN
    return all(
        abs(layer.kept - share * layer.total)
        <= max(1.0, TOLERANCE * share * layer.total, drawn * math.sqrt(layer.total * share * (1 - share)))
        for layer in layers
    )


def gather(
    results: Sequence[RunResult],
    *,
    proposed: Sequence[str] = (),
    missing: Sequence[RunSpec] = (),
    disputed: Collection[str] = (),
    sequential: SeedsAdded | None = None,
) -> Evidence:
    """Collect the evidence; ``proposed`` are names or labels of methods, by default those of :func:`judged`.

    Of a ``sequential`` design those are the runs of the first look, which all methods have. Raises
    ``ShrinkbenchError`` where the results hold no method of a name.
    """
    if sequential is not None:
        first = sequential.seeds[: sequential.rules.first_look]
        results = tuple(result for result in results if result.spec.seed in first)
        missing = [spec for spec in missing if spec.seed in first]
    observations = observe(results, missing=missing, disputed=disputed)
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
    return replace(evidence, proposed=tuple(dict.fromkeys(chosen)), disputed=frozenset(disputed))
