"""The seeds that a report promises find what it promises: at the level that the correction holds a pair to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from shrinkbench.report.statistics.claims import SHARES, found_with, judge_curves, more_units
from shrinkbench.report.statistics.curves import Curve

LEVELS = (2.0, 4.0, 8.0, 16.0, 32.0)
X = np.array([1.0, *LEVELS])


def judged(random, *, methods=4, seeds=3, spread=0.01, lead=0.0):
    """Curves of which a method's seed is off by one amount at all levels; the first method leads."""
    found = [
        Curve(
            "t",
            f"m{m}",
            seed,
            X,
            0.9 + np.r_[0, np.full(5, spread * random.standard_normal() + lead * (m < 1))],
        )
        for m in range(methods)
        for seed in range(seeds)
    ]
    return judge_curves(found, LEVELS, places={})


def test_undecided_pairs_of_equal_spread_need_equally_many_seeds_whatever_their_p():
    random = np.random.default_rng(0)
    stores = (judged(random, lead=0.02).tasks[0].pairs for _ in range(200))
    pairs = next(
        pairs
        for pairs in stores
        if {True, False} == {pair.p < 1 for pair in pairs} and min(p.p for p in pairs) > 0.05
    )
    needed = {round(pair.deviation, 12): set() for pair in pairs}
    for pair in pairs:
        needed[round(pair.deviation, 12)].add((more_units(pair, margin=0.01), round(found_with(pair), 12)))
    assert all(len(found) == 1 for found in needed.values())


@pytest.mark.parametrize("lead", [0.0, 0.05])
def test_the_level_is_a_pairs_weight_over_those_of_what_is_not_told_apart(lead):
    claims = judged(np.random.default_rng(1), lead=lead)
    (task,) = claims.tasks
    levels = [level.claim for level in task.levels]
    everything = [*((c, SHARES["range"] / len(task.pairs)) for c in task.pairs)]
    everything += [(c, (SHARES["level"] + SHARES["tasks"]) / len(levels)) for c in levels]
    for claim, weight in everything:
        others = sum(w for other, w in everything if not other.decided and other is not claim)
        assert claim.share == pytest.approx(weight / (weight + others))
        assert claim.decided == any(claim is c for c, _ in everything if c.p < 0.05)
    assert any(claim.decided for claim in task.pairs) == (lead > 0)


def test_seeds_needed_as_scipy_counts_them():
    for pair in judged(np.random.default_rng(0)).tasks[0].pairs:
        more = more_units(pair, margin=0.01)

        def power(n, claim=pair):
            freedom = claim.freedom / (claim.n - 1) * (n - 1)
            threshold = scipy.stats.t.ppf(1 - 0.05 * claim.share / 2, freedom)
            return scipy.stats.nct.sf(threshold, freedom, 0.01 / claim.deviation * math.sqrt(n))

        assert power(pair.n + more) >= 0.8 - 1e-3
        assert power(pair.n + more - 1) < 0.8 + 1e-3


@pytest.mark.parametrize("methods", [2, 4])
def test_the_promised_seeds_find_the_difference(methods):
    """In 80 % of stores or more: what else is told apart on the way makes it easier."""
    random = np.random.default_rng(2)
    spread = 0.01
    planned = next(
        pair
        for claims in (judged(random, methods=methods, spread=spread) for _ in range(200))
        for pair in claims.tasks[0].pairs
        if pair.p == 1 and abs(pair.deviation / spread / math.sqrt(2) - 1) < 0.05
    )
    share = 1 - 0.5 * math.log(2) / math.log(32)  # all begin at one control
    margin = planned.deviation
    seeds = planned.n + more_units(planned, margin=margin)
    found = [
        judged(random, methods=methods, seeds=seeds, spread=spread, lead=margin / share).tasks[0].pairs
        for _ in range(150)
    ]
    hits = np.mean([pair.decided for pairs in found for pair in pairs if pair.involves("m0")])
    assert hits > 0.8 - 3 * math.sqrt(0.8 * 0.2 / 150)
