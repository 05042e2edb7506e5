"""How far the places of runs alone may put two methods apart: each curve is read at the other's places, too.

A line between two runs is below a curve that falls faster and faster, so that of equal methods the one whose
runs lie nearer to a collapse, or are compressed a little less, has the better line. Nobody is told apart by
less than what a curve of its own changes by where it is read at the other's compressions; nor by a lead that
rests on one place of runs, as curves that fall at once between two runs that lie a little apart differ there.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from shrinkbench.report.statistics.curves import SAME, Curve

REMAINING = 1 / 3
"""The least share of a lead that has to be there without the runs of any one place that lie apart."""
STEPS = 32
"""Over a range curves are compared at so many equal steps."""

Methods = Mapping[str, Sequence[Curve]]
Slack = dict[frozenset[str], float]


def slack_of(compared: Methods, low: float, high: float) -> Slack:
    """By pair of methods the difference that the places of their runs may make; none where those are equal.

    From ``low`` to ``high``, or at one level. The curves of a method are one for each seed, in one order.
    """
    groups: list[list[str]] = []
    for method, own in compared.items():
        alike = (g for g in groups if _lie_alike_around(compared[g[0]], own, low, high))
        group = next(alike, None)
        if group is None:
            groups.append([method])
        else:
            group.append(method)
    found: Slack = {}
    for some, others in itertools.combinations(groups, 2):
        changes = {
            method: _change(compared[method], compared[beside[0]], low, high)
            for members, beside in ((some, others), (others, some))
            for method in members
        }
        for a, b in itertools.product(some, others):
            resting = _resting(compared[a], compared[b], low, high)
            found[frozenset((a, b))] = max(changes[a] + changes[b], resting)
    return found


def lie_alike(curves: Sequence[Curve]) -> bool:
    """Whether all curves have runs at the same compressions, up to 1 %, so that places make no difference."""
    first = curves[0].compressions if curves else []
    for curve in curves[1:]:
        places = list(zip(first, curve.compressions, strict=False))
        if len(curve.compressions) != len(first) or any(max(p) > min(p) * (1 + SAME) for p in places):
            return False
    return True


def _lie_alike_around(first: Sequence[Curve], second: Sequence[Curve], low: float, high: float) -> bool:
    """The same of two methods, of the runs that what lies between ``low`` and ``high`` is read from."""
    both = zip(first, second, strict=True)
    return all(lie_alike([curve.around(low, high) for curve in pair]) for pair in both)


def _change(own: Sequence[Curve], others: Sequence[Curve], low: float, high: float) -> float:
    """How far the mean over seeds moves where each curve is read at the places of another.

    Over a range up and down alike, on average: where one collapses between two runs, the line is now above and
    now below.
    """
    places = [low * (high / low) ** (i / STEPS) for i in range(STEPS + 1)] if low < high else [high]
    pairs = [(curve, _read_at(curve, other)) for curve, other in zip(own, others, strict=True)]
    moved = [sum(read.at(x) - curve.at(x) for curve, read in pairs) / len(pairs) for x in places]
    return sum(map(abs, moved)) / len(moved)


def _resting(first: Sequence[Curve], second: Sequence[Curve], low: float, high: float) -> float:
    """The mean difference, where without one place at which runs lie apart little of it remains; 0 otherwise.

    A place is a run of either, of any seed, and of each curve the run that is nearest; it is apart where the
    means over seeds are: runs that scatter around one place are noise, as seeds tell. Without the first place
    controls, at which methods are one, are left out too.
    """
    curves = [*first, *second]
    whole = _difference(curves, low, high)
    places = (x for own in curves for x in own.around(low, high).x.tolist() if x > 1)
    removed = (tuple(_nearest(curve, place) for curve in curves) for place in dict.fromkeys(places))
    for runs in dict.fromkeys(removed):
        of_first, of_second = (math.prod(some) for some in (runs[: len(first)], runs[len(first) :]))
        if max(of_first / of_second, of_second / of_first) > (1 + SAME) ** len(first):
            is_first = all(run == _nearest(curve, 1.0) for curve, run in zip(curves, runs, strict=True))
            gone = [(run, 1.0) if is_first else (run,) for run in runs]
            rest = _difference(list(map(_without, curves, gone)), low, high)
            if rest * math.copysign(1.0, whole) < REMAINING * abs(whole):
                return abs(whole)
    return 0.0


def _nearest(curve: Curve, place: float) -> float:
    """The run nearest to ``place`` in log compression; the control is none."""
    runs = (x for x in curve.x.tolist() if x > 1)
    return min(runs, key=lambda x: max(x / place, place / x), default=1.0)


@functools.lru_cache(maxsize=1024)
def _without(curve: Curve, runs: tuple[float, ...]) -> Curve:
    return curve.without(runs)


def _difference(curves: Sequence[Curve], low: float, high: float) -> float:
    """Mean over seeds of the first half of ``curves`` minus the second, as far as all curves go."""
    if not all(len(curve.x) for curve in curves):
        return 0.0
    start, end = max(float(c.x[0]) for c in curves), min(float(c.x[-1]) for c in curves)
    if low < high:
        low, high = max(low, start), min(high, end)
        values = [c.mean(low, high) if low < high else c.at(min(low, high)) for c in curves]
    else:
        values = [curve.at(max(start, min(high, end))) for curve in curves]
    seeds = len(curves) // 2
    return (sum(values[:seeds]) - sum(values[seeds:])) / seeds


def _read_at(curve: Curve, other: Curve) -> Curve:
    """What would be known of ``curve`` with runs at its own ends and at the places of ``other`` alone."""
    start, end = float(curve.x[0]), float(curve.x[-1])
    places = [start, *(x for x in other.x.tolist() if start < x < end), end]
    return replace(curve, x=np.array(places), y=np.array([curve.at(x) for x in places]))
