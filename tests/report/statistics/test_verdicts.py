"""The verdict on made stores: what is compared, what is left out by name, and what failing costs."""

from __future__ import annotations

import numpy as np
import pytest
from made_results import make_result, make_results, make_spec

from shrinkbench.report.pitfalls.orders import initial_model_confounds
from shrinkbench.report.result_tables import result_tables
from shrinkbench.report.statistics.aggregates import normalised_scores
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.compare import pairwise, winners
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.verdict import reach_verdict

PAIR = (("cifar10", "resnet20"),)
METHODS = ("global_magnitude", "layerwise_magnitude", "global_gradient", "random")
TARGETS = (1, 2, 4, 8, 16, 32)
SKILL = dict(zip(METHODS, (0.004, 0.006, 0.008, 0.02), strict=True))


def accuracy(spec):
    """Noise of a tenth of a point, another for each method, seed and amount."""
    rng = np.random.default_rng([spec.seed, len(spec.method.name), round(8 * spec.target)])
    fall = 0 if spec.is_control else SKILL[spec.method.name] * np.log2(spec.target)
    return 0.9 - fall + 0.001 * rng.standard_normal()


def store(**changes):
    settings = {"pairs": PAIR, "methods": METHODS, "compressions": TARGETS, "accuracy": accuracy} | changes
    return make_results(**settings)


def is_run(result, name, *, seed=None, targets=TARGETS):
    spec = result.spec
    return (
        spec.method.name == name
        and seed in (None, spec.seed)
        and spec.target in targets
        and not spec.is_control
    )


def failed(result):
    return result.model_copy(
        update={"status": "failed", "error": "diverged", "after": None, "before": None, "size": None}
    )


def task_of(results, **known):
    (task,) = judge(observe(results, **known)).tasks
    return task


def why(block, method):
    return next(left.why for left in block.left_out if left.method == method)


def test_one_seed_short_of_the_last_level_costs_nobody_a_seed():
    """Independent draws end a little short of 32x: everyone is compared where they end, on all seeds."""
    results = [
        r.model_copy(update={"size": r.size.model_copy(update={"compression": 31.62})})
        if is_run(r, "random", seed=2, targets=(32,))
        else r
        for r in store()
    ]
    task = task_of(results)
    assert task.block.high == pytest.approx(31.62)
    assert (task.block.methods, task.block.units) == (METHODS_IN_ORDER, ("0", "1", "2"))
    assert task.levels[-1].block.high == pytest.approx(31.62)
    assert "1 to 31.6×" in reach_verdict(observe(results)).headline


METHODS_IN_ORDER = tuple(sorted(METHODS))


def test_a_method_with_a_failed_run_is_never_first_over_a_range_with_it():
    best = "global_magnitude"
    whole = reach_verdict(observe(store())).headline
    assert f"× use {best}" in whole
    bad = [
        make_result(r.spec, accuracy=lambda _: 0.1) if is_run(r, best, seed=1, targets=(8,)) else r
        for r in store()
    ]
    gone = [failed(r) if is_run(r, best, seed=1, targets=(8,)) else r for r in store()]
    for results in (bad, gone):
        block = task_of(results).block
        assert block.methods[int(block.means.argmax())] != best
    verdict = reach_verdict(observe(gone))
    assert f"Not compared: {best} (1 failed run (8x; seed 1))" in verdict.headline
    assert any("1 run failed" in warning for warning in verdict.warnings)
    at = {row.level: row for row in winners(observe(gone)).itertuples()}
    assert (at[4].best, at[16].best) == (best, best)  # elsewhere all its runs are there
    assert at[8].best != best
    assert at[8].left_out == 1
    (table,) = result_tables(observe(gone), "top1")
    column = table.columns.index("8×")
    assert {row[0].text for row in table.rows if row[column].best} == {at[8].best}


def test_failures_at_the_end_shorten_nobodys_range():
    gone = [failed(r) if is_run(r, "global_magnitude", targets=(16, 32)) else r for r in store()]
    task = task_of(gone)
    assert task.block.high == pytest.approx(32, rel=1e-3)
    assert why(task.block, "global_magnitude") == "6 failed runs (16x, 32x; seed 0, 1, 2)"


def test_planned_runs_that_are_missing_are_gaps_as_well():
    results = [r for r in store() if not is_run(r, "global_magnitude", seed=0, targets=(4,))]
    lost = next(r.spec for r in store() if is_run(r, "global_magnitude", seed=0, targets=(4,)))
    # nobody knows that it was to be, but that the others have a run there
    assert why(task_of(results).block, "global_magnitude") == "no run of seed 0 between 2× and 8×"
    assert why(task_of(results, missing=[lost]).block, "global_magnitude") == "1 missing run (4x; seed 0)"


def test_a_run_that_another_source_disputes_forbids_a_claim():
    disputed = [r.key for r in store() if is_run(r, "global_magnitude", seed=0, targets=(4,))]
    task = task_of(store(), disputed=disputed)
    assert why(task.block, "global_magnitude") == "1 disputed run (4x; seed 0)"
    at = {level.level: level.block for level in task.levels}
    assert "global_magnitude" not in at[4].methods
    assert "global_magnitude" in at[8].methods


def test_a_run_whose_own_control_is_disputed_is_disputed():
    """Of one seed every method starts from it: no claim is left at any level that it takes part in."""
    (control,) = [r.key for r in store() if r.spec.is_control and r.spec.method.name == METHODS[0]][:1]
    observations = observe(store(), disputed=[control])
    (task,) = judge(observations).tasks
    assert not task.block.methods
    assert not [level for level in task.levels if level.claim]
    assert {one.why for one in task.block.left_out} == {"5 disputed runs (2x, 4x, 8x, 16x, 32x; seed 0)"}
    verdict = reach_verdict(observations)
    assert "told apart" not in verdict.headline
    assert any("or their control has" in warning for warning in verdict.warnings)
    own = [r.key for r in store() if is_run(r, METHODS[0], seed=0, targets=(4,))]
    assert len(observe(store(), disputed=own).gaps) == 1


def on_data(results, **update):
    """The same on data with other fields of their specification."""
    specs = []
    for r in results:
        data = r.spec.data.model_copy(update=update)
        specs.append(r.spec.model_copy(update={"task": r.spec.task.model_copy(update={"data": data})}))
    return [make_result(spec, accuracy=accuracy) for spec in specs]


def test_one_dataset_under_three_names_is_one():
    small = store(methods=METHODS[:2])
    results = [*small, *on_data(small, name="cifar10b"), *on_data(small, name="cifar10c")]
    observations = observe(results)
    assert len(observations.tasks) == 3
    assert judge(observations).over_tasks is None
    (warning,) = [w for w in reach_verdict(observations).warnings if "dataset and network" in w]
    assert warning.startswith("1 pair of dataset and network (one content under several names counts once)")


def test_a_claim_over_tasks_says_on_how_many_datasets_and_networks():
    small = store(methods=METHODS[:2])
    subset = on_data(small, train_images=100)
    others = store(methods=METHODS[:2], pairs=[("cifar10", "resnet56")])
    verdict = reach_verdict(observe([*small, *subset, *others]))
    assert verdict.headline.startswith("Over 3 tasks on 1 dataset and 2 networks, each over its own range, ")
    assert any(w.startswith("2 pairs of dataset and network: ") for w in verdict.warnings)


@pytest.mark.parametrize("changes", [{"compressions": (1, 2)}, {"seeds": (10, 11, 12)}, {"seeds": (0,)}])
def test_a_method_that_was_run_otherwise_changes_nothing_for_the_others(changes):
    alone = store(methods=METHODS[1:])
    more = [*alone, *store(methods=METHODS[:1], **changes)]
    before, after = task_of(alone).block, task_of(more).block
    assert (before.low, before.high, before.methods, before.units) == (
        after.low,
        after.high,
        after.methods,
        after.units,
    )
    assert np.array_equal(before.values, after.values)
    assert why(after, "global_magnitude")
    assert "Not compared: global_magnitude" in reach_verdict(observe(more)).headline


def test_a_network_that_is_larger_than_asked_for_wins_no_column():
    """19.6x of 32x is not 32x: the method is left out there, and compared where it is."""
    short = [
        r.model_copy(update={"size": r.size.model_copy(update={"compression": 1 + 0.6 * (r.spec.target - 1)})})
        if is_run(r, "global_gradient")
        else r
        for r in store(accuracy=lambda s: 0.85 if s.method.name == "global_gradient" else accuracy(s))
    ]
    last = task_of(short).levels[-1]
    assert why(last.block, "global_gradient") == "ends at 19.6×"
    pairs = pairwise(observe(short))
    of_it = pairs[(pairs["first"] == "global_gradient") | (pairs["second"] == "global_gradient")]
    assert of_it["end"].tolist() == [pytest.approx(19.6)] * 3


def test_over_tasks_the_tasks_are_the_units():
    networks = ("resnet20", "resnet56", "resnet18")
    results = store(pairs=[("cifar10", network) for network in networks])
    claims = judge(observe(results))
    assert {claim.n for claim in claims.pairs_over_tasks} == {3}
    assert {claim.n for task in claims.tasks for claim in task.pairs} == {3}
    means = np.array([dict(zip(t.block.methods, t.block.means, strict=True))["random"] for t in claims.tasks])
    assert claims.over_tasks.values[claims.over_tasks.methods.index("random")] == pytest.approx(means)
    assert "Over 3 tasks" in reach_verdict(observe(results)).headline


def test_one_seed_decides_nothing():
    verdict = reach_verdict(observe(store(seeds=(0,))))
    assert "one seed decides nothing" in verdict.headline
    assert "use " not in verdict.headline
    assert not winners(observe(store(seeds=(0,))))["decided"].any()


def test_two_weights_of_one_network_are_one_unit_over_tasks():
    results = [
        make_result(make_spec(method=m, compression=c, seed=s, weights=w, model=n), accuracy=accuracy)
        for m in METHODS
        for c in TARGETS
        for s in (0, 1)
        for w, n in (("a", "resnet20"), ("b", "resnet20"), ("a", "resnet56"))
    ]
    assert len(judge(observe(results)).over_tasks.units) == 2


def test_scores_over_tasks_are_of_the_tasks_that_are_judged_as_one():
    both = store(pairs=[("cifar10", "resnet20"), ("cifar10", "resnet56")])
    observations = observe([*both, *on_data(both, name="cifar10b")])
    scores = normalised_scores(observations)
    assert scores.tasks == judge(observations).over_tasks.units
    assert len(scores.tasks) == 2
    assert not list(initial_model_confounds(observations))


def test_controls_that_are_absent_are_told_beside_what_they_miss():
    results = make_results(pairs=[("cifar10", "resnet20")])
    is_gone = [(r.spec.method.name, r.spec.seed) == ("random", 1) for r in results]
    left = [r for r, gone in zip(results, is_gone, strict=True) if not gone]
    lost = [r.spec for r, gone in zip(results, is_gone, strict=True) if gone]
    warnings = reach_verdict(observe(left, missing=lost)).warnings
    assert any(w.startswith("5 runs of the plan are missing (random 5), and 1 control: ") for w in warnings)
    failed = [
        make_result(r.spec, failed="ValueError: no") if r.spec.is_control and r.spec.seed == 2 else r
        for r in results
    ]
    count = sum(r.status == "failed" for r in failed)
    assert f"{count} controls failed." in reach_verdict(observe(failed)).warnings
