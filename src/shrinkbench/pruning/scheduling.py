"""When pruning happens: at which compressions, from which weights, and before or during training."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shrinkbench.registry import Registry

if TYPE_CHECKING:
    from shrinkbench.pruning.during import PruningHook, Setting

Steps = Callable[[float], tuple[float, ...]]
MakeHook = Callable[["Setting"], "PruningHook"]


@dataclass(frozen=True)
class Schedule:
    """A named rule ``target compression -> compressions``, rising, the target last.

    ``start`` tells from which weights pruning starts: ``trained`` ones, or those at ``initialisation``, which
    are then trained with the pretraining recipe in place of the fine-tuning one. Between the compressions
    the network is trained if ``train_between``. ``during`` makes the hook of a schedule that prunes while it
    trains: the network is then trained once, with that hook, and fine-tuned afterwards if ``train_after``.
    With ``decided_last``, the hook asks for masks once, when its training is over.
    """

    name: str
    description: str
    steps: Steps
    start: Literal["trained", "initialisation"] = "trained"
    train_between: bool = True
    during: MakeHook | None = None
    train_after: bool = False
    decided_last: bool = False

    def __call__(self, target: float) -> tuple[float, ...]:
        """The compressions on the way to ``target``."""
        return self.steps(target)


def _from_name(name: str) -> Schedule | None:
    """``iterative-P`` for any percentage P."""
    match = re.fullmatch(r"iterative-([1-9]\d?)", name)
    return iterative(int(match[1])) if match else None


SCHEDULES: Registry[Schedule] = Registry("schedule", resolve=_from_name)


def once(target: float) -> tuple[float, ...]:
    """The target alone.

    >>> once(4)
    (4,)
    """
    return (target,)


def iterative(percent: int) -> Schedule:
    """Remove ``percent`` % of what is left per round, until the target; the last round removes the rest.

    >>> [round(c, 4) for c in iterative(20)(2)]
    [1.25, 1.5625, 1.9531, 2]
    """

    def steps(target: float) -> tuple[float, ...]:
        kept = 1 - percent / 100
        rounds = max(math.ceil(math.log(target) / -math.log(kept) - 1e-9), 1)
        return (*(kept**-r for r in range(1, rounds)), target)

    return Schedule(
        f"iterative-{percent}",
        f"remove {percent} % of the weights that are left per round, train after each",
        steps,
    )


def exponential(rounds: int) -> Steps:
    """Density falls by the same factor in each of ``rounds`` rounds (Tanaka et al. 2020).

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
    ),
)
