"""Facts of a set of results that the checklist's lines are decided by."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.statistics.observations import Observations, observe
from shrinkbench.results.record import LayerDensity, RunResult
from shrinkbench.spec import MethodSpec

OPERATING_POINTS = (2.0, 4.0, 8.0, 16.0, 32.0)
FEWEST_POINTS = 5
FEWEST_SEEDS = 3
FEWEST_PAIRS = 3
COLLAPSE = 0.10
"""A point counts as extreme where mean top-1 lies this far below the control."""
TOY_DATASETS = ("mnist", "fashion-mnist", "digits")
OLD_NETWORKS = ("alexnet", "caffenet", "lenet")
LARGE_DATASETS = ("imagenet", "places")

GridCell = tuple[str, str, float]
"""Task, method, compression target."""


def is_random(method: MethodSpec) -> bool:
    """Whether the score is chance."""
    return method.score.startswith("random")


def is_magnitude(method: MethodSpec) -> bool:
    """Whether the score is the size of weights: |w| or its square, summed over what is removed together."""
    return "magnitude" in method.score or method.score == "square"


def is_plain(method: MethodSpec) -> bool:
    """Whether a method prunes once and then fine-tunes what is left, as a baseline does."""
    return method.schedule == "one-shot" and method.finetuning == "continue"


def is_global(method: MethodSpec) -> bool:
    """Whether all layers compete, or chance does not look at layers."""
    return method.allocation in {"global", "independent"}


def is_uniform(method: MethodSpec) -> bool:
    """Whether every layer keeps the same share."""
    return method.allocation == "layerwise" or method.allocation.startswith("uniform")


def is_baseline(method: MethodSpec) -> bool:
    """Whether a method is one of the checklist's own: plain chance or magnitude, by its layers or another's."""
    simple = is_global(method) or is_uniform(method) or method.allocation.startswith("as:")
    return (is_random(method) or is_magnitude(method)) and is_plain(method) and simple


@dataclass(frozen=True)
class Evidence:
    """Finished runs as the checklist sees them; ``proposed`` names the methods that it judges."""

    results: tuple[RunResult, ...]
    observations: Observations
    proposed: tuple[str, ...]

    @cached_property
    def by_key(self) -> Mapping[str, RunResult]:
        """Finished runs by key."""
        return {result.key: result for result in self.results}

    @cached_property
    def methods(self) -> Mapping[str, MethodSpec]:
        """Definition of every method that was run above compression 1, by its label."""
        rows = self.observations.pruned
        return {m: self.by_key[k].spec.method for m, k in zip(rows["method"], rows["key"], strict=True)}

    @cached_property
    def cells(self) -> Mapping[GridCell, tuple[RunResult, ...]]:
        """Finished runs by task, method and compression target, control left out."""
        found: dict[GridCell, list[RunResult]] = defaultdict(list)
        rows = self.observations.pruned
        columns = (rows[c] for c in ("task", "method", "compression_target", "key"))
        for task, method, target, key in zip(*columns, strict=True):
            found[task, method, target].append(self.by_key[key])
        return {cell: tuple(runs) for cell, runs in found.items()}

    @cached_property
    def control(self) -> Mapping[str, Mapping[int, RunResult]]:
        """The control of every task by seed."""
        found: dict[str, dict[int, RunResult]] = defaultdict(dict)
        rows = self.observations.control
        for task, seed, key in zip(rows["task"], rows["seed"], rows["key"], strict=True):
            found[task][int(seed)] = self.by_key[key]
        return found

    @cached_property
    def places(self) -> Mapping[str, tuple[str, str]]:
        """Dataset and network of every task."""
        return {task: (runs[0].spec.data.name, runs[0].spec.model) for (task, _, _), runs in self.cells.items()}

    @cached_property
    def _targets(self) -> Mapping[tuple[str, str], list[float]]:
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for task, method, target in sorted(self.cells):
            found[task, method].append(target)
        return found

    def targets(self, task: str, method: str) -> list[float]:
        """Compression targets at which ``method`` was run on ``task``."""
        return self._targets.get((task, method), [])

    def curves(self, methods: Iterable[str] | None = None) -> Iterator[tuple[str, str]]:
        """Pairs of task and method that were run."""
        wanted = None if methods is None else set(methods)
        for task, method in self._targets:
            if wanted is None or method in wanted:
                yield task, method

    def collapsed(self, task: str, method: str) -> bool | None:
        """Whether some point's mean top-1 lies far below the control; undefined without a control."""
        control = [r.after.top1 for r in self.control.get(task, {}).values() if r.after]
        if not control:
            return None
        floor = sum(control) / len(control) - COLLAPSE
        for target in self.targets(task, method):
            values = [r.after.top1 for r in self.cells[task, method, target] if r.after]
            if values and sum(values) / len(values) <= floor:
                return True
        return False

    def same_proportions(self, task: str, method: str, kind: str) -> dict[float, list[str]]:
        """For every target of ``method``: keys of ``kind`` runs that keep as much of every layer.

        ``kind`` is ``random`` or ``magnitude``. What counts is what the runs of one seed kept, not what they
        are called.
        """
        wanted = is_random if kind == "random" else is_magnitude
        found = {}
        for target in self.targets(task, method):
            own = {run.spec.seed: run.layers for run in self.cells[task, method, target]}
            found[target] = [
                run.key
                for other in filter(lambda name: wanted(self.methods[name]), self.methods)
                for run in self.cells.get((task, other, target), ())
                if keep_alike(own.get(run.spec.seed, {}), run.layers, drawn=not _exact(run.spec.method))
            ]
        return found


def _exact(method: MethodSpec) -> bool:
    """Whether a layer's share is met to the weight; independent draws only meet it on average."""
    return method.allocation != "independent"


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


def gather(results: Sequence[RunResult], *, proposed: Sequence[str] = ()) -> Evidence:
    """Collect the evidence; ``proposed`` defaults to all but the plain random and magnitude baselines.

    Where the results hold baselines only, every method that is not random is judged.
    """
    observations = observe(results)
    evidence = Evidence(tuple(r for r in results if r.status == "done"), observations, tuple(proposed))
    methods = evidence.methods
    for name in proposed:
        if name not in methods:
            known = ", ".join(methods) or "none"
            raise ShrinkbenchError(f"the results hold no method '{name}'; methods that were run: {known}")
    if not proposed:
        proposed = [n for n, m in methods.items() if not is_baseline(m)]
        proposed = proposed or [n for n, m in methods.items() if not is_random(m)]
    return Evidence(evidence.results, observations, tuple(proposed))
