"""Which code from outside this package decides what a method does, axis by axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.allocations.rules import ALLOCATIONS
from shrinkbench.pruning.finetunings import FINETUNINGS
from shrinkbench.pruning.schedules.schedule import SCHEDULES
from shrinkbench.pruning.units import STRUCTURES
from shrinkbench.registry import Registry
from shrinkbench.sources import Origin, digest_of, origins_in, same_value

Origins = frozenset[Origin]

_REGISTRIES: dict[str, Registry[Any]] = {
    "structure": STRUCTURES,
    "allocation": ALLOCATIONS,
    "schedule": SCHEDULES,
    "finetuning": FINETUNINGS,
}


class Method(Protocol):
    """The axes of a pruning method, and the outside code that put them together."""

    @property
    def score(self) -> Any:
        """The score's function."""

    @property
    def update(self) -> Any:
        """The function that chooses new values for weights that stay, or ``None``."""

    @property
    def like(self) -> Method | None:
        """The method whose proportions a control takes over."""

    @property
    def origin(self) -> Origin | None:
        """The outside code that made the method."""


def outside_sources(method: Method) -> Mapping[str, str | None]:
    """SHA-256 over the outside code behind each axis; ``None`` for axes that are built in.

    Axes are ``score``, ``structure``, ``allocation``, ``schedule``, ``finetuning`` and ``update``. A control's
    proportions are its allocation, and so is all code of the method that they are taken from.
    Raises ``ShrinkbenchError`` where a file has changed since it was loaded.
    """
    return {axis: digest_of(origins) for axis, origins in origins_by_axis(method).items()}


def origins_by_axis(method: Method) -> dict[str, Origins]:
    """The outside code behind each axis.

    Whoever makes a method also says what its score is given (``needs``, ``batch_count``): part of the score.
    """
    found = {axis: _of_axis(axis, getattr(method, axis), method.origin) for axis in _REGISTRIES}
    found["score"] = origins_in(method.score) | _some(method.origin)
    found["update"] = origins_in(method.update)
    if method.like is not None:
        found["allocation"] = found["allocation"].union(*origins_by_axis(method.like).values())
    return found


def _of_axis(axis: str, value: Any, maker: Origin | None) -> Origins:
    """Of what an axis calls, and of whoever registered it or, where nobody has, of who made the method."""
    registry = _REGISTRIES[axis]
    try:
        registered, namesake = registry.origin(value.name), registry.get(value.name)
    except ShrinkbenchError:  # no such name
        return origins_in(value) | _some(maker)
    return origins_in(value) | _some(registered) | _some(None if same_value(namesake, value) else maker)


def _some(origin: Origin | None) -> Origins:
    return frozenset() if origin is None else frozenset({origin})
