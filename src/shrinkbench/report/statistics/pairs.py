"""One comparison of two methods on common units: difference, interval and p, before any correction."""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import scipy

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.blocks import Block

NOISIER = 1.5
"""A pair whose variance is more than this many times that of all pairs is tested with its own."""
NOISIER_OF_THREE = 1.2
"""The same of three methods: two of the three pairs are with the noisy one, so that no ratio is above 1.5."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Claim:
    """``first`` minus ``second`` in the metric, with its 95 % interval and p before and after correction.

    Both stand for what is better: a positive ``difference`` speaks for ``first``, whatever the metric's
    direction. ``n`` counts seeds or, over tasks, tasks; ``deviation`` is of one unit's difference, as tested.
    ``share`` is what the correction leaves of the level ``alpha`` for it, by what is told apart already.
    Tested is by how much the difference exceeds ``slack``, which the places of the runs may make.
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
    freedom: float
    n: int
    differences: tuple[float, ...]
    p_raw: float
    p: float = math.nan
    alpha: float = stats.ALPHA
    share: float = 1.0
    slack: float = 0.0

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


@dataclass(frozen=True)
class Noise:
    """How many times as variable each pair's differences are as those of all pairs of a block.

    ``blocks`` is how many blocks the ratios are averaged over; 0 where the compared block itself told them.
    """

    ratios: Mapping[Pair, float] = field(default_factory=dict)
    blocks: int = 0

    def at_least(self, other: Noise) -> Noise:
        """The same, or that of ``other`` where it is larger."""
        ratios = {pair: max(ratio, other.ratios.get(pair, ratio)) for pair, ratio in self.ratios.items()}
        return replace(self, ratios=ratios)


def relative_noise(blocks: Iterable[Block]) -> Noise:
    """The noise of pairs relative to all pairs, on average over ``blocks``: levels of a task, or of all tasks.

    With few seeds one level alone tells little of it; a method's noise grows and falls with that of the others.
    """
    found: dict[Pair, list[float]] = defaultdict(list)
    for block in blocks:
        variances = variances_of(block)
        pooled = mean_of(variances.values())
        if math.isfinite(pooled) and pooled > 0:
            for pair, variance in variances.items():
                found[pair].append(variance / pooled)
    ratios = {pair: mean_of(ratios) for pair, ratios in found.items()}
    return Noise(ratios, max(map(len, found.values()), default=0))


def variances_of(block: Block) -> dict[Pair, float]:
    """Sample variance over units of each pair's difference."""
    if len(block.units) < 2:
        return {}
    first, second = np.triu_indices(len(block.methods), 1)
    found = (block.values[first] - block.values[second]).var(axis=1, ddof=1).tolist()
    return dict(zip(itertools.combinations(block.methods, 2), found, strict=True))


@dataclass(frozen=True)
class Residual:
    """Squares that methods and units leave unexplained, and their degrees of freedom."""

    squares: float = 0.0
    freedom: int = 0

    @classmethod
    def of(cls, block: Block) -> Residual:
        """That of a two-way layout without repetition: (methods - 1) (units - 1) degrees."""
        if len(block.methods) < 2:
            return cls()
        values = block.values
        rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
        return cls(float((rest**2).sum()), (len(block.methods) - 1) * (len(block.units) - 1))

    @property
    def variance(self) -> float:
        """Of the difference of two methods in a unit: the mean over all pairs."""
        return 2 * self.squares / self.freedom if self.freedom else math.nan

    def __add__(self, other: Residual) -> Residual:
        return Residual(self.squares + other.squares, self.freedom + other.freedom)

    def __sub__(self, other: Residual) -> Residual:
        return Residual(max(0.0, self.squares - other.squares), self.freedom - other.freedom)


@dataclass(frozen=True, eq=False)
class Layout:
    """What comparisons of the pairs of a block share; ``noise`` is that of :func:`relative_noise`.

    ``beside`` is what methods that are not in the block tell of the variance of all.
    """

    block: Block
    values: Mapping[str, stats.Floats]
    variances: Mapping[Pair, float]
    pooled: float
    noise: Noise
    beside: Residual = Residual()

    @classmethod
    def of(cls, block: Block, noise: Noise, beside: Residual = Residual()) -> Layout:
        """The layout of ``block``."""
        variances = variances_of(block)
        values = dict(zip(block.methods, block.values, strict=True))
        pooled = (Residual.of(block) + beside).variance if beside.freedom else mean_of(variances.values())
        return cls(block, values, variances, pooled, noise, beside)

    def ratio(self, pair: Pair) -> float:
        """The pair's noise relative to that of all pairs, where above :data:`NOISIER`; 1 otherwise."""
        if len(self.block.methods) < 3:
            return 1.0  # of two methods the only pair has its own variance
        own = self.variances.get(pair, self.variances.get(pair[::-1], math.nan))
        known = self.noise.ratios
        ratio = known.get(pair, known.get(pair[::-1], own / self.pooled if self.pooled else 1.0))
        return ratio if ratio > (NOISIER_OF_THREE if len(self.block.methods) == 3 else NOISIER) else 1.0

    def variance(self, pair: Pair) -> float:
        """The mean over all pairs, times the pair's :meth:`ratio`."""
        return self.pooled * self.ratio(pair)

    def freedom(self, pair: Pair) -> float:
        """Degrees of freedom of :meth:`variance` after Satterthwaite (1946).

        A noisy pair's own share, s = 1 - 1 / ratio, is known from its units - 1 differences alone, which are
        among those that the variance of all pairs, of F degrees, is known from:
        1 / (s^2 / (units - 1) + (1 - s^2) / F).
        """
        units = len(self.block.units) - 1
        own = (1 - 1 / self.ratio(pair)) ** 2
        return 1 / (own / units + (1 - own) / self._freedom_of_all) if units else 0.0

    @functools.cached_property
    def _freedom_of_all(self) -> float:
        """Of the variance of all pairs: (methods - 1) (units - 1), less where few methods make up most of it.

        Box's (1954) factor for methods of variances w, which sum to their number m:
        (m - 1) / ((1 - 2 / m) sum w^2 + 1). The scatter of w that equal methods show over several blocks is
        taken off, as Huynh and Feldt (1976) do; one block alone cannot tell it from unequal noise.
        """
        methods, units = len(self.block.methods), len(self.block.units) - 1
        if methods < 3 or not self.pooled > 0:
            return float((methods - 1) * units + self.beside.freedom)
        weights = self._weights
        squares = float((weights**2).sum())
        if self.noise.blocks:
            squares /= 1 + 2 / (self.noise.blocks * units)
        share = (methods - 1) / ((1 - 2 / methods) * max(squares, methods) + 1)
        return max(1.0, share * (methods - 1)) * units + self.beside.freedom

    @property
    def _weights(self) -> stats.Floats:
        """Variance of each method relative to the mean of all, from what the ratios of its pairs sum to."""
        methods = self.block.methods
        known = self.noise.ratios
        sums = dict.fromkeys(methods, 0.0)
        for pair in itertools.combinations(methods, 2):
            ratio = known.get(pair, known.get(pair[::-1], 1.0))
            for method in pair:
                sums[method] += ratio
        weights = np.array([max(0.0, 2 * total - len(methods)) for total in sums.values()])
        return weights * len(methods) / weights.sum() if weights.any() else np.ones(len(methods))


def compare_pairs(
    question: str, task: str, block: Block, noise: Noise, beside: Residual = Residual()
) -> list[Claim]:
    """Every pair of the block's methods, in their order; ``beside`` as :class:`Layout` has it."""
    layout = Layout.of(block, noise, beside)
    return [compare_pair(question, task, layout, pair) for pair in itertools.combinations(block.methods, 2)]


def compare_pair(question: str, task: str, layout: Layout, pair: Pair) -> Claim:
    """Compare a pair on the block's units: the t-test of a two-way layout, with a noisy pair's own variance."""
    block = layout.block
    n = len(block.units)
    differences = layout.values[pair[0]] - layout.values[pair[1]]
    variance = layout.variance(pair)
    freedom = layout.freedom(pair)
    mean = float(differences.mean())
    error = math.sqrt(variance / n) if n > 1 else math.nan
    spread = n > 1 and error > 1e-12  # units that agree to the last digit tell nothing of others
    half = stats.t_quantile((1 + stats.CONFIDENCE) / 2, freedom) * error if spread else math.nan
    slack = block.slack.get(frozenset(pair), 0.0)
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
        p_raw=_p_value(max(abs(mean) - slack, 0.0), error, freedom),
        slack=slack,
    )


def _p_value(difference: float, error: float, freedom: float) -> float:
    """Two-sided p of the t-test; undefined without variation, unless nothing differs."""
    if not math.isfinite(error) or error <= 1e-12:
        return 1.0 if difference == 0 else math.nan
    return float(2 * scipy.special.stdtr(freedom, -abs(difference / error)))


def mean_of(values: Iterable[float]) -> float:
    """Arithmetic mean; undefined of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else math.nan
