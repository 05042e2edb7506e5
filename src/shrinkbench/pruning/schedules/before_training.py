"""Schedules that prune before training, or between trainings: once, or by shares of what is prunable."""

from __future__ import annotations

import math
import re

from shrinkbench.pruning.schedules.schedule import SCHEDULES, Schedule, Steps, once


@SCHEDULES.add_resolver
def _from_name(name: str) -> Schedule | None:
    """``iterative-P`` for any percentage P, ``halve-in-K`` for any number K of rounds."""
    if match := re.fullmatch(r"iterative-([1-9]\d?)", name):
        return iterative(int(match[1]))
    match = re.fullmatch(r"halve-in-([1-9]\d?)", name)
    return halving(int(match[1])) if match else None


def iterative(percent: int) -> Schedule:
    """Remove ``percent`` % of the prunable weights left per round; the last round removes the rest.

    >>> [round(c, 4) for c in iterative(20)(2)]
    [1.25, 1.5625, 1.9531, 2]
    """

    def steps(target: float) -> tuple[float, ...]:
        kept = 1 - percent / 100
        rounds = max(math.ceil(math.log(target) / -math.log(kept) - 1e-9), 1)
        return (*(kept**-r for r in range(1, rounds)), target)

    return Schedule(
        f"iterative-{percent}",
        f"remove {percent} % of the prunable weights that are left per round, train after each",
        steps,
        rounds=None,
        parameters={"percent": percent},
        version=2,
    )


def halving(rounds: int) -> Schedule:
    """Halve the network in every ``rounds`` rounds, by equal factors; the last round removes the rest.

    What a run at 8x goes through are the ends of runs at 2x and 4x.

    >>> [round(c, 4) for c in halving(3)(4)]
    [1.2599, 1.5874, 2.0, 2.5198, 3.1748, 4]
    """

    def steps(target: float) -> tuple[float, ...]:
        taken = max(math.ceil(rounds * math.log2(target) - 1e-9), 1)
        return (*(2.0 ** (r / rounds) for r in range(1, taken)), target)

    return Schedule(
        f"halve-in-{rounds}",
        f"halve the network in every {rounds} rounds, by equal factors, train after each",
        steps,
        rounds=None,
        counts="all",
        parameters={"rounds": rounds},
    )


def exponential(rounds: int) -> Steps:
    """The density of prunable weights falls by one factor in all of ``rounds`` rounds (Tanaka et al. 2020).

    >>> [round(c, 4) for c in exponential(3)(8)]
    [2.0, 4.0, 8]
    """

    def steps(target: float) -> tuple[float, ...]:
        return (*(target ** (r / rounds) for r in range(1, rounds)), target)

    return steps


one_shot = SCHEDULES.add(
    "one-shot", Schedule("one-shot", "prune once, to the target, before fine-tuning", once)
)
iterative_20 = SCHEDULES.add("iterative-20", iterative(20))
iterative_50 = SCHEDULES.add("iterative-50", iterative(50))
halve_in_3 = SCHEDULES.add("halve-in-3", halving(3))
at_initialisation = SCHEDULES.add(
    "at-initialisation",
    Schedule("at-initialisation", "prune once before any training, then train", once, start="initialisation"),
)
at_initialisation_100 = SCHEDULES.add(
    "at-initialisation-100",
    Schedule(
        "at-initialisation-100",
        "prune in 100 rounds before any training, scoring anew in each, then train",
        exponential(100),
        start="initialisation",
        train_between=False,
        rounds=100,
        version=2,
    ),
)
