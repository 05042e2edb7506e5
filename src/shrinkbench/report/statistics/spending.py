"""Group-sequential boundaries: how small p has to be at each look, so that all together keep the level."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import scipy

from shrinkbench.report.statistics.tests import Floats
from shrinkbench.spec.sequential import Spending

_NODES = 401  # of the integral over where the sum may be at an earlier look
_LEVELS = np.geomspace(1e-9, 0.5, 48)
"""Overall levels whose boundaries are computed; between them the logarithm of the level is interpolated."""


def spent(alpha: float, share: float, spending: Spending) -> float:
    """How much of ``alpha`` may be spent up to the ``share`` of all seeds (Lan and DeMets 1983).

    O'Brien-Fleming, half of ``alpha`` on either side: 4 - 4 Phi(z(1 - alpha / 4) / sqrt(share)); Kim and DeMets
    (1987), with the power 2: alpha share^2; Pocock: alpha log(1 + (e - 1) share).

    >>> round(spent(0.05, 0.5, "obrien-fleming"), 5), round(spent(0.05, 0.5, "kim-demets"), 5)
    (0.00305, 0.0125)
    """
    if spending == "pocock":
        return alpha * math.log1p((math.e - 1) * share)
    if spending == "kim-demets":
        return alpha * share**2
    return float(4 * scipy.special.ndtr(scipy.special.ndtri(alpha / 4) / math.sqrt(share)))


@functools.lru_cache(maxsize=512)
def boundaries(alpha: float, shares: tuple[float, ...], spending: Spending) -> tuple[float, ...]:
    """|z| that has to be exceeded at each look, two-sided, for ``shares`` of all seeds.

    By the recursive integral of Armitage, McPherson and Rowe (1969): the chance to cross at a look, and not
    before, is what may be spent there.

    >>> [round(z, 3) for z in boundaries(0.05, (0.2, 0.4, 0.6, 0.8, 1.0), "obrien-fleming")]
    [4.877, 3.357, 2.68, 2.29, 2.031]
    """
    found: list[float] = []
    place, density = np.zeros(1), np.ones(1)  # where the sum may be without having crossed, and its weight
    before, used = 0.0, 0.0
    for share in shares:
        step = math.sqrt(share - before)
        target = spent(alpha, share, spending) - used
        bound = _bound(place, density, step, target, math.sqrt(share))
        found.append(bound / math.sqrt(share))
        nodes = np.linspace(-bound, bound, _NODES)
        steps = (nodes[:, None] - place[None, :]) / step
        around = np.exp(-(steps**2) / 2) / (step * math.sqrt(2 * math.pi)) @ density
        place, density = nodes, around * _simpson(bound)
        before, used = share, used + target
    return tuple(found)


def _bound(place: Floats, density: Floats, step: float, target: float, deviation: float) -> float:
    """The sum that is exceeded, in one direction or the other, with the chance ``target``."""

    def excess(bound: float) -> float:
        upper, lower = (bound - place) / step, (bound + place) / step
        chance = float((scipy.special.ndtr(-upper) + scipy.special.ndtr(-lower)) @ density)
        return math.log(max(chance, 1e-300)) - math.log(max(target, 1e-300))

    return float(scipy.optimize.brentq(excess, 0.0, 38.0 * deviation, xtol=1e-10))


def _simpson(bound: float) -> Floats:
    weights = np.ones(_NODES)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    found: Floats = weights * (2 * bound / (_NODES - 1) / 3)
    return found


@dataclass(frozen=True)
class Looks:
    """When there is a look: numbers of units, of ``most`` at last, and how the level is spent over them.

    ``methods`` is how many are compared at first; variances are pooled over them.
    """

    units: tuple[int, ...]
    most: int
    spending: Spending
    methods: int

    @property
    def shares(self) -> tuple[float, ...]:
        """The units of every look as a share of all."""
        return tuple(n / self.most for n in self.units)

    def crossed(self, p: float, look: int) -> float:
        """The smallest level whose boundary ``p`` crosses at ``look`` (counted from 0), variances known.

        Levels above a half count as 1, those below 1e-9 as that.
        """
        return float(_crossed(np.array([p]), look, self.shares, self.spending)[0]) if math.isfinite(p) else p

    def attained(self, level: float) -> float:
        """How often equal methods cross the boundary of ``level`` at some look, variances estimated.

        With few units the t statistics of successive looks vary more than sums of normal numbers do; equal
        methods are drawn to see by how much. Below a thousandth, where too few draws cross, it is the sum over
        looks of the chance at each, which is never too small.
        """
        levels, rates = _rates(self)
        if level >= levels[0]:
            return float(np.interp(level, levels, rates))
        bound = sum(_nominal(np.array([level]), self.shares, self.spending)[0])
        return float(min(bound, rates[0]))

    def level_at(self, alpha: float, look: int) -> float:
        """The two-sided level of a single test at ``look``; intervals at 1 minus it hold at all looks."""
        levels, rates = _rates(self)
        return float(_nominal(np.array([np.interp(alpha, rates, levels)]), self.shares, self.spending)[0, look])


_DRAWS = 100_000


@functools.lru_cache(maxsize=64)
def _thresholds(shares: tuple[float, ...], spending: Spending) -> Floats:
    """Logarithm of the two-sided p at each look (columns) for every overall level (rows)."""
    z = np.array([boundaries(float(alpha), shares, spending) for alpha in _LEVELS])
    found: Floats = math.log(2) + scipy.special.log_ndtr(-z)
    return found


def _nominal(levels: Floats, shares: tuple[float, ...], spending: Spending) -> Floats:
    """Two-sided p that each look (columns) needs for every one of ``levels``."""
    logs = _thresholds(shares, spending)
    columns = [np.interp(np.log(levels), np.log(_LEVELS), logs[:, look]) for look in range(len(shares))]
    found: Floats = np.exp(np.stack(columns, axis=1))
    return found


def _crossed(p: Floats, look: int, shares: tuple[float, ...], spending: Spending) -> Floats:
    logs = _thresholds(shares, spending)[:, look]
    with np.errstate(divide="ignore"):
        found: Floats = np.exp(np.interp(np.log(p), logs, np.log(_LEVELS), right=0.0))
    return found


@functools.lru_cache(maxsize=64)
def _rates(looks: Looks) -> tuple[Floats, Floats]:
    """Levels from a thousandth to a half, and how often equal methods cross the boundary of each."""
    random, others = np.random.default_rng(0), looks.methods - 2
    differences = random.normal(size=(_DRAWS, looks.most)) * math.sqrt(2)
    others_squares = random.chisquare(others, (_DRAWS, looks.most - 1)) if others else 0.0 * differences[:, 1:]
    sums, squares = differences.cumsum(axis=1), (differences**2).cumsum(axis=1)
    rest = others_squares.cumsum(axis=1)
    least = np.ones(_DRAWS)
    for look, n in enumerate(looks.units):
        freedom = (looks.methods - 1) * (n - 1)
        total = sums[:, n - 1]
        variance = ((squares[:, n - 1] - total**2 / n) / 2 + rest[:, n - 2]) / freedom
        p = 2 * scipy.special.stdtr(freedom, -np.abs(total) / np.sqrt(2 * n * variance))
        least = np.fmin(least, _crossed(p, look, looks.shares, looks.spending))
    levels = np.geomspace(1e-3, 0.5, 60)
    rates = np.searchsorted(np.sort(least), levels, side="right") / _DRAWS
    return levels, np.maximum.accumulate(np.maximum(rates, levels))
