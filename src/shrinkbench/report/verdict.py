"""The answer first: who wins where, by how much, and how sure that is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.compare import at_equal, at_equal_training, ranking, records, winners
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.report.statistics.ranks import Ranking

BASES = {
    "compression": "at equal size",
    "theoretical_speedup": "at equal theoretical speedup",
    "measured_speedup": "at equal measured speedup",
}


@dataclass(frozen=True)
class Win:
    """The best method at one level of one task; ``decided`` if it is told apart from the runner-up."""

    level: float
    best: str
    value: float
    runner_up: str
    difference: float
    low: float
    high: float
    p: float
    n: int
    decided: bool


@dataclass(frozen=True)
class Basis:
    """Winners of one task, everything compared at equal levels of one quantity."""

    axis: str
    label: str
    wins: tuple[Win, ...]
    sentence: str


@dataclass(frozen=True)
class TaskVerdict:
    """What can be said about one task."""

    task: str
    bases: tuple[Basis, ...]


@dataclass(frozen=True)
class Verdict:
    """The whole answer: a headline, what limits it, and the tasks one by one."""

    headline: str
    ranking: Ranking
    ranked: tuple[str, ...]
    warnings: tuple[str, ...]
    tasks: tuple[TaskVerdict, ...]
    training: str


def reach_verdict(observations: Observations) -> Verdict:
    """Compare all methods by top-1 at equal size, at equal speedups and at equal training."""
    tables = {axis: winners(at_equal(observations, axis)) for axis in BASES}
    ranked, order = ranking(observations)
    tasks = tuple(
        TaskVerdict(
            task,
            tuple(
                _basis(axis, table[table["task"] == task])
                for axis, table in tables.items()
                if len(table) and (table["task"] == task).any()
            ),
        )
        for task in observations.tasks
    )
    return Verdict(
        headline=_headline(observations, ranked, order),
        ranking=order,
        ranked=ranked,
        warnings=tuple(_warnings(observations, order)),
        tasks=tasks,
        training=_training(observations),
    )


def _basis(axis: str, table: pd.DataFrame) -> Basis:
    wins = tuple(
        Win(r.level, r.best, r.value, r.runner_up, r.difference, r.low, r.high, r.p, r.n, bool(r.decided))
        for r in records(table)
    )
    return Basis(axis, BASES[axis], wins, _tally(wins))


def _tally(wins: Sequence[Win]) -> str:
    """How often each method is ahead, and how often that is decided."""
    ahead = Counter(win.best for win in wins)
    sure = Counter(win.best for win in wins if win.decided)
    parts = [
        f"{method} is ahead at {count} of {len(wins)} levels (told apart from the runner-up at {sure[method]})"
        for method, count in ahead.most_common()
    ]
    return "; ".join(parts) + "." if parts else ""


def _headline(observations: Observations, ranked: Sequence[str], order: Ranking) -> str:
    if len(observations.methods) < 2:
        return "Fewer than two methods were run: there is nothing to compare."
    if not order.blocks or len(ranked) < 2:
        return "No two methods share a range of compressions and a seed: there is nothing to rank."
    places = sorted(range(len(ranked)), key=lambda i: order.mean_ranks[i])
    best, second = places[0], places[1]
    tied = [
        ranked[i]
        for i in places[1:]
        if order.mean_ranks[i] - order.mean_ranks[best] < order.critical_difference
    ]
    where = f"{len(observations.tasks)} task{'s' if len(observations.tasks) > 1 else ''}"
    start = (
        f"{ranked[best]} ranks first by area under its curve (mean rank {order.mean_ranks[best]:.2f} of "
        f"{len(ranked)}, over {order.blocks} pairs of task and seed from {where})"
    )
    if order.mean_ranks[second] == order.mean_ranks[best]:
        start = start.replace("ranks first", "shares the first rank")
    if not tied:
        return f"{start}, and is told apart from every other method."
    return f"{start}; it is not told apart from {_and(tied)}."


def _and(names: Sequence[str]) -> str:
    """Names as a phrase.

    >>> _and(["a", "b", "c"])
    'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _warnings(observations: Observations, order: Ranking) -> list[str]:
    """What limits the claim: few seeds, few tasks."""
    found = []
    seeds = observations.pruned.groupby("task")["seed"].nunique()
    if len(seeds) and stats.too_few(int(seeds.min())):
        n = int(seeds.min())
        found.append(f"Within a task, {stats.too_few(n)}.")
        effect = stats.detectable_effect(n)
        if math.isfinite(effect):
            found.append(
                f"With {n} seeds, a paired t-test finds a difference with 80 % probability only where it is at "
                f"least {effect:.1f} times the standard deviation of the differences."
            )
    places = observations.pruned[["dataset", "model"]].drop_duplicates()
    if len(places) < 3:
        found.append(
            f"{len(places)} pair{'s' if len(places) != 1 else ''} of dataset and network: the order of methods "
            "may differ on others."
        )
    if order.blocks and math.isfinite(order.p_friedman) and order.p_friedman >= stats.ALPHA:
        found.append(
            f"Friedman's test does not reject that all methods rank alike (p = {order.p_friedman:.2f})."
        )
    return found


def _training(observations: Observations) -> str:
    """Whether methods can be compared at equal training, and what that gives."""
    allowed = observations.pruned["epochs_allowed"].dropna()
    if len(allowed) and allowed.max() <= allowed.min() * 1.05:
        return "All pruned networks were allowed equally many epochs: every comparison is at equal training."
    table = at_equal_training(observations)
    if table["method"].nunique() < 2:
        return (
            "No two methods were allowed epochs within 5 % of each other: none are compared at equal training."
        )
    means = table.groupby(["task", "compression_target", "level", "method"])["value"].mean().reset_index()
    best = means.loc[means.groupby(["task", "compression_target", "level"])["value"].idxmax(), "method"]
    tally = ", ".join(f"{method} {count}" for method, count in Counter(best).most_common())
    return (
        f"At equal training (interpolated between the epochs that each method was allowed), the best "
        f"method in {len(best)} comparisons: {tally}."
    )
