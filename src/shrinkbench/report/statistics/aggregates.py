"""What a reader of rliable looks for (Agarwal et al. 2021): aggregates over tasks with bootstrap intervals.

A run's score is its mean over log compression, over its task's range, divided by the control of its own seed
(the control by it, where less is better): 1 is what an unpruned network has, and more is better. A metric that
can be less than zero has no such scores. Intervals are of a hierarchical bootstrap: tasks are drawn with
replacement, then seeds within each. Of fewer than :data:`ENOUGH` tasks it covers too rarely, see
docs/statistics.md; it decides nothing here.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from shrinkbench.report.statistics.claims import TaskClaims, judge
from shrinkbench.report.statistics.curves import SAME, curves
from shrinkbench.report.statistics.metrics import HEADLINE, Metric
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.report.statistics.places import place_of
from shrinkbench.report.statistics.tests import BOOTSTRAP_RESAMPLES, CONFIDENCE, Floats

ENOUGH = 10
"""From this number of tasks on the bootstrap's intervals hold what they promise, about."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Normalised scores, methods x runs; the runs of ``tasks[i]`` are the columns ``runs[i]``.

    ``without_control`` are methods that lack the control of some run, and with it scores; ``label`` says what
    a score is.
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    values: Floats
    runs: tuple[range, ...]
    without_control: tuple[str, ...] = ()
    label: str = "value / own control"


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Aggregate:
    """One method over all tasks; ``beaten``: the probability that the best by interquartile mean is better."""

    method: str
    interquartile_mean: Estimate
    median: Estimate
    mean: Estimate
    beaten: Estimate | None


@functools.lru_cache(maxsize=8)
def normalised_scores(observations: Observations) -> Scores | None:
    """Scores of the methods that are compared over tasks; ``None`` without two tasks and two methods."""
    claims = judge(observations)
    over = claims.over_tasks
    if over is None or len(over.methods) < 2:
        return None
    compared = {t.task for t in claims.tasks if t.task not in over.units_left_out}
    if not all(_has_ratios(observations, task) for task in compared):
        return None
    controls = {
        (c.task, c.method, str(c.seed)): float(c.y[0])
        for c in curves(observations, "compression", HEADLINE)
        if len(c.x) and abs(c.x[0] - 1) < SAME
    }
    specs = observations.task_specs
    by_place: dict[object, list[TaskClaims]] = defaultdict(list)
    for task in claims.tasks:
        by_place[place_of(specs[task.task])].append(task)
    parts, sizes = [], []
    for members in by_place.values():
        if " and ".join(task.task for task in members) in over.units:
            found = [
                _scores_of(task, over.methods, controls) ** observations.direction(task.task)
                for task in members
            ]
            parts += found
            sizes.append(sum(part.shape[1] for part in found))
    values = np.concatenate(parts, axis=1)
    known = [bool(np.isfinite(row).all()) for row in values]
    if sum(known) < 2:
        return None
    ends = np.cumsum(sizes)
    return Scores(
        tuple(m for m, k in zip(over.methods, known, strict=True) if k),
        over.units,
        values[known],
        tuple(range(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)),
        tuple(m for m, k in zip(over.methods, known, strict=True) if not k),
        _label(observations.metric(next(task for task in observations.tasks if task in compared))),
    )


def _label(metric: Metric) -> str:
    mean = f"mean {metric.short} over log compression"
    return f"{mean} / own control" if metric.higher_is_better else f"own control / {mean}"


def _has_ratios(observations: Observations, task: str) -> bool:
    """Whether values of the task's metric may be divided by one another."""
    objective = observations.task_specs[task].objective
    lower = objective.metric(objective.headline).lower
    return lower is not None and lower >= 0


def _scores_of(task: TaskClaims, methods: Sequence[str], controls: dict[tuple[str, str, str], float]) -> Floats:
    """Methods x seeds of one task; missing without a control."""
    means = dict(zip(task.block.methods, task.block.values, strict=True))
    return np.array(
        [
            np.abs(means[m])
            / np.array([controls.get((task.task, m, seed)) or math.nan for seed in task.block.units])
            for m in methods
        ]
    )


def interquartile_mean(values: ArrayLike) -> Floats:
    """Mean of the middle half along the last axis, a quarter (rounded down) left out at either end.

    >>> float(interquartile_mean([1.0, 2.0, 3.0, 100.0]))
    2.5
    """
    x = np.sort(np.asarray(values, dtype=float), axis=-1)
    cut = int(0.25 * x.shape[-1])
    middle: Floats = x[..., cut : x.shape[-1] - cut].mean(axis=-1)
    return middle


def probability_of_improvement(first: Sequence[ArrayLike], second: Sequence[ArrayLike]) -> float:
    """P(first > second), ties half, over all pairs of runs of a task, averaged over tasks (one array each).

    >>> probability_of_improvement([[1.0, 2.0], [3.0]], [[1.0, 0.0], [4.0]])
    0.4375
    """
    shares = []
    for x, y in zip(first, second, strict=True):
        gap = np.subtract.outer(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
        shares.append(float((np.sign(gap) + 1).mean() / 2))
    return sum(shares) / len(shares)


def performance_profile(values: ArrayLike, levels: ArrayLike) -> Floats:
    """Share of runs (last axis) that score more than each of ``levels``.

    >>> performance_profile([0.9, 0.95, 1.0], [0.9, 0.97]).round(2).tolist()
    [0.67, 0.33]
    """
    x = np.asarray(values, dtype=float)
    shares: Floats = (x[..., None, :] > np.asarray(levels, dtype=float)[:, None]).mean(axis=-1)
    return shares


Draw = tuple[np.ndarray, tuple[slice, ...]]
"""Columns of the runs that were drawn, and which of them are of one task."""


def draw_runs(runs: Sequence[range], *, resamples: int = BOOTSTRAP_RESAMPLES, seed: int = 0) -> list[Draw]:
    """Hierarchical resamples: as many tasks as there are, with replacement, then seeds within each."""
    random = np.random.default_rng(seed)
    starts, sizes = np.array([part.start for part in runs]), np.array([len(part) for part in runs])
    draws = []
    for chosen in random.integers(len(runs), size=(resamples, len(runs))):
        many = sizes[chosen]
        columns = np.repeat(starts[chosen], many) + random.integers(np.repeat(many, many))
        ends = np.cumsum(many).tolist()
        draws.append((columns, tuple(map(slice, [0, *ends[:-1]], ends))))
    return draws


def aggregate_scores(scores: Scores, *, resamples: int = BOOTSTRAP_RESAMPLES) -> tuple[Aggregate, ...]:
    """Every method's aggregates, best interquartile mean first."""
    whole: Draw = (
        np.arange(scores.values.shape[1]),
        tuple(slice(part.start, part.stop) for part in scores.runs),
    )
    alike: dict[tuple[tuple[int, int], ...], list[Draw]] = defaultdict(list)
    for draw in draw_runs(scores.runs, resamples=resamples):
        alike[tuple((place.start, place.stop) for place in draw[1])].append(draw)
    stacks = [
        (scores.values[:, np.array([columns for columns, _ in draws])].swapaxes(0, 1), draws[0][1])
        for draws in alike.values()
    ]
    order = np.argsort(-interquartile_mean(scores.values), kind="stable")
    best = int(order[0])

    def estimates(of: Callable[[Floats, tuple[slice, ...]], Floats]) -> list[Estimate]:
        value = of(scores.values[None, :, whole[0]], whole[1])[0]
        found = np.concatenate([of(stack, places) for stack, places in stacks])
        low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
        return [Estimate(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True)]

    def improvement(x: Floats, places: tuple[slice, ...]) -> Floats:
        gaps = [np.sign(x[:, best, None, p, None] - x[:, :, None, p]) for p in places]
        shares: Floats = np.mean([(gap.mean(axis=(-2, -1)) + 1) / 2 for gap in gaps], axis=0)
        return shares

    middle = estimates(lambda x, _: interquartile_mean(x))
    median = estimates(lambda x, places: np.median([x[..., p].mean(axis=-1) for p in places], axis=0))
    mean = estimates(lambda x, places: np.mean([x[..., p].mean(axis=-1) for p in places], axis=0))
    beaten = estimates(improvement)
    return tuple(
        Aggregate(scores.methods[i], middle[i], median[i], mean[i], beaten[i] if i != best else None)
        for i in order
    )
