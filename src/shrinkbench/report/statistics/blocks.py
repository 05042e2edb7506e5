"""What may be compared: the same seeds over the same range, and by name what was left out of it.

One rule, wherever methods are compared on a task. Seeds are those that more than half of the methods have, as
long as more than half have all of them; else those of the largest group (:func:`shared_units`). The range goes
from where the curves of more than half begin to where those of more than half end or, where that leaves fewer
than two, to where those of the largest group do; what begins or ends up to :data:`TOLERANCE` inside shortens
it, what ends earlier is left out. A method without one of the seeds, with points much further apart than
others, or with a failed or missing run inside the range, is left out as well: a gap is never bridged, so that
failing cannot pay. A seed of which all runs failed counts as one that the method has.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from shrinkbench.report.statistics.curves import SAME, TOLERANCE, Curve, Hole
from shrinkbench.report.statistics.readings import Slack, lie_alike, slack_of
from shrinkbench.report.statistics.tests import Floats

NO_RANGE = "shares no range with the other methods"
ONE_POINT = "shares a single compression with the other methods, which is no range"

Unit = TypeVar("Unit", int, str)


@dataclass(frozen=True)
class LeftOut:
    """A method that takes no part, and why; ``lacks_runs`` where runs failed or are not there."""

    method: str
    why: str
    lacks_runs: bool = False


@dataclass(frozen=True, eq=False)
class Block:
    """Methods on common seeds over ``low`` to ``high``, one and the same number for a single level.

    ``values`` (methods x units) are means over log x from ``low`` to ``high``. A unit is a seed; of a
    comparison over tasks, a task. ``units_left_out`` are those that not all compared methods were run on,
    ``uncounted`` the compressions at which a method has runs, and another one that is compared has not;
    ``slack`` is what the places of the runs of a pair may make.
    """

    low: float
    high: float
    methods: tuple[str, ...]
    units: tuple[str, ...]
    values: Floats
    left_out: tuple[LeftOut, ...] = ()
    units_left_out: tuple[str, ...] = ()
    uncounted: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    slack: Slack = field(default_factory=dict)

    @property
    def means(self) -> Floats:
        """Mean of every method over the units."""
        means: Floats = self.values.mean(axis=1) if self.methods else np.empty(0)
        return means

    def of(self, methods: Container[str]) -> Block:
        """The same of these methods alone."""
        rows = [row for row, method in enumerate(self.methods) if method in methods]
        return replace(self, methods=tuple(self.methods[row] for row in rows), values=self.values[rows])


def common_block(curves: Sequence[Curve], *, level: float | None = None, beside: Sequence[Curve] = ()) -> Block:
    """Methods of ``curves`` (of one task) that can be compared at ``level``, or over their common range.

    Which amounts a method lacks is judged by all curves of the task, where more are given ``beside``.
    """
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
            left_out.append(_lacking(method, [(hole, c.seed) for c in empty for hole in c.holes]))
        elif not seeds:
            left_out.append(LeftOut(method, "shares no seed with another method"))
        elif absent:
            left_out.append(LeftOut(method, f"no finished run of seed {', '.join(map(str, absent))}"))
        else:
            chosen[method] = [found[seed] for seed in seeds]
    grid: dict[str, list[Curve]] = {}
    for curve in beside:
        if len(curve.x) and curve.method not in chosen:
            grid.setdefault(curve.method, []).append(curve)
    grid |= chosen
    if level is None:
        (low, high), reasons = _widest(chosen, grid)
    else:
        low, high, reasons = level, level, _obstacles(chosen, level, level, grid)
    left_out += reasons.values()
    compared = {method: members for method, members in chosen.items() if method not in reasons}
    low, high = _shortened([c for members in compared.values() for c in members], low, high)
    equal = lie_alike([c for members in compared.values() for c in members])
    uncounted = _uncounted(compared, low, high) if level is None and not equal else {}
    if uncounted:
        compared = {m: [c.without(uncounted.get(m, ())) for c in members] for m, members in compared.items()}
    values = [[c.at(high) if level is not None else c.mean(low, high) for c in m] for m in compared.values()]
    return Block(
        low,
        high,
        tuple(compared),
        tuple(map(str, seeds)),
        np.array(values, dtype=float).reshape(len(compared), len(seeds)),
        tuple(left_out),
        tuple(map(str, others)),
        uncounted,
        # speeds are not tested
        {} if equal or any(c.amounts is not None for c in curves) else slack_of(compared, low, high),
    )


def _uncounted(
    compared: Mapping[str, Sequence[Curve]], low: float, high: float
) -> dict[str, tuple[float, ...]]:
    """Compressions of runs for which another compared method, with runs on both sides, has a line only.

    Where quality falls faster and faster, every further run lifts the line: who has most of them would win.
    """
    found: dict[str, set[float]] = {}
    for method, members in compared.items():
        steps = {
            s for name, others in compared.items() if name != method for c in others for s in c.steps(low, high)
        }
        for curve in members:
            x = curve.compressions
            least = min((far / own for own, far in zip(x, x[2:], strict=False)), default=math.inf)
            for start, end in (s for s in steps if s[1] / s[0] * (1 + TOLERANCE) ** 2 >= least):
                found.setdefault(method, set()).update(curve.runs_within(start, end))
    return {method: tuple(sorted(runs)) for method, runs in found.items() if runs}


Stretches = tuple[tuple[float, float], ...]


def known_stretches(curves: Iterable[Curve], seeds: Container[str]) -> dict[str, Stretches]:
    """Between which points each method was measured on all of its ``seeds``, without an absent run."""
    by_method: dict[str, list[Curve]] = {}
    for curve in curves:
        if str(curve.seed) in seeds:
            by_method.setdefault(curve.method, []).append(curve)
    return {method: _known(members) for method, members in by_method.items()}


def _known(members: Sequence[Curve]) -> Stretches:
    if _is_empty(members) or not all(len(curve.x) for curve in members):
        return ()
    found = [(max(float(c.x[0]) for c in members), min(float(c.x[-1]) for c in members))]
    for hole in (hole for curve in members for hole in curve.holes):
        cut = [(low, min(high, hole.low)) for low, high in found]
        cut += [(max(low, hole.high), high) for low, high in found]
        found = [(low, high) for low, high in cut if low <= high]
    return tuple(sorted(found))


def covers(stretches: Stretches, low: float, high: float) -> bool:
    """Whether one of the stretches holds all from ``low`` to ``high``; 10 % on either side count as that."""
    return any(a <= low * (1 + TOLERANCE) and b * (1 + TOLERANCE) >= high for a, b in stretches)


def _is_empty(curves: Iterable[Curve]) -> bool:
    """Whether no run of any curve is finished."""
    return not any(len(curve.x) for curve in curves)


def _common(curves: Sequence[Curve]) -> tuple[list[int], list[int]]:
    """Seeds that some method has finished and that are compared, and the others.

    A method counts that has finished a run. It has the seeds of which it has an outcome, were it a failed one.
    """
    finished = {curve.method for curve in curves if len(curve.x)}
    some = {curve.seed for curve in curves if len(curve.x)}
    has = {method: {c.seed for c in curves if c.method == method and c.seed in some} for method in finished}
    gaps = {
        curve.method for curve in curves if curve.holes
    }  # on whatever seed: none is left out for its failures
    whole = {method: seeds for method, seeds in has.items() if method not in gaps}
    kept = shared_units(has, whole)
    return kept, sorted({c.seed for c in curves if c.method in finished} - set(kept))


def shared_units(
    has: Mapping[str, Collection[Unit]], whole: Mapping[str, Collection[Unit]], *, fewest: int = 1
) -> list[Unit]:
    """The units (seeds of a task, or tasks) that methods are compared on; at least ``fewest``, or none.

    Those that more than half of the methods have, where more than half have all of them. Where not, those of
    one group, so that no method takes the answers of all others away by sharing a unit with each: units that
    two methods share, those two with which most results (methods that have all of the units x units) are
    compared; then the lowest. Methods count that are ``whole``, without a gap, and only where no two of
    those have all of the units, all methods that have them.

    >>> shared_units(h := {"a": [0, 1, 2], "b": [0, 1, 2], "c": [3, 4], "d": [3, 4], "e": [0, 3]}, h)
    [0, 1, 2]
    """

    def count(of: Mapping[str, Collection[Unit]], units: Collection[Unit]) -> int:
        found = sum(set(units) <= set(own) for own in of.values())
        return found if found > 1 else 0

    counts = Counter(unit for units in has.values() for unit in units)
    common = sorted(unit for unit, number in counts.items() if 2 * number > len(has))
    if len(has) < 2:
        return common if len(common) >= fewest else []
    pairs = {tuple(sorted(set(a) & set(b))) for a, b in itertools.combinations(has.values(), 2)}
    groups = sorted(units for units in pairs if len(units) >= fewest)
    best = max(groups, key=lambda u: (count(whole, u) * len(u), count(has, u) * len(u)), default=())
    majority = len(common) >= fewest and 2 * count(has, common) > len(has)
    if majority and (count(whole, common) or not count(whole, best)):
        return common
    return list(best)


def _widest(
    chosen: Mapping[str, Sequence[Curve]], grid: Mapping[str, Sequence[Curve]]
) -> tuple[tuple[float, float], dict[str, LeftOut]]:
    """The range that is compared, and the methods that take no part.

    That of more than half of the methods. Where it leaves fewer than two, that of the largest group of methods
    without a gap, from where one begins to where one ends, then the widest, then the lowest.
    """
    reach = _common_range(list(chosen.values()))
    reasons = _reasons(chosen, *reach, grid)
    whole = {method: members for method, members in chosen.items() if not any(c.holes for c in members)}
    if len(chosen) - len(reasons) > 1 or len(whole) < 2:
        return reach, reasons
    starts = {max(float(c.x[0]) for c in members) for members in whole.values()}
    ends = {min(float(c.x[-1]) for c in members) for members in whole.values()}
    found = []
    for low, high in itertools.product(sorted(starts), sorted(ends)):
        compared = len(whole) - len(_reasons(whole, low, high, grid))
        if compared > 1:
            found.append((compared, high / low, -low, (low, high)))
    if not found:
        return reach, reasons
    reach = max(found)[-1]
    gaps = {method: [(hole, c.seed) for c in members for hole in c.holes] for method, members in chosen.items()}
    return reach, _reasons(whole, *reach, grid) | {m: _lacking(m, gaps[m]) for m in chosen if m not in whole}


def _reasons(
    chosen: Mapping[str, Sequence[Curve]], low: float, high: float, grid: Mapping[str, Sequence[Curve]]
) -> dict[str, LeftOut]:
    """The methods that take no part over a range."""
    if high * (1 - TOLERANCE) > low * (1 + TOLERANCE):
        return _obstacles(chosen, low, high, grid)
    why = ONE_POINT if high * (1 + TOLERANCE) >= low else NO_RANGE
    return {method: LeftOut(method, why) for method in chosen}


def _obstacles(
    chosen: Mapping[str, Sequence[Curve]], low: float, high: float, grid: Mapping[str, Sequence[Curve]]
) -> dict[str, LeftOut]:
    """The methods that are kept from a comparison; of a single level, both ends are that.

    ``grid`` are all methods by which is judged what one lacks.
    """
    latest = max((c.x[0] for members in chosen.values() for c in members if c.x[0] <= low), default=low)
    usual = _usual_step(grid, 0.0, math.inf)
    places = sorted(x for members in grid.values() for curve in members for x in curve.compressions)
    found = (
        _obstacle(method, members, low, high, latest) or _leap(method, members, low, high, usual, places, grid)
        for method, members in chosen.items()
    )
    kept = {one.method: one for one in found if one}
    return kept if low < high else kept | _far_from(low, {m: c for m, c in chosen.items() if m not in kept})


def _far_from(level: float, chosen: Mapping[str, Sequence[Curve]]) -> dict[str, LeftOut]:
    """Methods that have a line at ``level`` and no run near it, where another has one: a line hides a collapse.

    Speeds are not asked for, so that nobody has runs where they are compared.
    """
    far = [m for m, curves in chosen.items() if any(c.amounts is None and not c.is_near(level) for c in curves)]
    return {m: LeftOut(m, f"no run near {level:.3g}×") for m in far if len(far) < len(chosen)}


def _usual_step(chosen: Mapping[str, Sequence[Curve]], low: float, high: float) -> float:
    """The widest step of half of the methods, of those with a step inside ``low`` to ``high`` in part."""
    leaps = (max(c.leap(low, high) for c in members) for members in chosen.values())
    widest = sorted(leap for leap in leaps if leap > 1)
    return widest[(len(widest) - 1) // 2] if widest else 1.0


def _common_range(members: Sequence[Sequence[Curve]]) -> tuple[float, float]:
    """Where the curves of more than half of the methods begin and end; a method's seeds all have to be there.

    A curve that fails at its end goes as far as it was to go: it is left out for it, not the range shortened.
    """
    if not members:
        return 1.0, 1.0
    starts = sorted(max(c.x[0] for c in curves) for curves in members)
    ends = sorted((min(c.planned_end for c in curves) for curves in members), reverse=True)
    return float(starts[len(members) // 2]), float(ends[len(members) // 2])


def _obstacle(method: str, members: Sequence[Curve], low: float, high: float, latest: float) -> LeftOut | None:
    """Why a method takes no part, if it takes none.

    A curve counts that ends a little short of a level, unless another begins later than that (``latest``).
    """
    holes = [(hole, curve.seed) for curve in members for hole in curve.holes_in(low, high)]
    if holes:
        return _lacking(method, holes)
    start, end = max(c.x[0] for c in members), min(c.x[-1] for c in members)
    if start > low * (1 + (SAME if low == high else TOLERANCE)):
        return LeftOut(method, f"begins at {start:.3g}×")
    if end < high * (1 - TOLERANCE) or (low == high and end < latest * (1 - SAME)):
        return LeftOut(method, f"ends at {end:.3g}×")
    return None


def _leap(
    method: str,
    members: Sequence[Curve],
    low: float,
    high: float,
    usual: float,
    places: Sequence[float],
    grid: Mapping[str, Sequence[Curve]],
) -> LeftOut | None:
    """Why a method takes no part that leaves out amounts: its line between them would be made up.

    Where most others have a run that the method lacks, its runs may be no further apart than the ``usual``
    widest step, that of half of the methods, nor twice as far, in log compression, as such steps there are;
    around a level no further than those. Where others have runs at both ends too, however near those are, an
    amount is left out. Elsewhere its runs may be twice as far apart as the usual step. Nor may
    one seed lack a run, however near its neighbours, that other seeds of the method have, and most others on
    this seed. What counts is how far networks were compressed, on every axis: where they lie apart in speed
    no run is missing between them. ``places`` are the compressions of all runs in order.
    """
    others = [curves for name, curves in grid.items() if name != method]
    for curve in members:
        for start, end in curve.steps(low, high):
            widest = usual**2
            first = bisect.bisect_right(places, start * (1 + TOLERANCE))
            if first < len(places) and places[first] < end / (1 + TOLERANCE):  # somebody has a run there
                here = [any(c.is_run_between(start, end) for c in m if c.seed == curve.seed) for m in others]
                if 2 * sum(here) > len(others) and any(c.is_run_between(start, end) for c in members):
                    why = f"no run of seed {curve.seed} between {_amounts(curve, start, end)}"
                    return LeftOut(method, why, lacks_runs=True)
                between = [m for m in others if all(c.is_run_between(start, end) for c in m)]
                if 2 * len(between) > len(others):
                    there = _usual_step(grid, start, end)
                    widest = min(usual, there if low == high else (there / (1 + TOLERANCE)) ** 2)
                if 2 * sum(all(c.runs_within(start, end) for c in m) for m in between) > len(others):
                    widest = 1.0
            if end / start > widest * (1 + TOLERANCE):
                return LeftOut(method, f"no run between {_amounts(curve, start, end)}", lacks_runs=True)
    return None


def _amounts(curve: Curve, start: float, end: float) -> str:
    return f"{'' if curve.amounts is None else 'compressions '}{start:.3g}× and {end:.3g}×"


def _lacking(method: str, holes: Sequence[tuple[Hole, int]]) -> LeftOut:
    return LeftOut(method, _describe(holes), lacks_runs=True)


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
