"""One comparison of two methods on common units: difference, interval and p, before any correction."""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.blocks import Block

NOISIER = 1.5
"""A pair whose variance is more than this many times that of all pairs is tested with its own."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Claim:
    """``first`` minus ``second`` in the metric, with its 95 % interval and p before and after correction.

    Both stand for what is better: a positive ``difference`` speaks for ``first``, whatever the metric's
    direction. ``n`` counts seeds or, over tasks, tasks; ``deviation`` is of one unit's difference, as tested.
    """

    question: str
    task: str
    first: str
    second: str
    reach: tuple[float, float]
    difference: float
    low: float
    high: float
    deviation: float
    freedom: int
    n: int
    differences: tuple[float, ...]
    p_raw: float
    p: float = math.nan
    alpha: float = stats.ALPHA

    @property
    def decided(self) -> bool:
        """Whether the two are told apart."""
        return self.p < self.alpha

    @property
    def reversed(self) -> Claim:
        """The same claim, seen from the second method."""
        return replace(
            self,
            first=self.second,
            second=self.first,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
            differences=tuple(-d for d in self.differences),
        )

    @functools.cached_property
    def effect(self) -> stats.Effect:
        """The standardised difference over the units; slow to make, and few are looked at."""
        return stats.effect_size(self.differences)

    def involves(self, method: str) -> bool:
        """Whether ``method`` is one of the two."""
        return method in (self.first, self.second)


def relative_noise(blocks: Iterable[Block]) -> dict[Pair, float]:
    """How many times as variable a pair's differences are as those of all pairs, on average over levels.

    With few seeds one level alone tells little of it; a method's noise grows and falls with that of the others.
    """
    found: dict[Pair, list[float]] = defaultdict(list)
    for block in blocks:
        variances = variances_of(block)
        pooled = mean_of(variances.values())
        if math.isfinite(pooled) and pooled > 0:
            for pair, variance in variances.items():
                found[pair].append(variance / pooled)
    return {pair: mean_of(ratios) for pair, ratios in found.items()}


def variances_of(block: Block) -> dict[Pair, float]:
    """Sample variance over units of each pair's difference."""
    if len(block.units) < 2:
        return {}
    first, second = np.triu_indices(len(block.methods), 1)
    found = (block.values[first] - block.values[second]).var(axis=1, ddof=1).tolist()
    return dict(zip(itertools.combinations(block.methods, 2), found, strict=True))


@dataclass(frozen=True, eq=False)
class Layout:
    """What comparisons of the pairs of a block share; ``noise`` is that of :func:`relative_noise`."""

    block: Block
    values: Mapping[str, stats.Floats]
    variances: Mapping[Pair, float]
    pooled: float
    noise: Mapping[Pair, float]

    @classmethod
    def of(cls, block: Block, noise: Mapping[Pair, float]) -> Layout:
        """The layout of ``block``."""
        variances = variances_of(block)
        values = dict(zip(block.methods, block.values, strict=True))
        return cls(block, values, variances, mean_of(variances.values()), noise)

    def variance(self, pair: Pair) -> float:
        """The mean over all pairs, times the pair's relative noise where that is above :data:`NOISIER`."""
        own = self.variances.get(pair, self.variances.get(pair[::-1], math.nan))
        ratio = self.noise.get(pair, self.noise.get(pair[::-1], own / self.pooled if self.pooled else 1.0))
        return self.pooled * (ratio if ratio > NOISIER else 1.0)


def compare_pairs(question: str, task: str, block: Block, noise: Mapping[Pair, float]) -> list[Claim]:
    """Every pair of the block's methods, in their order."""
    layout = Layout.of(block, noise)
    return [compare_pair(question, task, layout, pair) for pair in itertools.combinations(block.methods, 2)]


def compare_pair(question: str, task: str, layout: Layout, pair: Pair) -> Claim:
    """Compare a pair on the block's units: the t-test of a two-way layout, with a noisy pair's own variance.

    freedom = (methods - 1) (units - 1).
    """
    block = layout.block
    n = len(block.units)
    differences = layout.values[pair[0]] - layout.values[pair[1]]
    variance = layout.variance(pair)
    freedom = (len(block.methods) - 1) * (n - 1)
    mean = float(differences.mean())
    error = math.sqrt(variance / n) if n > 1 else math.nan
    spread = n > 1 and error > 1e-12  # units that agree to the last digit tell nothing of others
    half = stats.t_quantile((1 + stats.CONFIDENCE) / 2, freedom) * error if spread else math.nan
    return Claim(
        question=question,
        task=task,
        first=pair[0],
        second=pair[1],
        reach=(block.low, block.high),
        difference=mean,
        low=mean - half,
        high=mean + half,
        deviation=math.sqrt(variance),
        freedom=freedom,
        n=n,
        differences=tuple(differences.tolist()),
        p_raw=_p_value(mean, error, freedom),
    )


def _p_value(difference: float, error: float, freedom: int) -> float:
    """Two-sided p of the t-test; undefined without variation, unless nothing differs."""
    if not math.isfinite(error) or error <= 1e-12:
        return 1.0 if difference == 0 else math.nan
    return float(2 * scipy.special.stdtr(freedom, -abs(difference / error)))


def mean_of(values: Iterable[float]) -> float:
    """Arithmetic mean; undefined of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else math.nan
