"""What a pitfall is, when a difference counts, and the words for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from shrinkbench.report.statistics import tests as stats

SMALLEST = 0.005
SMALLEST_OF_ONE_SEED = 0.01


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


def clear_sign(differences: Iterable[float]) -> int:
    """Sign of the mean difference where it stands out of the noise, else 0.

    >>> clear_sign([0.02, 0.021, 0.019]), clear_sign([0.02, -0.02, 0.03]), clear_sign([-0.02])
    (1, 0, -1)
    """
    s = stats.summarise(list(differences))
    if s.n == 0 or abs(s.mean) < (SMALLEST if s.n > 1 else SMALLEST_OF_ONE_SEED):
        return 0
    if s.n > 1 and s.low <= 0 <= s.high:
        return 0
    return 1 if s.mean > 0 else -1


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
