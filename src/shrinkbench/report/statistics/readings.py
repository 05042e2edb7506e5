"""How far the places of runs alone may put two methods apart: each curve is read at the other's places, too.

A line between two runs is below a curve that falls faster and faster, so that of equal methods the one whose
runs lie nearer to a collapse, or are compressed a little less, has the better line. Nobody is told apart by
less than what a curve of its own changes by where it is read at the other's compressions.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from shrinkbench.report.statistics.curves import SAME, Curve

BEYOND = 2.0
"""How many times as fast as its line a curve may fall beyond where one that ends a little earlier was run."""
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
        alike = (g for g in groups if all(lie_alike(both) for both in zip(compared[g[0]], own, strict=True)))
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
        for pair in itertools.product(some, others):
            found[frozenset(pair)] = sum(changes[method] for method in pair)
    return found


def lie_alike(curves: Sequence[Curve]) -> bool:
    """Whether all curves have runs at the same compressions, up to 1 %, so that places make no difference."""
    first = curves[0].compressions if curves else []
    for curve in curves[1:]:
        places = list(zip(first, curve.compressions, strict=False))
        if len(curve.compressions) != len(first) or any(max(p) > min(p) * (1 + SAME) for p in places):
            return False
    return True


def _change(own: Sequence[Curve], others: Sequence[Curve], low: float, high: float) -> float:
    """How far the mean over seeds moves where each curve is read at the places of another.

    Over a range up and down alike, on average: where one collapses between two runs, the line is now above and
    now below.
    """
    places = [low * (high / low) ** (i / STEPS) for i in range(STEPS + 1)] if low < high else [high]
    pairs = [(curve, _read_at(curve, other, low, high)) for curve, other in zip(own, others, strict=True)]
    moved = [sum(read.at(x) - curve.at(x) for curve, read in pairs) / len(pairs) for x in places]
    return sum(map(abs, moved)) / len(moved)


def _read_at(curve: Curve, other: Curve, low: float, high: float) -> Curve:
    """What would be known of ``curve`` with runs at its own ends and at the places of ``other`` alone.

    Where the other ends and this one has a line on to its next run, it may fall later than that.
    """
    start, end = float(curve.x[0]), float(curve.x[-1])
    places = [start, *(x for x in other.x.tolist() if start < x < end), end]
    values = [curve.at(x) for x in places]
    after = [x for x in curve.x.tolist() if x > high * (1 + SAME)]
    if after and float(other.x[-1]) <= high * (1 + SAME) and not curve.is_near(high, SAME):
        kept = [(x, value) for x, value in zip(places, values, strict=True) if x < high * (1 - SAME)]
        raised = curve.at(high) + BEYOND * (curve.at(high) - curve.at(min(after)))
        places, values = [x for x, _ in kept] + [high], [value for _, value in kept] + [raised]
    return replace(curve, x=np.array(places), y=np.array(values))
