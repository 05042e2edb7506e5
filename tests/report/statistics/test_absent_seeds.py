"""Seeds of which everything failed, runs without the metric, equal means: what the sentences may say then."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_results import METHODS as METHODS_BY_NAME
from made_results import changed, make_result, make_results, make_spec

from shrinkbench.report.recommendation import recommend
from shrinkbench.report.result_tables import result_tables
from shrinkbench.report.statistics.blocks import common_block
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.compare import curve_summaries, pairwise
from shrinkbench.report.statistics.curves import Curve
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.verdict import reach_verdict

PAIR = (("cifar10", "resnet20"),)
PAIRS = (*PAIR, ("cifar10", "resnet56"), ("imagenet", "resnet18"))
METHODS = ("global_gradient", "global_magnitude", "layerwise_magnitude", "random")
BEST = "global_magnitude"


def store(**changes):
    return make_results(**({"pairs": PAIR, "methods": METHODS} | changes))


def change(results, how, *, method=BEST, seed=None, targets=(2, 4, 8, 16, 32)):
    """Results, with ``how`` done to the pruned runs that are chosen."""
    return [
        how(r)
        if r.spec.method.name == method and seed in (None, r.spec.seed) and r.spec.target in targets
        else r
        for r in results
    ]


def fail(result):
    return result.model_copy(
        update={"status": "failed", "error": "diverged", "after": None, "before": None, "size": None}
    )


def reasons(results):
    (task,) = judge(observe(results)).tasks
    return {one.method: one.why for one in task.block.left_out}


@pytest.mark.parametrize("methods", [METHODS[:2], METHODS])
def test_a_seed_of_which_all_runs_failed_is_one_that_the_method_lacks(methods):
    """Of two methods, too: who failed a whole seed is not compared on the others."""
    results = change(store(methods=methods), fail, seed=2)
    assert reasons(results) == {BEST: "5 failed runs (2x, 4x, 8x, 16x, 32x; seed 2)"}
    (task,) = judge(observe(results)).tasks
    assert task.block.units == ("0", "1", "2")


def test_a_seed_that_nobody_finished_costs_nobody_a_place():
    results = store()
    for method in METHODS:
        results = change(results, fail, method=method, seed=2)
    (task,) = judge(observe(results)).tasks
    assert set(task.block.methods) == set(METHODS)
    assert (task.block.units, task.block.units_left_out) == (("0", "1"), ("2",))


def test_a_method_of_which_everything_failed_is_named_and_changes_nothing_for_others():
    others = [m for m in METHODS if m != BEST]
    results = change(store(), fail)
    assert list(reasons(results)) == [BEST]
    before, after = (judge(observe(r)).tasks[0].block for r in (store(methods=others), results))
    assert np.array_equal(before.values, after.values)
    results = [r for r in results if not (r.spec.is_control and r.spec.method.name == BEST)]
    assert f"Not compared: {BEST} (15 failed runs" in reach_verdict(observe(results)).headline


def test_a_finished_run_without_the_metric_is_no_point_to_bridge():
    def forget(result):
        return result.model_copy(update={"after": changed(result.after, top1=math.nan)})

    results = change(store(), forget, seed=1, targets=(8,))
    assert reasons(results) == {BEST: "1 unmeasured run (8x; seed 1)"}
    (table,) = result_tables(observe(results), "top1")
    assert "over 2 to 3 seeds" in table.caption


def test_failing_widens_nobodys_compression_within_one_point():
    """A seed at 4x that loses much is what keeps 4x from being within a point, finished or failed."""
    bad = change(store(), lambda r: make_result(r.spec, accuracy=lambda _: 0.5), seed=1, targets=(4,))
    gone = change(store(), fail, seed=1, targets=(4,))
    for results in (bad, gone):
        row = curve_summaries(observe(results)).set_index("method").loc[BEST]
        assert row["largest_within"] == pytest.approx(2, rel=0.01)


def test_the_control_is_that_of_the_compared_seeds():
    extra = store(methods=("global_gradient",), seeds=range(3, 10), accuracy=lambda _: 0.5)
    whole, more = (reach_verdict(observe(r)).headline for r in (store(), [*store(), *extra]))
    assert whole[whole.index("(its control") :].startswith("(its control 91.6")
    assert "(its control 91.6" in more
    partly = [r for r in store() if not (r.spec.is_control and r.spec.seed == 1)]
    assert "% on 2 of 3 seeds)" in reach_verdict(observe(partly)).headline
    none = [r for r in store() if not r.spec.is_control]
    assert "(it has no finished control)" in reach_verdict(observe(none)).headline


def test_one_amount_without_controls_is_compared_there_and_is_no_range():
    results = [r for r in store(compressions=(1, 4)) if not r.spec.is_control]
    headline = reach_verdict(observe(results)).headline
    assert "over one range of compressions and the same seeds; at 4× alone some are." in headline
    assert set(reasons(results).values()) == {
        "shares a single compression with the other methods, which is no range"
    }


def test_equal_means_are_not_ordered_by_names():
    headline = reach_verdict(observe(store(accuracy=lambda s: 0.9 if s.is_control else 0.88))).headline
    assert " use " not in headline
    assert "level with" in headline
    assert "above" not in headline


def test_differences_without_spread_have_no_interval_and_no_number_of_seeds():
    def exact(spec):
        return 0.9 - (0 if spec.is_control else 0.001 * METHODS.index(spec.method.name) * np.log2(spec.target))

    results = store(accuracy=exact)
    assert pairwise(observe(results))[["low", "high"]].isna().all(axis=None)
    headline = reach_verdict(observe(results)).headline
    assert "the same on every seed: there is no spread to test them against" in headline
    assert "further seeds" not in headline


def test_only_the_tasks_that_have_few_seeds_are_warned_of():
    results = [r for r in store(pairs=PAIRS) if r.spec.data.name == "cifar10" or r.spec.seed == 0]
    (warning,) = [w for w in reach_verdict(observe(results)).warnings if "n = 1" in w]
    assert warning.startswith("Within imagenet / resnet18, n = 1")


def test_over_tasks_the_headline_names_the_task_on_which_everything_failed():
    results = [fail(r) if r.spec.data.name == "imagenet" else r for r in store(pairs=PAIRS)]
    assert "Not part of it: imagenet / resnet18." in reach_verdict(observe(results)).headline


def test_over_tasks_a_method_is_not_said_to_be_absent_where_it_is_compared():
    results = [
        r
        for r in store(pairs=PAIRS, weights=("pretrain", "other"))
        if not (
            r.spec.method.name == BEST and r.spec.weights.name == "other" and r.spec.data.name == "imagenet"
        )
    ]
    assert "(not compared on imagenet / resnet18 / other)" in reach_verdict(observe(results)).headline


def test_other_seeds_of_the_same_methods_by_others_take_nobodys_answer_away():
    """As many methods on seeds 0 to 2 as on 3 to 6: the larger study is compared, the other is named."""
    copies = [METHODS_BY_NAME[m].model_copy(update={"base": f"their_{m}"}) for m in METHODS]
    theirs = [
        make_result(make_spec(method=copy, compression=c, seed=seed))
        for copy in copies
        for c in (1, 2, 4, 8, 16, 32)
        for seed in (3, 4)
    ]
    before, after = (judge(observe(r)).tasks[0].block for r in (store(), [*store(), *theirs]))
    assert np.array_equal(before.values, after.values)
    assert {one.why for one in after.left_out} == {"no finished run of seed 0, 1, 2"}


def test_methods_of_which_no_two_share_a_seed_are_not_compared():
    results = [r for n, m in enumerate(METHODS) for r in store(methods=(m,), seeds=(n,))]
    assert set(reasons(results).values()) == {"shares no seed with another method"}


def test_leaving_out_the_amounts_at_which_a_method_collapses_wins_nothing():
    """Run at 2x and 32x only, a straight line between them would be best at 4x, 8x and 16x."""
    results = change(
        store(accuracy=lambda s: 0.9 if s.is_control or s.method.name == BEST else 0.6),
        lambda r: None,
        targets=(4, 8, 16),
    )
    observed = observe([r for r in results if r])
    (task,) = judge(observed).tasks
    assert {one.method: one.why for one in task.block.left_out} == {BEST: "no run between 2× and 32×"}
    at = {level.level: level.block.methods for level in task.levels}
    assert {level for level, methods in at.items() if BEST in methods} == {2.0, 32.0}


def test_leaving_out_one_amount_at_which_a_method_collapses_wins_nothing():
    results = [r for r in store() if r.spec.method.name != BEST or r.spec.target != 16]
    assert reasons(results) == {BEST: "no run between 8× and 32×"}
    (task,) = judge(observe(results)).tasks
    assert {level.level for level in task.levels if BEST in level.block.methods} == {2.0, 4.0, 8.0, 32.0}


def made(points, *, others=(1, 2, 4, 8, 16), seeds=3):
    """Curves of ``own`` at ``points`` and of three others on a grid."""
    random = np.random.default_rng(0)
    grids = {"own": points, **{f"other {n}": others for n in range(3)}}
    return [
        Curve("t", name, seed, np.array(x, dtype=float), 0.9 + 0.01 * random.standard_normal(len(x)))
        for name, x in grids.items()
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(
    ("own", "others", "why"),
    [
        ((1, 1.7, 3.2, 8, 16), (1, 2, 4, 8, 16), None),  # 3.2x stands for 4x, though 8x is 2.5 times as far
        ((1, 1.9, 4.3, 7.5, 17), (1, 2, 4, 8, 16), None),
        ((1, 2, 8, 16), (1, 2, 4, 8, 16), "no run between 2× and 8×"),
        ((1, 3, 9, 16), (1, 2, 4, 8, 16), "no run between 1× and 3×"),
        ((1, 4, 16), (1, 2, 4, 8, 16), "no run between 1× and 4×"),
        ((1, 2, 3, 8, 32), (1, 2, 3, 8, 9, 32), "no run between 8× and 32×"),
        ((1, 2, 8, 9, 32), (1, 2, 3, 8, 9, 32), "no run between 2× and 8×"),
        ((1, 2, 4, 8, 16), (1, 4, 16), None),  # more runs than others have
    ],
)
def test_a_run_stands_for_the_amounts_that_are_nearest_to_it(own, others, why):
    block = common_block(made(own, others=others))
    assert {one.method: one.why for one in block.left_out} == ({"own": why} if why else {})


def of_seed(curves, name, seed, points):
    """The curves, that of one seed at ``points`` alone."""
    return [
        Curve(c.task, c.method, c.seed, c.x[np.isin(c.x, points)], c.y[np.isin(c.x, points)])
        if (c.method, c.seed) == (name, seed)
        else c
        for c in curves
    ]


def test_no_seed_may_lack_an_amount_that_the_others_have_however_near_its_neighbours_are():
    """Beside a step from 4x to 32x one from 2x to 4x is small, and 3x that collapsed would be made up there."""
    grid = (1, 2, 3, 4, 32)
    whole, short = made(grid, others=grid), (1, 2, 4, 32)
    found = common_block(of_seed(whole, "own", 1, short))
    assert {one.method: one.why for one in found.left_out} == {"own": "no run of seed 1 between 2× and 4×"}
    assert "own" in common_block(of_seed(whole, "own", 1, short), level=32).methods
    for level in (2.5, 3):
        assert "own" not in common_block(of_seed(whole, "own", 1, short), level=level).methods
    lacking = whole
    for name in ("own", "other 0", "other 1"):  # most lack it on this seed: nobody gains by it
        lacking = of_seed(lacking, name, 1, short)
    assert not common_block(lacking).left_out


def test_a_method_left_out_of_the_range_is_recommended_where_it_is_told_apart():
    """It fails at 32x only: below, the headline does not send readers to what the table says is worse."""
    falls = (0.010, 0.006, 0.009, 0.011)

    def exact(spec):
        whose = 0 if spec.is_control else METHODS.index(spec.method.name)
        noise = 0.0002 * np.random.default_rng([spec.seed, whose]).standard_normal()
        return 0.9 + noise - (0 if spec.is_control else falls[METHODS.index(spec.method.name)])

    observed = observe(change(store(accuracy=exact), fail, targets=(32,)))
    (task,) = judge(observed).tasks
    assert BEST not in task.block.methods
    decided = {level.level for level in task.levels if level.claim.first == BEST and level.claim.decided}
    assert decided == {2.0, 4.0, 8.0, 16.0}
    first, *_ = recommend(task)
    assert (first.method, first.to) == (BEST, pytest.approx(16, rel=0.01))


def test_without_a_finished_run_nothing_is_warned_of_the_pairs():
    assert not any("0 pairs" in warning for warning in reach_verdict(observe([])).warnings)
