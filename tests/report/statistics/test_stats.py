"""Statistics against SciPy, scikit-posthocs, statsmodels, hand-made cases and simulated coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from shrinkbench.report.statistics import ranks
from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.curves import SAME, Curve

patient = settings(deadline=None)  # a busy machine is no failure
finite = st.floats(-1e3, 1e3, allow_nan=False)


@patient
@given(st.lists(finite, min_size=2, max_size=30))
def test_summary_agrees_with_numpy_and_scipy(values):
    s = stats.summarise(values)
    assert s.n == len(values)
    assert s.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert s.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if s.std > 1e-6:
        low, high = scipy_stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy_stats.sem(values))
        assert (s.low, s.high) == pytest.approx((low, high), abs=1e-6)


def test_summary_of_one_value_has_no_spread():
    s = stats.summarise([0.5, math.nan])
    assert (s.mean, s.n) == (0.5, 1)
    assert all(math.isnan(x) for x in (s.std, s.low, s.high))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_mean_interval_has_nominal_coverage(n):
    rng = np.random.default_rng(n)
    draws = rng.normal(2.0, 3.0, (4000, n))
    hits = sum(s.low <= 2.0 <= s.high for s in map(stats.summarise, draws))
    assert hits / 4000 == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


@pytest.mark.parametrize("n", [3, 5, 12, 25, 40])
@pytest.mark.parametrize("truth", [0.0, 0.8])
def test_effect_interval_has_nominal_coverage(n, truth):
    rng = np.random.default_rng([n, int(10 * truth)])
    effects = [stats.effect_size(rng.normal(truth, 1.0, n), seed=i) for i in range(400)]
    hits = np.mean([e.low <= truth <= e.high for e in effects])
    assert hits == pytest.approx(0.95, abs=0.03)  # 2.75 standard errors
    assert {e.interval for e in effects} == {"noncentral t" if n < 40 else "bootstrap"}


def test_noncentral_t_agrees_with_scipy_where_scipy_computes_it():
    for t, freedom, centre in [(1.0, 2, 0.5), (-2.0, 4, 1.0), (6.0, 9, 4.0), (0.0, 3, -1.0)]:
        ours = stats._noncentral_t_below(t, freedom, centre)
        assert ours == pytest.approx(scipy_stats.nct.cdf(t, freedom, centre), abs=5e-4)


@pytest.mark.parametrize("n", range(2, 12))
def test_warning_says_exactly_when_the_rank_test_cannot_succeed(n):
    smallest = scipy_stats.wilcoxon(np.arange(1.0, n + 1)).pvalue
    assert bool(stats.too_few(n)) == (smallest > 0.05)


@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_holm_agrees_with_statsmodels(n):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(n).random(n) ** 3
    assert stats.holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_holm_leaves_undefined_values_out_of_the_count():
    adjusted = stats.holm([0.01, math.nan, 0.02])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.02])
    assert math.isnan(adjusted[1])


@patient
@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=5))
def test_ranks_agree_with_scipy_ties_included(table):
    expected = scipy_stats.rankdata(-np.array(table), axis=1)
    assert (ranks.rank_methods(table).ranks == expected).all()


def test_a_constant_difference_is_no_evidence_by_the_t_test():
    d = np.array([0.51, 0.61]) - np.array([0.50, 0.60])
    assert math.isnan(stats.paired_t(d))
    assert math.isnan(stats.effect_size(d).value)


def test_the_paired_test_agrees_with_scipy():
    a, b = np.random.default_rng(1).normal(0.9, 0.02, (2, 9))
    assert stats.paired_t(a - b) == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue)
    assert stats.paired_t([0.0, 0.0]) == 1.0


def test_ranking_leaves_incomplete_blocks_out():
    ranking = ranks.rank_methods([[0.9, 0.8, 0.7], [0.9, math.nan, 0.7], [0.8, 0.9, 0.1]])
    assert ranking.blocks == 2
    assert ranking.mean_ranks == pytest.approx([1.5, 1.5, 3.0])


def test_largest_compression_within_one_percent():
    assert stats.largest_within([2, 4, 8], [0.93, 0.92, 0.911], 0.92) == 8
    assert stats.largest_within([8, 2, 4], [0.91, 0.93, 0.9099], 0.92) == 2
    assert stats.largest_within([2, 4], [0.5, 0.92], 0.92) == 1


def test_the_mean_is_the_exact_integral_of_a_line_in_log_x():
    x = np.array([1.0, 2, 4, 8, 16, 32])
    curve = Curve("t", "m", 0, x, 0.9 - 0.1 * np.log2(x))
    assert curve.mean(1, 32) == pytest.approx(0.9 - 0.1 * 2.5)
    assert curve.mean(3, 5) == pytest.approx(0.9 - 0.1 * np.log2(15) / 2)
    assert math.isnan(curve.mean(1, 64))


@patient
@given(st.lists(st.tuples(st.floats(1, 64), st.floats(0, 1)), min_size=1, max_size=6), st.floats(0.5, 128))
def test_a_curve_between_its_points_is_numpys(points, level):
    x, y = map(np.array, zip(*sorted(points), strict=True))
    value = Curve("t", "m", 0, x, y).at(level)
    near = np.abs(x / level - 1) < SAME
    if near.any():
        assert value == pytest.approx(np.mean([y[x == place].mean() for place in np.unique(x[near])]))
    else:
        expected = stats.interpolate(x, y, [level])[0]
        assert value == pytest.approx(expected, nan_ok=True)


@patient
@given(st.floats(0.1, 100))
def test_curves_are_never_extrapolated(at):
    value = stats.interpolate([2, 8, 4], [0.9, 0.7, 0.8], [at])[0]
    if 2 <= at <= 8:
        assert value == pytest.approx(1.0 - 0.1 * np.log2(at))
    elif not 2 * (1 - 1e-9) <= at <= 8 * (1 + 1e-9):
        assert math.isnan(value)


def test_the_block_test_of_two_methods_is_the_paired_t_test():
    d = np.random.default_rng(3).normal(0.3, 1, 8)
    (p,) = stats.paired_t_in_blocks([d], freedom=7)
    assert p == pytest.approx(scipy_stats.ttest_1samp(d, 0).pvalue)


def test_the_block_test_pools_the_residual_of_the_two_way_layout():
    values = np.random.default_rng(5).normal(size=(4, 6)) + np.arange(6)  # methods x seeds, seeds differ
    residual = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    freedom = 3 * 5
    error = np.sqrt(2 * (residual**2).sum() / freedom / 6)
    pairs = list(itertools.combinations(range(4), 2))
    differences = [values[a] - values[b] for a, b in pairs]
    expected = [2 * scipy_stats.t.sf(abs(d.mean()) / error, freedom) for d in differences]
    p = stats.paired_t_in_blocks(differences, freedom=freedom)
    noisier = [d.std(ddof=1) > error * np.sqrt(6) for d in differences]
    assert p[~np.array(noisier)] == pytest.approx(np.array(expected)[~np.array(noisier)])
    assert (p[noisier] > np.array(expected)[noisier]).all()


@pytest.mark.parametrize("freedom", [1, 2, 9, 38])
@pytest.mark.parametrize("t", [0.0, 0.5, -3.0, 30.0, 1e3, 1e9])
@pytest.mark.parametrize("probability", [0.025, 0.975])
def test_the_noncentrality_found_has_the_probability_asked_for(t, freedom, probability):
    centre = stats._centre_of(t, freedom, probability)
    near = [stats._noncentral_t_below(t, freedom, centre + step) for step in (1e-4 * (1 + abs(t)), 0.0)]
    near.append(stats._noncentral_t_below(t, freedom, centre - 1e-4 * (1 + abs(t))))
    assert near[0] <= probability <= near[2]
