"""Which methods are compared at once: no entry takes the answers of all others away."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from made_results import make_results

from shrinkbench.report.boards import ALONE, rank_entries
from shrinkbench.report.statistics.blocks import common_block, shared_units
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.curves import Curve, _hole
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.verdict import reach_verdict
from shrinkbench.results.bundle import Bundle

METHODS = ("global_magnitude", "layerwise_magnitude", "global_gradient", "layerwise_gradient", "random")
GRID = (2, 4, 8, 16, 32)


def curves(runs):
    """A curve for every method and seed: {method: (seeds, points)}, the next method a point worse."""
    return [
        Curve(
            "t",
            method,
            seed,
            np.array(points, dtype=float),
            0.9 - 0.01 * place + 0.001 * seed * np.arange(len(points)),
        )
        for place, (method, (seeds, points)) in enumerate(runs.items())
        for seed in seeds
    ]


def named(block):
    return {one.method: one.why for one in block.left_out}


@pytest.mark.parametrize("stray", [{}, {"e": (0, 3)}, {"e": (0, 3), "f": (0, 3)}, {"e": range(6)}])
def test_a_stray_entry_that_shares_a_seed_with_each_takes_no_answer_away(stray):
    seeds = {"a": (0, 1, 2), "b": (0, 1, 2), "c": (3, 4, 5), "d": (3, 4, 5), **stray}
    block = common_block(curves({method: (own, (1, *GRID)) for method, own in seeds.items()}))
    assert {"a", "b"} <= set(block.methods) == {m for m, own in seeds.items() if {0, 1, 2} <= set(own)}
    assert block.units == ("0", "1", "2")
    assert set(named(block)) == set(seeds) - set(block.methods)
    assert named(block)["c"] == "no finished run of seed 0, 1, 2"


@pytest.mark.parametrize("stray", [{}, {"e": (2, 4, 8, 16)}])
def test_a_stray_entry_that_shares_a_range_with_each_takes_no_answer_away(stray):
    points = {"a": (2, 4), "b": (2, 4), "c": (8, 16), "d": (8, 16), **stray}
    block = common_block(curves({method: (range(3), own) for method, own in points.items()}))
    assert set(block.methods) == {"a", "b", *stray}
    assert (block.low, block.high) == (2, 4)
    assert named(block) == {"c": "begins at 8×", "d": "begins at 8×"}


def test_where_everybody_lacks_a_seed_of_his_own_the_largest_group_is_compared():
    seeds = {f"m{n}": [seed for seed in range(5) if seed != n] for n in range(5)}
    block = common_block(curves({method: (own, (1, *GRID)) for method, own in seeds.items()}))
    assert (len(block.methods), len(block.units)) in {(2, 3), (3, 2)}
    assert np.isfinite(block.values).all()


def test_seeds_of_more_than_half_of_the_methods_are_kept_where_more_than_half_have_them_all():
    units = shared_units({"a": [0, 1, 2], "b": [0, 1, 2], "c": [0, 1]}, {"a": [0, 1, 2], "b": [0, 1, 2]})
    assert units == [0, 1, 2]
    assert shared_units({"a": [0, 1], "b": [2]}, {}) == []
    assert shared_units({"a": [0, 1], "b": [1]}, {}, fewest=2) == []
    assert shared_units({"a": [1, 0]}, {}) == [0, 1]


def test_the_group_is_that_with_most_results_by_every_other_choice():
    """Against all sets of seeds, one by one."""
    random = np.random.default_rng(0)
    for _ in range(200):
        has = {f"m{n}": frozenset(random.permutation(5)[: random.integers(1, 6)].tolist()) for n in range(4)}
        found = shared_units(has, has)
        counts = {
            units: sum(set(units) <= own for own in has.values())
            for size in range(1, 6)
            for units in itertools.combinations(range(5), size)
        }
        common = tuple(s for s in range(5) if 2 * sum(s in own for own in has.values()) > 4)
        if counts.get(common, 0) > 2:
            assert tuple(found) == common
            continue
        pairs = {units: count for units, count in counts.items() if count == 2}
        most = max((count * len(units) for units, count in pairs.items()), default=0)
        got = counts.get(tuple(found), 0)
        assert (got > 1 and got * len(found) >= most) or not any(count > 1 for count in counts.values())


def test_failing_wins_no_shorter_range():
    """Two of three fail somewhere: they are not compared up to there because a fourth was run so far only."""
    made = curves({"a": (range(3), (1, 2, 4, 16, 32)), "b": (range(3), (1, *GRID)), "c": (range(3), (1, 2, 4))})
    hole = (_hole(np.array([1.0, 2, 4, 16, 32]), 8.0, "failed", "8x"),)
    made = [Curve(c.task, c.method, c.seed, c.x, c.y, hole if c.method == "a" else ()) for c in made]
    block = common_block(made)
    assert set(block.methods) == {"b", "c"}
    assert (block.low, block.high) == (1, 4)
    assert named(block) == {"a": "3 failed runs (8x; seed 0, 1, 2)"}


def test_failing_leaves_out_no_seed():
    """Two of three failed in seed 2, which the third was not run on: on seeds 0 and 1 they are not compared."""
    made = curves({"a": (range(3), (1, *GRID)), "b": (range(3), (1, *GRID)), "c": (range(2), (1, *GRID))})
    hole = (_hole(np.array([1.0, 2, 4, 16, 32]), 8.0, "failed", "8x"),)
    made = [
        Curve(c.task, c.method, c.seed, c.x[c.x != 8], c.y[c.x != 8], hole if c.seed == 2 else ()) for c in made
    ]
    block = common_block(made)
    assert block.units == ("0", "1", "2")
    assert named(block)["a"] == "1 failed run (8x; seed 2)"
    assert not block.methods


def half_and_half(stray=(0, 3)):
    seeds = dict(zip(METHODS, ((0, 1, 2), (0, 1, 2), (3, 4, 5), (3, 4, 5), stray), strict=True))
    made = make_results(pairs=(("cifar10", "resnet20"),), methods=METHODS, seeds=range(6))
    return [r for r in made if r.spec.seed in seeds[r.spec.method.name]]


def test_the_headline_recommends_and_names_who_is_left_out():
    whole, less = (reach_verdict(observe(half_and_half(stray))).headline for stray in ((0, 3), ()))
    assert whole.startswith("Up to 32× use global_magnitude")
    assert "random (no finished run of seed 1, 2)" in whole
    assert "Other seeds, which too few methods share, were left out: 3, 4 and 5." in whole
    assert whole.split("Not compared")[0] == less.split("Not compared")[0]


def board_of(results):
    bundle = Bundle(name="lab", source=None, plan=None, results=tuple(results), problems=())
    (board,) = rank_entries([bundle], frozenset()).boards
    return board


def test_on_a_leaderboard_no_entry_alone_is_ranked():
    board = board_of(half_and_half())
    ranks = {entry.method: entry.rank for entry in board.entries}
    assert ranks == {METHODS[0]: 1, METHODS[1]: 2, METHODS[2]: None, METHODS[3]: None, METHODS[4]: None}
    apart = [
        r
        for n, m in enumerate(METHODS[:2])
        for r in half_and_half()
        if r.spec.method.name == m and r.spec.seed == n
    ]
    assert {entry.rank for entry in board_of(apart).entries} == {None}
    assert board_of(apart).reach == "no entry can be ranked"


def test_one_whole_entry_among_failed_ones_is_not_first_of_anything():
    made = make_results(pairs=(("cifar10", "resnet20"),), methods=METHODS[:3])
    gone = {"status": "failed", "error": "diverged", "after": None, "before": None, "size": None}
    made = [
        r.model_copy(update=gone)
        if r.spec.method.name in METHODS[:2] and r.spec.target == 8 and not r.spec.is_control
        else r
        for r in made
    ]
    board = board_of(made)
    assert {entry.method: entry.rank for entry in board.entries} == dict.fromkeys(METHODS[:3])
    assert {entry.why for entry in board.entries if entry.method == METHODS[2]} == {ALONE}
    (task,) = judge(observe(made)).tasks
    assert task.block.methods == (METHODS[2],)


def test_without_a_comparison_of_several_at_once_the_sentence_names_the_pairs_of_the_table():
    """One that fails at 8x and another that was run up to 4x share what lies below."""
    made = [
        r
        for r in make_results(pairs=(("cifar10", "resnet20"),), methods=METHODS[:2])
        if r.spec.method.name == METHODS[0] or r.spec.target <= 4
    ]
    gone = {"status": "failed", "error": "diverged", "after": None, "before": None, "size": None}
    made = [
        r.model_copy(update=gone) if r.spec.method.name == METHODS[0] and r.spec.target == 8 else r
        for r in made
    ]
    more = make_results(pairs=(("cifar10", "resnet20"),), methods=(METHODS[4],), compressions=(1, *GRID))
    more = [r.model_copy(update=gone) if r.spec.target == 16 else r for r in more]
    (task,) = judge(observe([*made, *more])).tasks
    headline = reach_verdict(observe([*made, *more])).headline
    assert len(task.block.methods) < 2
    assert any(pair.decided for pair in task.pairs)
    assert "No two methods" not in headline
    assert f"{METHODS[0]} and {METHODS[1]} (told apart)" in headline
    assert [pair.reach[1] for pair in task.pairs] == [pytest.approx(4, rel=1e-3)] * len(task.pairs)
