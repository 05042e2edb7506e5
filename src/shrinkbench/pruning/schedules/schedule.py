"""When pruning happens: at which compressions, from which weights, and before or during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from shrinkbench.pruning.schedules.hook import PruningHook, Setting
from shrinkbench.registry import Registry

Steps = Callable[[float], tuple[float, ...]]


OF_TRAINING = ("data", "labels", "gradients")
"""What a training looks at."""

MakeHook = Callable[[Setting], PruningHook]


@dataclass(frozen=True)
class Schedule:
    """A named rule ``target -> ratios``, rising, the target last: all / those kept, of prunable weights.

    Of all parameters where it ``counts`` those.
    ``start`` tells from which weights pruning starts: ``trained`` ones, or those at ``initialisation``, which
    are then trained with the pretraining recipe in place of the fine-tuning one. Between the rounds
    the network is trained if ``train_between``. ``during`` makes the hook of a schedule that prunes while it
    trains: the network is then trained once, with that hook, and fine-tuned afterwards if ``train_after``.
    With ``decided_last``, the hook asks for masks once, when its training is over. ``rounds`` is how many
    steps there are (``None``: as many as the target takes). ``parameters`` are the numbers by which it works,
    beside the ``CONSTANTS`` of its hook; they are part of a run's key, and ``version`` is raised when anything
    else changes.
    """

    name: str
    description: str
    steps: Steps
    start: Literal["trained", "initialisation"] = "trained"
    train_between: bool = True
    during: MakeHook | None = None
    train_after: bool = False
    decided_last: bool = False
    rounds: int | None = 1
    counts: Literal["prunable", "all"] = "prunable"
    parameters: Mapping[str, float] = field(default_factory=dict)
    version: int = 1

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers by which it works now: its ``parameters``, and the ``CONSTANTS`` of its hook."""
        return {**getattr(self.hook, "CONSTANTS", {}), **self.parameters}

    @property
    def trains_on_the_way(self) -> bool:
        """Whether the network is trained between two decisions, or before the only one."""
        return self.during is not None or (self.rounds != 1 and self.train_between)

    @property
    def needs(self) -> tuple[str, ...]:
        """What it takes to come to the last masks: those of a training, if it trains on the way."""
        return OF_TRAINING if self.trains_on_the_way else ()

    @property
    def exchanges(self) -> bool:
        """Whether which single weights of a layer stay changes on the way, beside how many."""
        return bool(getattr(self.hook, "EXCHANGES", False))

    @property
    def hook(self) -> MakeHook | None:
        """The class of the hook that prunes while the network trains, if one does."""
        return self.during.func if isinstance(self.during, partial) else self.during

    def __call__(self, target: float) -> tuple[float, ...]:
        """The ratios of what it ``counts`` to what is kept of that, on the way to ``target``."""
        return self.steps(target)


SCHEDULES: Registry[Schedule] = Registry("schedule", of=Schedule)


def once(target: float) -> tuple[float, ...]:
    """The target alone.

    >>> once(4)
    (4,)
    """
    return (target,)


def register_during(
    name: str,
    description: str,
    make: type[PruningHook],
    *,
    from_scratch: bool = False,
    rounds: int | None = 1,
    version: int = 1,
) -> Schedule:
    """Register the schedule ``name`` that prunes while it trains, by the hook ``make``."""
    start: Literal["trained", "initialisation"] = "initialisation" if from_scratch else "trained"
    made = Schedule(name, description, once, start=start, during=make, rounds=rounds, version=version)
    return SCHEDULES.add(name, made)


def register_penalised(
    name: str, description: str, make: type[PruningHook], *, from_scratch: bool = False
) -> Schedule:
    """Register a schedule that decides after a training of its own, by the hook ``make``, and fine-tunes."""
    start: Literal["trained", "initialisation"] = "initialisation" if from_scratch else "trained"
    made = Schedule(name, description, once, start=start, during=make, train_after=True, decided_last=True)
    return SCHEDULES.add(name, made)
