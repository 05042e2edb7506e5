"""Leaving a bad run out, or letting it fail, brings a method no better standing over tasks or at a level."""

from __future__ import annotations

import numpy as np
import pytest
from made_results import make_result, make_results

from shrinkbench.report.recommendation import recommend
from shrinkbench.report.statistics.blocks import common_block
from shrinkbench.report.statistics.claims import judge, judge_curves
from shrinkbench.report.statistics.curves import Curve
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.verdict import reach_verdict

GOOD, BAD = "global_gradient", "global_magnitude"
NETWORKS = ("resnet110", "resnet18", "resnet20", "resnet56")
HARD = "resnet56"


def accuracy(spec):
    """One method is a little better, but collapses on one network."""
    if spec.is_control:
        return 0.92
    better = 0.01 if spec.model.name != HARD else -0.3
    noise = np.random.default_rng(int(spec.key[:8], 16)).normal(0, 0.001)
    return 0.92 - 0.005 * np.log2(spec.target) + better * (spec.method.name == BAD) + noise


def store(methods=(GOOD, BAD)):
    pairs = [("cifar10", network) for network in NETWORKS]
    return make_results(pairs=pairs, methods=methods, accuracy=accuracy, compressions=(1, 2, 4, 8))


def is_chosen(result, methods=(BAD,)):
    spec = result.spec
    return spec.method.name in methods and (spec.model.name, spec.target, spec.seed) == (HARD, 4, 1)


@pytest.mark.parametrize("how", ["failed", "missing", "not planned"])
def test_over_tasks_a_run_that_is_absent_takes_out_its_method_not_the_task(how):
    results = store()
    kept = [r for r in results if not is_chosen(r)]
    lost = [r.spec for r in results if is_chosen(r)]
    if how == "failed":
        kept += [make_result(spec, failed="diverged") for spec in lost]
    observations = observe(kept, missing=lost if how == "missing" else ())
    assert judge(observations).pairs_over_tasks == ()
    headline = reach_verdict(observations).headline
    assert headline.startswith(
        "Nothing is said over tasks: fewer than two methods are compared on all of them."
    )
    why = "no run of seed 1 between 2× and 8×" if how == "not planned" else f"1 {how} run (4x; seed 1)"
    assert f"Not compared: {BAD} (not compared on cifar10 / {HARD}: {why}). Each task has" in headline


def test_over_tasks_half_of_the_methods_do_not_drop_a_task_by_failing_on_it():
    methods = (GOOD, BAD, "layerwise_gradient", "layerwise_magnitude")
    both = (BAD, "layerwise_magnitude")
    results = [make_result(r.spec, failed="x") if is_chosen(r, both) else r for r in store(methods)]
    over = judge(observe(results)).over_tasks
    assert (over.methods, len(over.units)) == ((GOOD, "layerwise_gradient"), 4)


def test_a_task_on_which_nobody_is_whole_is_left_out_for_all():
    results = [make_result(r.spec, failed="x") if is_chosen(r, (GOOD, BAD)) else r for r in store()]
    over = judge(observe(results)).over_tasks
    assert (over.methods, len(over.units)) == ((GOOD, BAD), 3)
    assert over.units_left_out == (f"cifar10 / {HARD}",)


def block(grids, *, level=None):
    """Methods by their grids; one that lists several has one for each seed."""
    found = []
    for method, grid in grids.items():
        for seed, one in enumerate(grid if isinstance(grid, list) else [grid]):
            x = np.array([1.0, *one])
            found.append(Curve("t", method, seed, x, 0.9 - 0.01 * np.log2(x)))
    return common_block(found, level=level)


UNEVEN = (2, 4, 8, 16, 64)


@pytest.mark.parametrize("dropped", [4, 8])
def test_an_amount_is_not_left_out_behind_wider_steps_elsewhere(dropped):
    own = tuple(x for x in UNEVEN if x != dropped)
    for level in (None, float(dropped)):
        found = block({"a": UNEVEN, "b": UNEVEN, "c": own}, level=level)
        assert [one.method for one in found.left_out] == ["c"]
        assert found.left_out[0].lacks_runs
    assert block({"a": UNEVEN, "b": UNEVEN, "c": own}, level=16.0).methods == ("a", "b", "c")


@pytest.mark.parametrize("dropped", [2, 3, 4, 6])
@pytest.mark.parametrize("others", [1, 3])
def test_an_amount_that_others_have_is_not_bridged_on_a_fine_grid(dropped, others):
    fine = (2, 3, 4, 6, 8)
    own = tuple(x for x in fine if x != dropped)
    found = block({f"m{i}": fine for i in range(others)} | {"own": own})
    start, end = ((1, *fine)[fine.index(dropped)], fine[fine.index(dropped) + 1])
    assert [(one.method, one.why) for one in found.left_out] == [("own", f"no run between {start}× and {end}×")]
    assert found.left_out[0].lacks_runs


def test_an_amount_of_a_few_takes_nobody_out():
    coarse = (2, 4, 8)
    assert len(block({"a": (2, 3, 4, 6, 8), "b": coarse, "c": coarse}).methods) == 3


def test_a_coarser_grid_is_compared_where_it_has_runs():
    grids = {"fine": (2, 3, 4, 6, 8), "coarse": (2, 4, 8)}
    assert [one.why for one in block(grids).left_out] == ["no run between 2× and 4×"]
    assert block(grids, level=4.0).methods == ("fine", "coarse")
    assert [one.why for one in block(grids, level=3.0).left_out] == ["no run between 2× and 4×"]


def test_runs_that_lie_midway_between_those_of_others_are_compared_over_the_range_alone():
    """A line hides a collapse between its ends, and a run beside it does not."""
    grids = {"a": (2, 4, 8, 16), "b": (2, 4, 8, 16), "own": (1.42, 2.83, 5.66, 11.3, 16)}
    assert block(grids).methods == block(grids, level=16.0).methods == ("a", "b", "own")
    for level in (2.0, 4.0, 8.0):
        assert [one.why for one in block(grids, level=level).left_out] == [f"no run near {level:g}×"]


def collapsing(random, grid, seed):
    """Whatever the method, quality falls at once a little above 24x."""
    y = 0.92 - 0.004 * np.log2(grid) - 0.25 / (1 + np.exp(-6 * (np.log2(grid) - 4.7)))
    return y + 0.002 * seed + random.normal(0, 0.004, len(grid))


WIDE = (2, 4, 8, 16, 32)


@pytest.mark.parametrize("others", [WIDE, (2, 4, 8, 16), (4, 8, 16, 32)])
@pytest.mark.parametrize("own", [(2, 4, 8, 16, 24, 32), (2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32)])
def test_of_equal_methods_none_wins_by_amounts_that_it_alone_has(own, others):
    told = 0
    for store in range(40):
        random = np.random.default_rng(store)
        grids = {"a": WIDE, "b": WIDE, "c": others, "own": own}
        found = [
            Curve("t", method, seed, np.r_[1.0, grid], collapsing(random, np.r_[1.0, grid], seed))
            for method, grid in grids.items()
            for seed in range(3)
        ]
        (task,) = judge_curves(found, sorted({*map(float, own)}), places={}).tasks
        assert {"own"} == set(task.block.uncounted)
        told += any(claim.decided for claim in task.pairs)
        assert not any(level.claim for level in task.levels if level.level not in WIDE)
        assert all(segment.to in WIDE for segment in recommend(task) if segment.method != "own")
    assert told <= 0.05 * 40 + 2


def test_runs_that_do_not_count_over_the_range_are_named():
    methods = (GOOD, BAD, "layerwise_gradient")
    more = make_results(pairs=[("cifar10", HARD)], methods=[GOOD], accuracy=accuracy, compressions=(3, 6))
    results = [r for r in store(methods) if r.spec.model.name == HARD] + more
    said = reach_verdict(observe(results)).headline
    assert f"other compared methods do not count over the range: {GOOD} at 3× and 6×." in said


def test_the_last_run_of_a_shorter_curve_is_a_run_that_a_seed_lacks():
    whole, short = (1.5, 2, 3, 8), (1.5, 2, 3)
    found = block({"a": [short] * 2, "b": [short] * 2, "c": [whole] * 2, "d": [whole, (1.5, 2, 8)]}, level=3.0)
    assert [one.why for one in found.left_out] == ["no run of seed 1 between 2× and 8×"]
