"""When pruning happens: the compressions that a network passes through on its way to the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shrinkbench.registry import Registry

Steps = Callable[[float], tuple[float, ...]]


@dataclass(frozen=True)
class Schedule:
    """A named rule ``target compression -> compressions``, rising, the target last."""

    name: str
    description: str
    steps: Steps

    def __call__(self, target: float) -> tuple[float, ...]:
        """The compressions on the way to ``target``."""
        return self.steps(target)


SCHEDULES: Registry[Schedule] = Registry("schedule")


def schedule(name: str) -> Callable[[Steps], Schedule]:
    """Register a function as the schedule ``name``."""

    def register(steps: Steps) -> Schedule:
        description = (steps.__doc__ or "").strip().splitlines()[0]
        return SCHEDULES.add(name, Schedule(name, description, steps))

    return register


@schedule("one-shot")
def one_shot(target: float) -> tuple[float, ...]:
    """Prune once, to the target, before fine-tuning.

    >>> one_shot(4)
    (4,)
    """
    return (target,)
