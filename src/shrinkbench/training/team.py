"""Several processes that train one network: what the loop asks of them, and what is done where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Recipe

Told = TypeVar("Told")


class Team(Protocol):
    """Processes that do the same at the same time, each with its share of every batch; process 0 is the head.

    Every method but the properties is called by all of them, in the same order.
    """

    @property
    def rank(self) -> int:
        """Which process this is, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def tell(self, value: Told) -> Told:
        """The head's value, in every process."""
        ...

    def gather(self, value: Told) -> list[Told]:
        """The values of all processes, in their order."""
        ...

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put the sums over all processes into the tensors, in place."""
        ...

    def end(self, kind: str) -> bool:
        """Whether all processes have ended what they did, and in the same way, ``kind``."""
        ...


@dataclass(frozen=True)
class Alone:
    """The team of one process: nothing is shared, and nothing is waited for."""

    rank: int = 0
    size: int = 1

    def tell(self, value: Told) -> Told:
        """The value."""
        return value

    def gather(self, value: Told) -> list[Told]:
        """The value alone."""
        return [value]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """They are sums already."""

    def end(self, kind: str) -> bool:
        """There is nobody to differ from."""
        return True


ALONE = Alone()


def is_head(team: Team) -> bool:
    """Whether this process writes what all of them have computed."""
    return team.rank == 0


def check_share(recipe: Recipe, size: int) -> None:
    """Refuse a batch that cannot be dealt out to ``size`` processes in equal parts."""
    if recipe.batch_size % size:
        raise ShrinkbenchError(
            f"recipe '{recipe.name}' has batches of {recipe.batch_size}, which {size} processes cannot share "
            "equally; choose a number of devices that divides it"
        )
