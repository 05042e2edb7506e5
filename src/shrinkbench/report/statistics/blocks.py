"""What may be compared: the same seeds over the same range, and by name what was left out of it.

One rule, wherever methods are compared on a task. Seeds are those that more than half of the methods have (or,
without any, the largest group of them). The range goes from where the curves of more than half begin to where
those of more than half end; what begins or ends up to :data:`TOLERANCE` inside shortens it, what ends earlier
is left out. A method without one of the seeds, with points much further apart than those of others, or with a
failed or missing run inside the range, is left out as well: a gap is never bridged, so that failing cannot pay.
A seed of which all runs failed counts as one that the method has.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shrinkbench.report.statistics.curves import SAME, TOLERANCE, Curve, Hole
from shrinkbench.report.statistics.tests import Floats

NO_RANGE = "shares no range with more than half of the methods"


@dataclass(frozen=True)
class LeftOut:
    """A method that takes no part in a comparison, and why."""

    method: str
    why: str


@dataclass(frozen=True, eq=False)
class Block:
    """Methods on common seeds over ``low`` to ``high``, one and the same number for a single level.

    ``values`` (methods x units) are means over log x from ``low`` to ``high``. A unit is a seed; of a
    comparison over tasks, a task. ``units_left_out`` are those that not all compared methods were run on.
    """

    low: float
    high: float
    methods: tuple[str, ...]
    units: tuple[str, ...]
    values: Floats
    left_out: tuple[LeftOut, ...] = ()
    units_left_out: tuple[str, ...] = ()

    @property
    def means(self) -> Floats:
        """Mean of every method over the units."""
        means: Floats = self.values.mean(axis=1) if self.methods else np.empty(0)
        return means

    def of(self, methods: Container[str]) -> Block:
        """The same of these methods alone."""
        rows = [row for row, method in enumerate(self.methods) if method in methods]
        return replace(self, methods=tuple(self.methods[row] for row in rows), values=self.values[rows])


def common_block(curves: Sequence[Curve], *, level: float | None = None) -> Block:
    """Methods of ``curves`` (of one task) that can be compared at ``level``, or over their common range."""
    by_method: dict[str, dict[int, Curve]] = {}
    for curve in curves:
        by_method.setdefault(curve.method, {})[curve.seed] = curve
    seeds, others = _common(curves)
    left_out: list[LeftOut] = []
    chosen: dict[str, list[Curve]] = {}
    for method, found in by_method.items():
        absent = [seed for seed in seeds if seed not in found]
        empty = [c for c in found.values() if not len(c.x) and (c.seed in seeds or _is_empty(found.values()))]
        if empty:
            left_out.append(LeftOut(method, _describe([(hole, c.seed) for c in empty for hole in c.holes])))
        elif not seeds:
            left_out.append(LeftOut(method, "shares no seed with another method"))
        elif absent:
            left_out.append(LeftOut(method, f"no finished run of seed {', '.join(map(str, absent))}"))
        else:
            chosen[method] = [found[seed] for seed in seeds]
    low, high = (level, level) if level is not None else _common_range(list(chosen.values()))
    nothing = level is None and high * (1 - TOLERANCE) <= low * (1 + TOLERANCE)
    latest = max((c.x[0] for members in chosen.values() for c in members if c.x[0] <= low), default=low)
    leaps = sorted(max(c.leap for c in members) for members in chosen.values())
    usual = leaps[(len(leaps) - 1) // 2] if leaps else 1.0
    compared: dict[str, list[Curve]] = {}
    for method, members in chosen.items():
        why = (
            NO_RANGE
            if nothing
            else _obstacle(members, low, high, latest) or _leap(method, chosen, low, high, usual)
        )
        if why:
            left_out.append(LeftOut(method, why))
        else:
            compared[method] = members
    low, high = _shortened([c for members in compared.values() for c in members], low, high)
    values = [[c.at(high) if level is not None else c.mean(low, high) for c in m] for m in compared.values()]
    return Block(
        low,
        high,
        tuple(compared),
        tuple(map(str, seeds)),
        np.array(values, dtype=float).reshape(len(compared), len(seeds)),
        tuple(left_out),
        tuple(map(str, others)),
    )


def _is_empty(curves: Iterable[Curve]) -> bool:
    """Whether no run of any curve is finished."""
    return not any(len(curve.x) for curve in curves)


def _common(curves: Sequence[Curve]) -> tuple[list[int], list[int]]:
    """Seeds that some method has finished and more than half of the methods have, and the others.

    A method counts that has finished a run. Where no seed is that common, seeds are those of one group of
    methods, the largest (then with most seeds, then with the lowest): studies on other seeds do not take each
    other's answers away.
    """
    finished = {curve.method for curve in curves if len(curve.x)}
    counts = Counter(curve.seed for curve in curves if curve.method in finished)
    some = {curve.seed for curve in curves if len(curve.x)}
    kept = sorted(seed for seed, count in counts.items() if 2 * count > len(finished) and seed in some)
    if not kept:
        groups: dict[frozenset[str], list[int]] = defaultdict(list)
        for seed in sorted(some):
            groups[frozenset(c.method for c in curves if c.seed == seed and c.method in finished)].append(seed)
        shared = [group for group in groups if len(group) > 1]
        kept = groups[min(shared, key=lambda g: (-len(g), -len(groups[g]), groups[g]))] if shared else []
    return kept, sorted(counts.keys() - set(kept))


def _common_range(members: Sequence[Sequence[Curve]]) -> tuple[float, float]:
    """Where the curves of more than half of the methods begin and end; a method's seeds all have to be there.

    A curve that fails at its end goes as far as it was to go: it is left out for it, not the range shortened.
    """
    if not members:
        return 1.0, 1.0
    starts = sorted(max(c.x[0] for c in curves) for curves in members)
    ends = sorted((min(c.planned_end for c in curves) for curves in members), reverse=True)
    return float(starts[len(members) // 2]), float(ends[len(members) // 2])


def _obstacle(members: Sequence[Curve], low: float, high: float, latest: float) -> str:
    """Why a method takes no part; empty where it does.

    A curve counts that ends a little short of a level, unless another begins later than that (``latest``).
    """
    holes = [(hole, curve.seed) for curve in members for hole in curve.holes_in(low, high)]
    if holes:
        return _describe(holes)
    start, end = max(c.x[0] for c in members), min(c.x[-1] for c in members)
    if start > low * (1 + (SAME if low == high else TOLERANCE)):
        return f"begins at {start:.3g}×"
    if end < high * (1 - TOLERANCE) or (low == high and end < latest * (1 - SAME)):
        return f"ends at {end:.3g}×"
    return ""


def _leap(method: str, chosen: Mapping[str, Sequence[Curve]], low: float, high: float, usual: float) -> str:
    """Why a method takes no part that leaves out amounts: its line between them would be made up.

    Points may be further apart than the ``usual`` widest step, that of half of the methods, only where most
    others have no run that the method lacks, and never twice as far, in log x.
    """
    others = [members for name, members in chosen.items() if name != method]
    for curve in chosen[method]:
        for start, end in curve.steps(low, high):
            if end / start <= usual * (1 + TOLERANCE):
                continue
            more = sum(all(c.is_run_between(start, end) for c in members) for members in others)
            if 2 * more > len(others) or end / start > usual**2 * (1 + TOLERANCE):
                return f"no run between {start:.3g}× and {end:.3g}×"
    return ""


def _describe(holes: Sequence[tuple[Hole, int]]) -> str:
    """Absent runs in words.

    >>> _describe([(Hole(4, 16, 8, "failed", "8x"), 1), (Hole(8, 32, 16, "failed", "16x"), 1)])
    '2 failed runs (8x, 16x; seed 1)'
    """
    found = []
    for kind in dict.fromkeys(hole.kind for hole, _ in holes):
        here = [(hole, seed) for hole, seed in holes if hole.kind == kind]
        amounts = ", ".join(dict.fromkeys(hole.amount for hole, _ in here))
        seeds = ", ".join(str(s) for s in sorted({seed for _, seed in here}))
        found.append(f"{len(here)} {kind} run{'s' if len(here) > 1 else ''} ({amounts}; seed {seeds})")
    return " and ".join(found)


def _shortened(curves: Sequence[Curve], low: float, high: float) -> tuple[float, float]:
    """The part of the range, or the nearest point to the level, that all ``curves`` were measured around."""
    if not curves:
        return low, high
    start, end = float(max(c.x[0] for c in curves)), float(min(c.x[-1] for c in curves))
    if low == high:
        level = max(start, min(low, end))
        return level, level
    return max(low, start), min(high, end)
