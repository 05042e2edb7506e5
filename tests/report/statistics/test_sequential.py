"""Seeds that are added until a comparison is decided: boundaries, looks, and what holds over all of them."""

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm
from statsmodels.formula.api import ols

from shrinkbench.report.statistics.blocks import common_block
from shrinkbench.report.statistics.claims import judge_curves
from shrinkbench.report.statistics.curves import Curve, _hole
from shrinkbench.report.statistics.observations import Design
from shrinkbench.report.statistics.sequential import race
from shrinkbench.report.statistics.spending import Looks, boundaries, spent
from shrinkbench.spec import UntilDecided

LEVELS = (2.0, 4.0, 8.0)
POINT = 0.01
SPENDINGS = ["obrien-fleming", "kim-demets", "pocock"]


def test_boundaries_equal_published_tables():
    # Lan-DeMets spending at two-sided 5 %, five equal looks: Reboussin et al. (2000), ldbounds; Jennison and
    # Turnbull (2000), chapter 7
    fifths = (0.2, 0.4, 0.6, 0.8, 1.0)
    assert boundaries(0.05, fifths, "obrien-fleming") == pytest.approx(
        (4.8769, 3.3569, 2.6803, 2.2898, 2.0310), abs=2e-4
    )
    assert boundaries(0.05, fifths, "pocock") == pytest.approx(
        (2.4380, 2.4268, 2.4101, 2.3966, 2.3859), abs=2e-4
    )
    assert boundaries(0.05, (0.5, 1.0), "obrien-fleming") == pytest.approx((2.9626, 1.9686), abs=2e-4)


@pytest.mark.parametrize("spending", SPENDINGS)
def test_sums_of_normal_numbers_stay_within_the_boundaries_as_often_as_may_be(spending):
    # the integral against SciPy's distribution of all looks at once
    shares = np.array([0.3, 0.5, 0.8, 1.0])
    z = np.array(boundaries(0.05, tuple(shares), spending))
    together = np.sqrt(np.minimum.outer(shares, shares) / np.maximum.outer(shares, shares))
    for looks in range(1, len(shares) + 1):
        normal = multivariate_normal(np.zeros(looks), together[:looks, :looks], seed=0, abseps=1e-7)
        inside = normal.cdf(z[:looks], lower_limit=-z[:looks])
        assert 1 - inside == pytest.approx(spent(0.05, shares[looks - 1], spending), abs=2e-5)


@pytest.mark.parametrize("spending", SPENDINGS)
def test_what_is_spent_ends_at_the_level_and_a_single_look_is_a_plain_test(spending):
    assert spent(0.03, 1.0, spending) == pytest.approx(0.03)
    assert boundaries(0.05, (1.0,), spending) == pytest.approx((1.959964,), abs=1e-5)


@given(look=st.integers(0, 7), level=st.floats(1e-6, 0.4), spending=st.sampled_from(SPENDINGS))
@settings(max_examples=30, deadline=None)
def test_a_boundary_is_crossed_at_its_level_and_not_below(look, level, spending):
    looks = Looks(tuple(range(3, 11)), 10, spending, methods=5)
    z = boundaries(level, looks.shares, spending)[look]
    assert looks.crossed(2 * norm.sf(z), look) == pytest.approx(level, rel=0.02)
    assert looks.crossed(2 * norm.sf(z - 0.1), look) > level
    assert looks.attained(level) >= level


def made(skills, *, seeds=10, noise=0.8 * POINT, random=None, task="t"):
    """Curves of methods that lose ``skills`` below a common curve; ``noise`` is of all, or of each."""
    random = random or np.random.default_rng(0)
    noises = np.broadcast_to(noise, len(skills))
    shared = random.normal(0, 0.5 * POINT, seeds)
    x = np.r_[1.0, LEVELS]
    return [
        Curve(
            task,
            f"m{number}",
            seed,
            x,
            0.9 + shared[seed] - np.r_[0, np.full(3, skill) + noises[number] * random.standard_normal(3)],
        )
        for number, skill in enumerate(skills)
        for seed in range(seeds)
    ]


def raced(curves, **rules):
    by_task = defaultdict(list)
    for curve in curves:
        by_task[curve.task].append(curve)
    chosen = UntilDecided(**rules)
    return race(by_task, LEVELS, Design(chosen, tuple(range(chosen.max_seeds))))


def until(curves, seeds):
    return [c for c in curves if c.seed < seeds]


def used(found, methods):
    stopped = {stop.method: stop.seeds for stop in found.stops}
    return {f"m{m}": stopped.get(f"m{m}", len(found.seeds)) for m in range(methods)}


def test_a_large_lead_stops_early_and_the_worse_first():
    (found,) = raced(made([0, 2 * POINT, 20 * POINT]))
    assert found.state == "decided"
    seeds = used(found, 3)
    assert seeds["m2"] <= seeds["m1"] < 10
    assert {c.decided for c in found.pairs if c.involves("m0")} == {True}


def test_what_the_places_of_runs_may_make_decides_no_race():
    """One method's networks are a little larger, and all collapse between its runs and those of others."""
    alike = made([0, 0, 0], noise=0.1 * POINT)
    own = [Curve("t", "own", c.seed, np.r_[1, c.x[1:] / 1.09], c.y) for c in alike if c.method == "m0"]
    fallen = [Curve("t", c.method, c.seed, c.x, c.y - np.r_[0, 0, 0, 20 * POINT]) for c in alike]
    (found,) = raced([*fallen, *own], margin=2 * POINT)
    claims = [c if c.first == "own" else c.reversed for c in found.pairs if c.involves("own")]
    assert claims
    assert all(c.difference > POINT and c.slack > POINT and not c.decided for c in claims)


def test_methods_are_alike_where_places_cannot_make_up_for_the_margin():
    alike = made([0, 0], noise=0.1 * POINT)
    fallen = [Curve("t", c.method, c.seed, c.x, c.y - np.r_[0, 0, 0, 20 * POINT]) for c in alike]
    own = [Curve("t", c.method, c.seed, np.r_[1, c.x[1:] / 1.09], c.y) for c in fallen if c.method == "m1"]
    (found,) = raced([c for c in fallen if c.method == "m0"] + own, margin=1.2 * POINT)
    (claim,) = found.pairs
    assert max(-claim.low, claim.high) < 1.2 * POINT < max(-claim.low, claim.high) + claim.slack
    assert found.state != "alike"


@given(st.integers(0, 10**6), st.sampled_from([0.0, POINT, 3 * POINT]), st.sampled_from([None, 0.004]))
@settings(max_examples=25, deadline=None)
def test_looks_do_not_depend_on_what_was_run_later(number, lead, margin):
    """Stopped and gone on is as if not stopped; seeds beyond those of a method's last look say nothing."""
    curves = made([0, lead, lead, 2 * lead], random=np.random.default_rng(number))
    (whole,) = raced(curves, margin=margin)
    needed = used(whole, 4)
    (again,) = raced([c for c in curves if c.seed < needed[c.method]], margin=margin)
    assert (again.state, again.stops, again.seeds, again.pairs) == (
        whole.state,
        whole.stops,
        whole.seeds,
        whole.pairs,
    )
    (early,) = raced(until(curves, 4), margin=margin)
    assert early.stops == tuple(stop for stop in whole.stops if stop.seeds <= 4)
    assert all(n <= 10 for n in needed.values())


@given(st.integers(0, 10**6), st.sampled_from([0.0, POINT, 3 * POINT]))
@example(758554, 0.0)  # m1 is given up against m2 at the first look, m0 told apart from m2 at a later one
@example(208, POINT)
@settings(max_examples=25, deadline=None)
def test_state_pairs_and_reasons_agree(number, lead):
    curves = made([0, lead, 2 * lead], random=np.random.default_rng(number))
    (found,) = raced(curves)
    order = [found.block.methods[i] for i in np.argsort(-found.block.means)]
    best = [c for c in found.pairs if c.involves(order[0])]
    if found.state == "decided":
        assert all(c.decided for c in best)
        assert len(found.active) == 1
    if found.state in ("futile", "exhausted"):
        assert not all(c.decided for c in best)
    for stop in found.stops:
        if stop.why.startswith("told apart"):
            lost = [c for c in found.pairs if c.involves(stop.method) and c.decided]
            assert any((c.second if c.difference > 0 else c.first) == stop.method for c in lost)
    claims = judge_curves(curves, LEVELS, places={}, design=Design(UntilDecided(), tuple(range(10))))
    assert claims.tasks[0].pairs == found.pairs
    assert not any(level.claim.decided for level in claims.tasks[0].levels if level.claim)


def test_intervals_are_wider_than_those_of_one_look():
    curves = until(made([0, POINT]), 5)
    (found,) = raced(curves)
    fixed = judge_curves(curves, LEVELS, places={}).tasks[0].pairs[0]
    assert found.pairs[0].difference == pytest.approx(fixed.difference)
    assert found.pairs[0].high - found.pairs[0].low > 1.2 * (fixed.high - fixed.low)
    assert found.pairs[0].p_raw > fixed.p_raw


def test_methods_that_stopped_still_tell_of_the_noise():
    """Against least squares of all runs that were looked at, a method's on as many seeds as it took."""
    skills = [0, 0.1 * POINT, 30 * POINT, 31 * POINT, 1.5 * POINT]
    curves = made(skills, random=np.random.default_rng(5))
    (found,) = raced(curves)
    seeds = used(found, len(skills))
    assert len(set(seeds.values())) > 1
    block = common_block(curves)
    rows = [
        {"method": method, "seed": seed, "value": block.values[row, seed]}
        for row, method in enumerate(block.methods)
        for seed in range(seeds[method])
    ]
    fit = ols("value ~ C(method) + C(seed)", pd.DataFrame(rows)).fit()
    last = [c for c in found.pairs if c.n == len(found.seeds)]
    assert {c.freedom for c in last} == {fit.df_resid}
    assert [c.deviation**2 for c in last] == pytest.approx([2 * fit.mse_resid] * len(last))


def test_quiet_methods_that_stopped_say_nothing_of_noisier_ones():
    skills, noise = [0, 0.1 * POINT], [0.8 * POINT] * 2
    for number in range(1, 8):
        skills.append(30 * number * POINT)
        noise.append(0.05 * POINT)
    (found,) = raced(made(skills, noise=noise, random=np.random.default_rng(3)))
    assert found.block.methods == ("m0", "m1")
    (pair,) = [c for c in found.pairs if {c.first, c.second} == {"m0", "m1"}]
    assert pair.freedom == pair.n - 1
    assert pair.deviation == pytest.approx(np.std(pair.differences, ddof=1))


def test_a_method_whose_amounts_of_a_seed_vary_alike_is_known_to_be_noisier():
    """At each amount alone it varies as all do; over the range, where that of the others evens out, by more."""
    random, x = np.random.default_rng(0), np.r_[1.0, 2.0 ** np.arange(1, 9)]
    curves = []
    for method, seed in np.ndindex(8, 4):
        noise = random.standard_normal() if method == 0 else random.standard_normal(8)
        curves.append(Curve("t", f"m{method}", seed, x, 0.9 + POINT * np.r_[0, noise * np.ones(8)]))
    rules = UntilDecided(first_look=4, max_seeds=4)
    (found,) = race({"t": curves}, x[1:].tolist(), Design(rules, (0, 1, 2, 3)))
    claims = [c for c in found.pairs if c.involves("m0")]
    assert len(claims) == 7
    assert all(1.5 * c.deviation**2 > 0.999 * np.var(c.differences, ddof=1) for c in claims)


def further(skills, reach, spread):
    """Curves to 8 or, of the first ``reach``, 16 times; seeds vary by ``spread`` beyond, and hardly up to 8."""
    random, x = np.random.default_rng(2), np.r_[1.0, LEVELS, 16.0]
    found = []
    for number, skill in enumerate(skills):
        for seed in range(10):
            noise = random.standard_normal(5) * np.r_[0, 0.01, 0.01, 0.01, spread] * POINT
            y = 0.9 - np.r_[0, skill, skill, skill, skill] + noise
            count = 5 if number < reach else 4
            found.append(Curve("t", f"m{number}", seed, x[:count], y[:count]))
    return found


def test_methods_that_stopped_over_a_shorter_range_say_nothing_of_a_longer_one():
    (found,) = raced(further([0, 0, 4 * POINT, 4 * POINT, 4 * POINT], 2, 5.0))
    (claim,) = [c for c in found.pairs if {c.first, c.second} == {"m0", "m1"}]
    assert claim.reach == (1.0, 16.0)
    assert claim.freedom == len(found.seeds) - 1
    assert claim.deviation == pytest.approx(np.std(claim.differences, ddof=1))
    assert not claim.decided


def test_what_was_seen_over_one_range_is_no_evidence_over_another():
    """The first is a little ahead up to 8 times, and nobody is beyond."""
    curves = further([0, 0.02 * POINT, 4 * POINT, 4 * POINT, 4 * POINT], 2, 5.0)
    seen = {}
    for seeds in (3, 4):
        (found,) = raced(until(curves, seeds), spending="pocock")
        for claim in found.pairs:
            if {claim.first, claim.second} == {"m0", "m1"}:
                seen[claim.reach[1]] = claim
    assert seen[8].p_raw < 0.1
    assert seen[16].p_raw > 0.3


def test_equal_methods_are_found_alike_within_a_margin_or_given_up():
    quiet = made([0, 0.0], noise=0.05 * POINT)
    (alike,) = raced(quiet, margin=0.01)
    assert alike.state == "alike"
    assert len(alike.seeds) < 10
    assert all(abs(bound) < 0.01 for bound in (alike.pairs[0].low, alike.pairs[0].high))
    states = [raced(made([0, 0, 0], random=np.random.default_rng(n)))[0].state for n in range(12)]
    assert states.count("futile") > 6


def test_a_failed_run_takes_its_method_out_and_a_missing_one_holds_the_look_up():
    def with_gap(kind):
        return [
            c
            if (c.method, c.seed) != ("m1", 1)
            else Curve(c.task, c.method, c.seed, c.x[:3], c.y[:3], (_hole(c.x[:3], 8.0, kind, "8x"),))
            for c in made([0, POINT, 2 * POINT])
        ]

    (failed,) = raced(with_gap("failed"))
    assert [(s.method, s.seeds) for s in failed.stops][:1] == [("m1", 3)]
    assert "failed" in failed.stops[0].why
    (missing,) = raced(with_gap("missing"))
    assert (missing.state, missing.needs, missing.seeds) == ("waiting", 3, ())


def test_named_methods_alone_are_compared():
    curves = made([0, 2 * POINT, 3 * POINT])
    by_task = {"t": curves}
    (found,) = race(by_task, LEVELS, Design(UntilDecided(), tuple(range(10)), ("m1", "m2")))
    assert {(c.first, c.second) for c in found.pairs} == {("m1", "m2")}


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"first_look": 5, "max_seeds": 4}, "first look needs 5 seeds"),
        ({"compare": ("a",)}, "two methods"),
        ({"compare": ("a", "a")}, "two methods"),
        ({"alpha": 0.0}, "alpha"),
        ({"margin": -1.0}, "margin"),
        ({"futility": 0.5}, "futility"),
    ],
)
def test_rules_that_decide_nothing_are_refused(rules, says):
    with pytest.raises(ValueError, match=says):
        UntilDecided(**rules)


@pytest.mark.slow
@pytest.mark.parametrize("methods", [2, 3, 5])
def test_equal_methods_are_told_apart_in_at_most_five_percent(methods):
    random, stores, wrong = np.random.default_rng(methods), 1500, 0
    for _ in range(stores):
        (found,) = raced(made([0.0] * methods, random=random))
        wrong += any(c.decided for c in found.pairs)
    assert wrong / stores < 0.05 + 3 * (0.05 * 0.95 / stores) ** 0.5
