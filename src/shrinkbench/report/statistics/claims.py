"""Is A better than B? One answer to each question that the report is asked, corrected for all of them.

Questions are: over the common range of a task (every pair of methods), at one level of a task (the best method
against the runner-up), and over tasks (every pair, where there are several). Units are the seeds of a task, or
the tasks; see docs/statistics.md for the choices and their error rates.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.blocks import Block, LeftOut, common_block
from shrinkbench.report.statistics.curves import Curve, curves, default_levels
from shrinkbench.report.statistics.observations import Observations

NOISIER = 1.5
"""A pair whose variance is more than this many times that of all pairs is tested with its own."""
SHARES = {"range": 0.25, "tasks": 0.25, "level": 0.5}
"""How the 5 % are shared among the questions; one that is not asked gives its share to the levels."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Claim:
    """``first`` minus ``second`` in the metric, with its 95 % interval and p before and after correction.

    Both stand for what is better: a positive ``difference`` speaks for ``first``, whatever the metric's
    direction. ``n`` counts seeds or, over tasks, tasks; ``deviation`` is of one unit's difference, as tested.
    """

    question: str
    task: str
    first: str
    second: str
    reach: tuple[float, float]
    difference: float
    low: float
    high: float
    deviation: float
    freedom: int
    n: int
    differences: tuple[float, ...]
    p_raw: float
    p: float = math.nan

    @property
    def decided(self) -> bool:
        """Whether the two are told apart."""
        return self.p < stats.ALPHA

    @property
    def reversed(self) -> Claim:
        """The same claim, seen from the second method."""
        return replace(
            self,
            first=self.second,
            second=self.first,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
            differences=tuple(-d for d in self.differences),
        )

    @functools.cached_property
    def effect(self) -> stats.Effect:
        """The standardised difference over the units; slow to make, and few are looked at."""
        return stats.effect_size(self.differences)

    def involves(self, method: str) -> bool:
        """Whether ``method`` is one of the two."""
        return method in (self.first, self.second)


@dataclass(frozen=True, eq=False)
class Level:
    """What can be said at one level of a task; ``claim`` is missing where one method alone can be compared.

    ``leads`` are those of the best method over each other one, by themselves: they are not shown.
    """

    level: float
    block: Block
    claim: Claim | None
    leads: tuple[Claim, ...] = ()


@dataclass(frozen=True, eq=False)
class TaskClaims:
    """A task's comparison over its common range, its pairs, and its levels one by one.

    ``looks`` counts the leads of best methods over others at all levels of all tasks.
    """

    task: str
    block: Block
    pairs: tuple[Claim, ...]
    levels: tuple[Level, ...]
    looks: int = 0


@dataclass(frozen=True, eq=False)
class Claims:
    """All answers. ``over_tasks`` has tasks as units, ``comparisons`` is what p-values are corrected for."""

    tasks: tuple[TaskClaims, ...]
    over_tasks: Block | None
    pairs_over_tasks: tuple[Claim, ...]
    comparisons: int

    def of(self, task: str) -> TaskClaims | None:
        """The answers about one task."""
        return next((found for found in self.tasks if found.task == task), None)


@functools.lru_cache(maxsize=16)
def judge(observations: Observations, *, metric: str = "top1", axis: str = "compression") -> Claims:
    """Answer all questions about ``observations``; decisions of the report are those along compression."""
    return judge_curves(
        curves(observations, axis, metric),
        default_levels(observations, axis),
        places={t: (spec.objective, spec.data, spec.model) for t, spec in observations.task_specs.items()},
        order=observations.methods,
        higher_is_better=observations.metrics[metric].higher_is_better,
    )


def judge_curves(
    found: Iterable[Curve],
    levels: Sequence[float],
    *,
    places: Mapping[str, object],
    order: Sequence[str] = (),
    higher_is_better: bool = True,
) -> Claims:
    """Answer all questions about curves at ``levels``.

    Tasks of equal ``places`` (data and network, from other initial weights) are one unit over tasks.
    """
    by_task: dict[str, list[Curve]] = defaultdict(list)
    rank = {method: place for place, method in enumerate(order)}
    for curve in sorted(found, key=lambda c: (c.task, rank.get(c.method, len(rank)), c.method, c.seed)):
        by_task[curve.task].append(curve if higher_is_better else replace(curve, y=-curve.y))
    tasks = [_judge_task(task, members, levels) for task, members in by_task.items()]
    over = _over_tasks(tasks, places)
    pairs = _pairs("tasks", "", over, {}) if over else ()
    return _corrected(tasks, over, pairs)


def _judge_task(task: str, members: Sequence[Curve], levels: Sequence[float]) -> TaskClaims:
    block = common_block(members)
    at = [(level, common_block(members, level=level)) for level in levels]
    at = [(level, found) for level, found in at if found.methods]
    noise = _relative_noise([found for _, found in at])
    compared = [found.of(block.methods) for _, found in at]  # who is not compared tells nothing of who is
    pairs = [*_pairs("range", task, block, _relative_noise(compared))]
    for left_out in block.left_out:  # with each other method over what the two share
        for other in dict.fromkeys(c.method for c in members):
            pair = common_block([c for c in members if c.method in (left_out.method, other)])
            if other != left_out.method and not any(
                c.involves(other) and c.involves(left_out.method) for c in pairs
            ):
                pairs += _pairs("range", task, pair, noise)
    return TaskClaims(
        task, block, tuple(pairs), tuple(_judge_level(task, level, here, noise) for level, here in at)
    )


def _relative_noise(blocks: Iterable[Block]) -> dict[Pair, float]:
    """How many times as variable a pair's differences are as those of all pairs, on average over levels.

    With few seeds one level alone tells little of it; a method's noise grows and falls with that of the others.
    """
    found: dict[Pair, list[float]] = defaultdict(list)
    for block in blocks:
        variances = _variances(block)
        pooled = _mean(variances.values())
        if math.isfinite(pooled) and pooled > 0:
            for pair, variance in variances.items():
                found[pair].append(variance / pooled)
    return {pair: _mean(ratios) for pair, ratios in found.items()}


def _variances(block: Block) -> dict[Pair, float]:
    """Sample variance over units of each pair's difference."""
    if len(block.units) < 2:
        return {}
    first, second = np.triu_indices(len(block.methods), 1)
    found = (block.values[first] - block.values[second]).var(axis=1, ddof=1).tolist()
    return dict(zip(itertools.combinations(block.methods, 2), found, strict=True))


def _pairs(question: str, task: str, block: Block, noise: Mapping[Pair, float]) -> list[Claim]:
    """Every pair of the block's methods, in their order."""
    layout = _Layout.of(block, noise)
    return [_claim(question, task, layout, pair) for pair in itertools.combinations(block.methods, 2)]


def _judge_level(task: str, level: float, block: Block, noise: Mapping[Pair, float]) -> Level:
    """The best method against the runner-up, which tells it apart from all others (Hung and Fithian 2019)."""
    best, *others = (block.methods[i] for i in np.argsort(-block.means, kind="stable"))
    layout = _Layout.of(block, noise)
    leads = tuple(_claim("level", task, layout, (best, other)) for other in others)
    return Level(level, block, leads[0] if leads else None, leads)


@dataclass(frozen=True, eq=False)
class _Layout:
    """What the claims about the pairs of a block share; ``noise`` is that of :func:`_relative_noise`."""

    block: Block
    values: Mapping[str, stats.Floats]
    variances: Mapping[Pair, float]
    pooled: float
    noise: Mapping[Pair, float]

    @classmethod
    def of(cls, block: Block, noise: Mapping[Pair, float]) -> _Layout:
        """The layout of ``block``."""
        variances = _variances(block)
        values = dict(zip(block.methods, block.values, strict=True))
        return cls(block, values, variances, _mean(variances.values()), noise)

    def variance(self, pair: Pair) -> float:
        """The mean over all pairs, times the pair's relative noise where that is above :data:`NOISIER`."""
        own = self.variances.get(pair, self.variances.get(pair[::-1], math.nan))
        ratio = self.noise.get(pair, self.noise.get(pair[::-1], own / self.pooled if self.pooled else 1.0))
        return self.pooled * (ratio if ratio > NOISIER else 1.0)


def _claim(question: str, task: str, layout: _Layout, pair: Pair) -> Claim:
    """Compare a pair on the block's units: the t-test of a two-way layout, with a noisy pair's own variance.

    freedom = (methods - 1) (units - 1).
    """
    block = layout.block
    n = len(block.units)
    differences = layout.values[pair[0]] - layout.values[pair[1]]
    variance = layout.variance(pair)
    freedom = (len(block.methods) - 1) * (n - 1)
    mean = float(differences.mean())
    error = math.sqrt(variance / n) if n > 1 else math.nan
    spread = n > 1 and error > 1e-12  # units that agree to the last digit tell nothing of others
    half = stats.t_quantile((1 + stats.CONFIDENCE) / 2, freedom) * error if spread else math.nan
    return Claim(
        question=question,
        task=task,
        first=pair[0],
        second=pair[1],
        reach=(block.low, block.high),
        difference=mean,
        low=mean - half,
        high=mean + half,
        deviation=math.sqrt(variance),
        freedom=freedom,
        n=n,
        differences=tuple(differences.tolist()),
        p_raw=_p_value(mean, error, freedom),
    )


def _p_value(difference: float, error: float, freedom: int) -> float:
    """Two-sided p of the t-test; undefined without variation, unless nothing differs."""
    if not math.isfinite(error) or error <= 1e-12:
        return 1.0 if difference == 0 else math.nan
    return float(2 * scipy.special.stdtr(freedom, -abs(difference / error)))


def _over_tasks(tasks: Sequence[TaskClaims], places: Mapping[str, object]) -> Block | None:
    """Methods x places, seeds averaged, each task over its own range; missing below two places.

    Places are those where more than half of the methods are compared; a method that is not on one of them is
    left out, as a method without one of the seeds is within a task.
    """
    by_place: dict[object, list[TaskClaims]] = defaultdict(list)
    for task in tasks:
        by_place[places.get(task.task, task.task)].append(task)
    methods = list(dict.fromkeys(method for task in tasks for method in task.block.methods))
    known = [_means_at(members) for members in by_place.values()]
    names = [" and ".join(task.task for task in members) for members in by_place.values()]
    kept = [place for place, means in enumerate(known) if 2 * len(means) > len(methods) and len(means) > 1]
    if len(kept) < 2:
        return None
    chosen = [task for place, members in enumerate(by_place.values()) if place in kept for task in members]
    absent = {m: [task.task for task in chosen if m not in task.block.methods] for m in methods}
    complete = [method for method in methods if not absent[method]]
    nowhere = dict.fromkeys(
        one.method for task in tasks for one in task.block.left_out if one.method not in absent
    )
    return Block(
        math.nan,
        math.nan,
        tuple(complete),
        tuple(names[place] for place in kept),
        np.array([[known[place][method] for place in kept] for method in complete]).reshape(
            len(complete), len(kept)
        ),
        (
            *(LeftOut(m, f"not compared on {', '.join(where)}") for m, where in absent.items() if where),
            *(LeftOut(method, "compared on no task") for method in nowhere),
        ),
        tuple(name for place, name in enumerate(names) if place not in kept),
    )


def _means_at(members: Sequence[TaskClaims]) -> dict[str, float]:
    """Mean of every method over the tasks of one place; of those compared on all of them."""
    means = [dict(zip(task.block.methods, task.block.means, strict=True)) for task in members]
    return {method: _mean(m[method] for m in means) for method in means[0] if all(method in m for m in means)}


def _corrected(tasks: Sequence[TaskClaims], over: Block | None, pairs: Sequence[Claim]) -> Claims:
    """All claims with p corrected by weighted Holm: each question's share of the 5 % in equal parts."""
    everything = [*pairs]
    for task in tasks:
        everything += [*task.pairs, *(level.claim for level in task.levels if level.claim)]
    counts = {question: sum(c.question == question for c in everything) for question in SHARES}
    shares = {question: share if counts[question] else 0.0 for question, share in SHARES.items()}
    weights = [shares[c.question] / counts[c.question] for c in everything]
    if counts["level"]:
        spare = 1.0 - sum(shares.values())
        weights = [
            w + spare / counts["level"] * (c.question == "level")
            for w, c in zip(weights, everything, strict=True)
        ]
    adjusted = stats.holm([c.p_raw for c in everything], weights=weights)
    looks = sum(len(level.leads) for task in tasks for level in task.levels)
    told = {id(c): replace(c, p=float(p)) for c, p in zip(everything, adjusted, strict=True)}
    return Claims(
        tuple(
            replace(
                task,
                looks=looks,
                pairs=tuple(told[id(c)] for c in task.pairs),
                levels=tuple(replace(lv, claim=told[id(lv.claim)] if lv.claim else None) for lv in task.levels),
            )
            for task in tasks
        ),
        over,
        tuple(told[id(c)] for c in pairs),
        len(everything),
    )


def more_units(claim: Claim, *, margin: float, power: float = 0.8, most: int = 1000) -> int | None:
    """How many more seeds (or tasks) would find a difference of ``margin`` with probability ``power``.

    At the level that the correction left for this claim, if its deviation is what was seen. ``None`` where it
    would be more than ``most``, or nothing is known of the deviation.
    """
    if not claim.n > 1 or not claim.deviation > 0 or not math.isfinite(claim.p):
        return None
    alpha = stats.ALPHA * (claim.p_raw / claim.p if claim.p < 1 else 1.0)
    others = claim.freedom // (claim.n - 1)

    def found(n: int) -> bool:
        centre = margin / claim.deviation * math.sqrt(n)
        return stats.power_of_t(centre, others * (n - 1), alpha=alpha) >= power

    enough = bisect.bisect_left(range(claim.n, claim.n + most + 1), True, key=found)
    return enough if enough <= most else None


def _mean(values: Iterable[float]) -> float:
    """Arithmetic mean; undefined of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else math.nan
