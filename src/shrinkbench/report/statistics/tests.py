"""Statistics of repeated runs: pure functions of arrays, apart from tables and drawing.

``values`` are one number per independent repetition (usually per seed); differences are paired: both methods
on the same dataset, network, initial weights, compression and seed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy  # loads its parts at their first use, which figures do without
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.95
ALPHA = 0.05
BOOTSTRAP_RESAMPLES = 2000
PRECISION = 1e-6
"""To which share a noncentrality is sought."""
FEWEST_FOR_BOOTSTRAP = 40
"""Below this many pairs a bootstrap interval covers too rarely; an exact one under normality stands in."""


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (n - 1), n, and the t interval of the mean."""

    mean: float
    std: float
    n: int
    low: float
    high: float


def summarise(values: ArrayLike, *, confidence: float = CONFIDENCE) -> Summary:
    """Centre and spread of repeated measurements.

    The interval is mean +- t(n-1) std / sqrt(n); with a single value there is neither spread nor interval.

    >>> s = summarise([1.0, 2.0, 3.0])
    >>> s.mean, s.std, s.n, round(s.low, 3), round(s.high, 3)
    (2.0, 1.0, 3, -0.484, 4.484)
    """
    x = _finite(values)
    n = len(x)
    mean = float(x.mean()) if n else math.nan
    if n < 2:
        return Summary(mean, math.nan, n, math.nan, math.nan)
    std = float(x.std(ddof=1))
    half = half_width(n, confidence=confidence) * std
    return Summary(mean, std, n, mean - half, mean + half)


def half_width(n: int, *, confidence: float = CONFIDENCE) -> float:
    """Half the t interval of a mean of ``n`` values, in standard deviations; undefined below two values."""
    return t_quantile((1 + confidence) / 2, n - 1) / math.sqrt(n) if n > 1 else math.nan


@functools.lru_cache(maxsize=256)
def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution."""
    return float(scipy.special.stdtrit(freedom, probability))


@dataclass(frozen=True)
class Effect:
    """Standardised mean difference with its interval, and how the interval was made."""

    value: float
    low: float
    high: float
    interval: str


def effect_size(differences: ArrayLike, *, confidence: float = CONFIDENCE, seed: int = 0) -> Effect:
    """Mean of the paired differences over their sample standard deviation (Cohen's d_z).

    From 40 pairs on the interval is a BCa bootstrap (2,000 resamples); below, where a bootstrap covers too
    rarely, it inverts the noncentral t distribution, which is exact for normal differences.
    """
    d = _finite(differences)
    n = len(d)
    if n < 2 or _constant(d):
        return Effect(math.nan, math.nan, math.nan, "none: no variation to compare with")
    value = float(d.mean() / d.std(ddof=1))
    if n < FEWEST_FOR_BOOTSTRAP:
        low, high = _noncentral_t_interval(value, n, confidence)
        return Effect(value, low, high, "noncentral t")
    bounds = scipy.stats.bootstrap(
        (d,),
        _cohens_d,
        n_resamples=BOOTSTRAP_RESAMPLES,
        confidence_level=confidence,
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Effect(value, float(bounds.low), float(bounds.high), "bootstrap")


def _cohens_d(x: Floats, axis: int = -1) -> Floats:
    spread = x.std(axis=axis, ddof=1)
    values: Floats = x.mean(axis=axis) / np.where(spread > 0, spread, np.nan)
    return values


def _noncentral_t_interval(value: float, n: int, confidence: float) -> tuple[float, float]:
    """All noncentralities under which the observed t is not extreme, over sqrt(n)."""
    observed, tail = value * math.sqrt(n), (1 - confidence) / 2
    low, high = (_centre_of(observed, n - 1, probability) for probability in (1 - tail, tail))
    return low / math.sqrt(n), high / math.sqrt(n)


def _centre_of(t: float, freedom: int, probability: float) -> float:
    """The noncentrality under which T <= t has this ``probability``, which falls with it.

    Newton's method from the normal distribution of equal mean and variance; where a step leads out of what
    encloses the answer, that is halved.
    """
    places = t * _chi_quantiles(freedom)
    normal = float(scipy.special.ndtri(probability))
    centre = float(places.mean()) - normal * math.sqrt(1 + float(places.var()))
    reach, close = 10.0 + 10.0 * abs(t), PRECISION * (1 + abs(t))
    low, high = t - reach, t + reach
    while high - low > close:
        if not low < centre < high:
            centre = (low + high) / 2
        away = places - centre
        excess = float(scipy.special.ndtr(away).mean()) - probability
        low, high = (centre, high) if excess > 0 else (low, centre)
        slope = float(np.exp(-0.5 * away * away).mean()) / math.sqrt(2 * math.pi)
        step = excess / slope if slope > 0 else math.inf
        if abs(step) < close:
            return centre + step
        centre += step
    return (low + high) / 2


def _noncentral_t_below(t: float, freedom: float, centre: float) -> float:
    """P(T <= t) as the mean of Phi(t s - centre) over s = sqrt(chi2 / freedom).

    SciPy's own distribution function is undefined far from its centre, where three seeds often lie.
    """
    return float(scipy.special.ndtr(t * _chi_quantiles(freedom) - centre).mean())


@functools.lru_cache(maxsize=64)
def _chi_quantiles(freedom: int) -> Floats:
    middles = (np.arange(250) + 0.5) / 250
    return np.asarray(np.sqrt(2 * scipy.special.gammaincinv(freedom / 2, middles) / freedom))


def paired_t(differences: ArrayLike) -> float:
    """Two-sided p of the one-sample t-test against zero; undefined where the differences do not vary."""
    d = _finite(differences)
    if len(d) < 2 or _constant(d):
        return 1.0 if len(d) and not d.any() else math.nan
    t = d.mean() / (d.std(ddof=1) / math.sqrt(len(d)))
    return float(2 * scipy.special.stdtr(len(d) - 1, -abs(t)))


def paired_t_in_blocks(differences: Sequence[ArrayLike], *, freedom: int) -> Floats:
    """Two-sided p of every mean difference between methods that ran on the same blocks (seeds).

    ``differences`` has one array per pair of methods, one value per block; ``freedom`` is (methods - 1) x
    (blocks - 1). The variance is the mean over pairs, which over all pairs of complete blocks is twice the
    residual mean square of the two-way layout, or a pair's own where that is larger: noise need not be alike
    for all methods. Of a single pair it is the paired t-test.
    """
    arrays = [_finite(d) for d in differences]
    variances = np.array([d.var(ddof=1) if len(d) > 1 else np.nan for d in arrays])
    counts = np.array([len(d) for d in arrays])
    means = np.array([d.mean() if len(d) else np.nan for d in arrays])
    pooled = np.nanmean(variances) if np.isfinite(variances).any() else np.nan
    error = np.sqrt(np.fmax(variances, pooled) / counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        p: Floats = 2 * scipy.special.stdtr(freedom, -np.abs(means / error))
    return p


def holm(p_values: ArrayLike, *, weights: ArrayLike | None = None) -> Floats:
    """Holm's step-down correction (1979): adjusted p-values in the order given; undefined ones stay out.

    With ``weights`` (alike by default) a hypothesis is held to its share of the level among those that are not
    yet rejected: adjusted p = max over smaller p / weight of p times the weights left over its own.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    >>> holm([0.02, 0.02], weights=[3, 1]).round(3).tolist()
    [0.027, 0.027]
    """
    p = np.asarray(p_values, dtype=float)
    share = np.ones_like(p) if weights is None else np.asarray(weights, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known] / share[known], kind="stable")]
    left = np.cumsum(share[order][::-1])[::-1]
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * left / share[order]), 1.0)
    return adjusted


def too_few(n: int, *, alpha: float = ALPHA) -> str:
    """Why ``n`` pairs cannot carry a claim at level ``alpha``; empty where they can.

    The signed-rank test's smallest two-sided p is 2 ** (1 - n).
    """
    if n < 2:
        return f"n = {n}: one measurement shows no spread; nothing can be claimed"
    if 2.0 ** (1 - n) > alpha:
        needed = math.ceil(1 - math.log2(alpha))
        return (
            f"n = {n}: a rank test cannot reach p < {alpha:g} with fewer than {needed} pairs; "
            "the t-test rests on normality alone"
        )
    return ""


def power_of_t(centre: float, freedom: float, *, alpha: float = ALPHA) -> float:
    """Probability that a two-sided t-test rejects where its statistic has noncentrality ``centre``."""
    threshold = t_quantile(1 - alpha / 2, freedom)
    above = 1 - _noncentral_t_below(threshold, freedom, centre)
    return above + _noncentral_t_below(-threshold, freedom, centre)


def largest_within(
    compression: ArrayLike, accuracy: ArrayLike, control: float, *, tolerance: float = 0.01
) -> float:
    """Largest measured compression up to which accuracy stays within ``tolerance`` of the control.

    Measured points only, nothing between or beyond them; 1 where the first already falls below.

    >>> largest_within([2, 4, 8, 16], [0.92, 0.915, 0.90, 0.915], 0.92)
    4.0
    """
    x, y = points_in_order(compression, accuracy)
    below = np.flatnonzero(y < control - tolerance - 1e-12)
    end = int(below[0]) if len(below) else len(x)
    return float(x[end - 1]) if end else 1.0


def interpolate(x: ArrayLike, y: ArrayLike, at: ArrayLike, *, tolerance: float = 1e-9) -> Floats:
    """Values of a curve at ``at``: linear in log ``x``, never beyond the measured range (NaN there).

    ``tolerance`` is relative: a level that far outside an end still takes the end's value.
    """
    x, y = points_in_order(x, y)
    levels = np.asarray(at, dtype=float)
    if not len(x):
        return np.full_like(levels, np.nan)
    values: Floats = np.interp(np.log(levels), np.log(x), y)
    inside = (levels >= x[0] * (1 - tolerance)) & (levels <= x[-1] * (1 + tolerance))
    values[~inside] = np.nan
    return values


def points_in_order(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Points in order of x; points of one x are averaged, incomplete ones dropped."""
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(xs) & np.isfinite(ys)
    if known.all() and bool((xs[1:] > xs[:-1]).all()):
        return xs, ys
    places, index = np.unique(xs[known], return_inverse=True)
    means: Floats = np.bincount(index, weights=ys[known]) / np.maximum(np.bincount(index), 1)
    return places, means


def _finite(values: ArrayLike) -> Floats:
    x: Floats = np.asarray(values, dtype=float).ravel()
    return x[np.isfinite(x)]


def _constant(x: Floats) -> bool:
    """Whether the values differ by no more than rounding of their last digits."""
    return bool(np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())))
