"""What a pitfall is, which difference matters, and the words for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SMALLEST = 0.005
"""Differences below half a point, or half a percent of the control's value, do not matter, however sure."""


@dataclass(frozen=True)
class Panel:
    """One drawing that shows a pitfall: some methods' curves of one task."""

    task: str
    axis: str
    metric: str
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Pitfall:
    """One finding: what, where, by how much, what to do, which runs, and what to draw."""

    kind: str
    title: str
    where: str
    finding: str
    advice: str
    runs: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = field(default=())


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)


def points(difference: float) -> str:
    """Size of a difference in percentage points."""
    return f"{100 * abs(difference):.1f} points"


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.1f} %"


def and_more(count: int, noun: str) -> str:
    """How many further cases a sentence about one of ``count`` stands for."""
    return f" (and {count - 1} more {noun}{'s' if count > 2 else ''})" if count > 1 else ""
