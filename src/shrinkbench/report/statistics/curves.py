"""Each seed's curve of quality against size or speed; what failed or is missing is a gap, never bridged."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.metrics import HEADLINE
from shrinkbench.report.statistics.observations import Observations

SAME = 0.01
"""Ratios that differ by less than this share are one operating point: the measured value counts there."""
TOLERANCE = 0.10
"""A curve that ends up to this share short of a level or range counts; all are compared where it ends."""

ROUNDING = 1e-9
"""A level that lies this far, in log x, outside of what was measured is inside."""


class Hole(NamedTuple):
    """What one absent run leaves unknown: strictly between two measured points, or beyond the last.

    ``place`` is where it would lie, as far as that is known.
    """

    low: float
    high: float
    place: float
    kind: str
    amount: str


@dataclass(frozen=True, eq=False)
class Curve:
    """One seed's measured points in order of ``x``; the method's own control of that seed is the first.

    Points of one ``x`` count as their mean, whatever was asked for. A seed of which every run failed has no
    point, and gaps everywhere. ``amounts`` are the compressions of the points, where ``x`` is another quantity.
    """

    task: str
    method: str
    seed: int
    x: stats.Floats
    y: stats.Floats
    holes: tuple[Hole, ...] = ()
    amounts: stats.Floats | None = None

    @functools.cached_property
    def _points(self) -> list[tuple[float, float]]:
        """As plain numbers, which a handful of points is computed with many times as fast as as arrays."""
        x, y = stats.points_in_order(self.x, self.y)
        return list(zip(x.tolist(), y.tolist(), strict=True))

    @functools.cached_property
    def _line(self) -> tuple[list[float], list[float]]:
        """log x and y of the points, those of one x averaged."""
        return [math.log(x) for x, _ in self._points], [y for _, y in self._points]

    def holes_in(self, low: float, high: float) -> list[Hole]:
        """Gaps that a statement about ``low`` to ``high`` would bridge; of one level, those it lies in."""
        inner = [(h.low * (1 + TOLERANCE), h.high / (1 + TOLERANCE)) for h in self.holes]
        return [h for h, (start, end) in zip(self.holes, inner, strict=True) if start < high and low < end]

    def steps(self, low: float = 0.0, high: float = math.inf) -> list[tuple[float, float]]:
        """Compressions of neighbouring runs, of those that what ``low`` to ``high`` needs lies between."""
        found = itertools.pairwise(zip(self.compressions, self.x[self._order].tolist(), strict=True))
        return [
            (amount, after)
            for (amount, x), (after, y) in found
            if max(x, y) > low * (1 + SAME) and min(x, y) < high * (1 - SAME)
        ]

    @functools.cached_property
    def _order(self) -> Any:
        """The points in order of their compression."""
        return np.argsort(self.x if self.amounts is None else self.amounts, kind="stable")

    @functools.cached_property
    def compressions(self) -> list[float]:
        """Compressions of the points in order."""
        amounts: list[float] = (self.x if self.amounts is None else self.amounts)[self._order].tolist()
        return amounts

    def is_run_between(self, start: float, end: float) -> bool:
        """Whether a run lies between compressions ``start`` and ``end`` that neither stands for.

        One stands for a run that is within 10 %, or nearer to it, in log compression, than this curve's others.
        """
        x = self.compressions
        inner = range(
            bisect.bisect_right(x, start * (1 + TOLERANCE)), bisect.bisect_left(x, end / (1 + TOLERANCE))
        )
        if not inner:
            return False
        # beyond the ends it would have gone on by as much
        more = [x[0] ** 2 / x[1], *x, x[-1] ** 2 / x[-2]] if len(x) > 1 else [*x, *x, *x]
        around = ((more[place], x[place], more[place + 2]) for place in inner)
        return any(math.sqrt(a * b) > start and math.sqrt(b * c) < end for a, b, c in around)

    def is_near(self, level: float, tolerance: float = TOLERANCE) -> bool:
        """Whether a run lies within ``tolerance`` of ``level``."""
        return any(level * (1 - tolerance) <= x <= level * (1 + tolerance) for x in self.x.tolist())

    def without(self, compressions: Collection[float]) -> Curve:
        """The curve without the runs of these compressions."""
        own = self.x if self.amounts is None else self.amounts
        kept = ~np.isin(own, list(compressions))
        amounts = None if self.amounts is None else self.amounts[kept]
        return replace(self, x=self.x[kept], y=self.y[kept], amounts=amounts)

    def around(self, low: float, high: float) -> Curve:
        """The runs that ``low`` to ``high`` is read from: those inside, the next where none is at an end."""
        x = self.x.tolist()
        start = max((own for own in x if own <= low * (1 + SAME)), default=low)
        end = min((own for own in x if own >= high * (1 - SAME)), default=high)
        return self.without([own for own in x if not start <= own <= end])

    def runs_within(self, start: float, end: float) -> list[float]:
        """Compressions of runs between those nearest to ``start`` and to ``end``, up to 10 % outside."""
        x = self.compressions
        first = bisect.bisect_left(x, start / (1 + TOLERANCE))
        inner = x[first : bisect.bisect_right(x, end * (1 + TOLERANCE))]
        if len(inner) < 3:
            return []
        low, high = (min(inner, key=lambda own: abs(math.log(own / place))) for place in (start, end))
        return [own for own in inner if low * (1 + SAME) < own < high * (1 - SAME)]

    def leap(self, low: float, high: float) -> float:
        """The widest step, as a ratio, of those that lie between compressions ``low`` and ``high`` in part."""
        found = itertools.pairwise(self.compressions)
        inside = (after / x for x, after in found if after > low * (1 + SAME) and x < high * (1 - SAME))
        return max(inside, default=1.0)

    @functools.cached_property
    def planned_end(self) -> float:
        """Where the curve was to end: what failed or is missing beyond the last point would lie there."""
        return max([float(self.x[-1]), *(h.place for h in self.holes if np.isfinite(h.place))])

    def at(self, level: float) -> float:
        """The value at ``level``: the mean of points within 1 %, else between points; never beyond."""
        measured = [value for x, value in self._points if abs(x / level - 1) < SAME]
        return sum(measured) / len(measured) if measured else self._between(math.log(level))

    def mean(self, low: float, high: float) -> float:
        """Mean over the logarithm of ``x`` from ``low`` to ``high``, inside what was measured."""
        places, values = self._line
        if len(places) < 2 or high <= low:
            return math.nan
        start, end = math.log(low), math.log(high)
        inner = [(x, y) for x, y in zip(places, values, strict=True) if start < x < end]
        line = [(start, self._between(start)), *inner, (end, self._between(end))]
        area = sum((b - a) * (c + d) / 2 for (a, c), (b, d) in itertools.pairwise(line))
        return area / (end - start)

    def _between(self, place: float) -> float:
        """The value at ``place`` in log x, linear between points; undefined beyond them."""
        places, values = self._line
        if not places or not places[0] - ROUNDING <= place <= places[-1] + ROUNDING:
            return math.nan
        if place <= places[0] or place >= places[-1]:
            return values[0] if place <= places[0] else values[-1]
        after = bisect.bisect_left(places, place)
        share = (place - places[after - 1]) / (places[after] - places[after - 1])
        return values[after - 1] + share * (values[after] - values[after - 1])


def own_controls(observations: Observations, metric: str) -> pd.Series:
    """For every pruned run the value of its own control, that of its ``control_key``; missing without one."""
    values = observations.control.set_index("control_key")[metric]
    return observations.pruned["control_key"].map(values).astype(float)


@functools.lru_cache(maxsize=32)
def curves(observations: Observations, axis: str, metric: str) -> tuple[Curve, ...]:
    """One curve per task, method and seed; a finished run without the metric is a gap."""
    return tuple(_curves(observations, axis, metric))


def _curves(observations: Observations, axis: str, metric: str) -> Iterator[Curve]:
    starts = own_controls(observations, metric).to_numpy()
    xs, ys = (observations.pruned[column].to_numpy(dtype=float, na_value=math.nan) for column in (axis, metric))
    compressions = observations.pruned["compression"].to_numpy(dtype=float, na_value=math.nan)
    known = np.isfinite(xs) & np.isfinite(ys)
    rows: dict[Any, Any] = observations.pruned.groupby(["task", "method", "seed"]).indices
    gaps = _places_of_gaps(observations, axis)
    failed = {cell for cell, found in gaps.items() if any(kind == "failed" for _, kind, _ in found)}
    failed = {cell for cell in failed - rows.keys() if cell[0] in observations.tasks}
    for cell in sorted({*rows, *failed}):
        places = rows.get(cell, np.empty(0, dtype=int))
        unmeasured = places[np.isfinite(xs[places]) & ~known[places]]
        places = places[known[places]]
        if not len(places) and cell not in failed:
            continue
        x, y, amounts = xs[places], ys[places], compressions[places]
        # its control is that of the least pruned run, where the runs of a curve have several
        first = starts[places[x == x.min()]] if len(places) else np.empty(0)
        if np.isfinite(first).any():
            start = np.unique(first[np.isfinite(first)]).mean()
            x, y, amounts = np.r_[1.0, x], np.r_[start, y], np.r_[1.0, amounts]
        order = np.argsort(x, kind="stable")
        x, y, amounts = x[order], y[order], amounts[order]
        absent = [(xs[p], "unmeasured", observations.pruned["amount"].iloc[p]) for p in unmeasured]
        task, method, seed = cell
        holes = tuple(_hole(x, *gap) for gap in [*gaps.get(cell, ()), *absent])
        yield Curve(task, method, seed, x, y, holes, None if axis == "compression" else amounts)


def repeated_amounts(observations: Observations) -> dict[tuple[str, str], tuple[str, ...]]:
    """By task and method the amounts of which a seed reached one compression, up to 1 %: their mean counts."""
    found: dict[tuple[str, str], set[tuple[float, str]]] = defaultdict(set)
    ordered = observations.pruned.sort_values("compression", kind="stable")
    cells: dict[Any, Any] = dict(iter(ordered.groupby(["task", "method", "seed"])))
    for (task, method, _), rows in cells.items():
        targets = rows["compression_target"].fillna(math.inf)
        runs = zip(rows["compression"], zip(targets, rows["amount"], strict=True), strict=True)
        for (x, amount), (after, other) in itertools.pairwise(runs):
            if after < x * (1 + SAME):
                found[task, method] |= {amount, other}
    return {cell: tuple(amount for _, amount in sorted(amounts)) for cell, amounts in found.items()}


def _places_of_gaps(
    observations: Observations, axis: str
) -> dict[tuple[str, str, int], list[tuple[float, str, str]]]:
    """Where on ``axis`` each absent run would lie: where its cell lies for other seeds, else for other methods.

    On the axis of compression it is the compression asked for where nothing of the kind was measured.
    """
    found: dict[tuple[str, str, int], list[tuple[float, str, str]]] = defaultdict(list)
    if observations.gaps.empty:
        return found
    cells = observations.pruned.groupby(["task", "method", "amount"])[axis].mean()
    amounts = observations.pruned.groupby(["task", "amount"])[axis].mean()
    columns = ("task", "method", "amount", "seed", "compression_target", "kind")
    for task, method, amount, seed, target, kind in zip(*(observations.gaps[c] for c in columns), strict=True):
        place = cells.get((task, method, amount), math.nan)
        if axis == "compression" and not math.isfinite(place):
            place = target
        if not math.isfinite(place):
            place = amounts.get((task, amount), math.nan)
        found[task, method, seed].append((float(place), kind, amount))
    return found


def _hole(x: stats.Floats, place: float, kind: str, amount: str) -> Hole:
    """What an absent run at ``place`` leaves unknown; everything, where nobody knows where it would lie."""
    if not math.isfinite(place):
        return Hole(0.0, math.inf, math.nan, kind, amount)
    below, above = x[x < place * (1 - SAME)], x[x > place * (1 + SAME)]
    low = float(below.max()) if len(below) else 0.0
    high = float(above.min()) if len(above) else math.inf
    return Hole(low, high, place, kind, amount)


def default_levels(observations: Observations, axis: str) -> list[float]:
    """Compressions that were asked for; powers of two inside the measured range for speedups.

    Where no amount is a compression, powers of two serve for size too. One within 10 % of another that more
    methods were asked for is no level: those have no run there, but a line to the next.
    """
    asked = observations.pruned[["task", "method", "compression_target"]].dropna().drop_duplicates()
    counts = Counter(map(float, asked["compression_target"]))
    if axis == "compression" and counts:
        return sorted(level for level in counts if not _is_beside_a_usual(level, counts))
    highest = observations.pruned[axis].max()
    return [2.0**k for k in range(1, 12) if math.isfinite(highest) and 2.0**k <= highest * (1 + SAME)]


def _is_beside_a_usual(level: float, counts: Mapping[float, int]) -> bool:
    near = (n for other, n in counts.items() if max(level, other) <= min(level, other) * (1 + TOLERANCE))
    return max(near) > counts[level]


@functools.lru_cache(maxsize=16)
def at_equal(
    observations: Observations, axis: str, *, metric: str = HEADLINE, levels: tuple[float, ...] = ()
) -> pd.DataFrame:
    """Every method's value at the same level of ``axis``: columns task, level, method, seed, value.

    Values between measured points are interpolated on the seed's own curve (linear in the logarithm of the
    axis); none is given outside the measured range, nor across a run that failed or is missing. ``levels``
    default to :func:`default_levels`.
    """
    chosen: Sequence[float] = levels or default_levels(observations, axis)
    rows = [
        (curve.task, level, curve.method, curve.seed, curve.at(level))
        for curve in curves(observations, axis, metric)
        for level in chosen
        if not curve.holes_in(level, level)
    ]
    table = pd.DataFrame(rows, columns=["task", "level", "method", "seed", "value"])
    return table.dropna(subset=["value"]).reset_index(drop=True)
