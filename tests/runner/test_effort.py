"""What a run's record says of its cost by phase, and measured latency."""

from __future__ import annotations

import math

import pytest

from shrinkbench.report.page.html import write_report
from shrinkbench.report.statistics.compare import at_equal_training
from shrinkbench.report.statistics.curves import at_equal
from shrinkbench.report.statistics.fairness import common_set_ups, set_up_table
from shrinkbench.report.statistics.observations import observe
from shrinkbench.results.frame import to_frame
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.spec import ExperimentSpec, parse_value
from shrinkbench.spec.training_cost import total, training_cost

IMAGES = 128
BASE = {
    "name": "effort",
    "dataset": "digits",
    "model": "digits-cnn",
    "compression": [1, 2],
    "train_images": IMAGES,
    "test_images": 100,
    "pretrain": {"epochs": 3},
    "finetune": {"epochs": 2, "batch_size": 64},
}
METHODS = [
    "global_magnitude",
    "global_gradient",
    "lottery_ticket",
    "gradual_magnitude",
    "snip",
    "channel_l1[finetuning=scratch-e]",
]


def run(root, **fields):
    spec = parse_value(ExperimentSpec, {**BASE, **fields}, where="test")
    status = sweep(spec, root, device="cpu")
    assert status.failed == 0
    results, _ = ResultStore(root).results()
    return {(r.spec.method.name, r.spec.target): r for r in results}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return run(tmp_path_factory.mktemp("effort"), method=METHODS)


@pytest.mark.slow
def test_pretraining_costs_what_its_epochs_cost(runs):
    dense = runs["global_magnitude", 2].size.multiply_adds
    expected = training_cost(epochs=3, images=IMAGES, multiply_adds=dense)
    for key in (("global_magnitude", 1), ("global_magnitude", 2), ("lottery_ticket", 2)):
        assert runs[key].cost.pretraining == expected
    for method in ("snip", "channel_l1[finetuning=scratch-e]"):  # nothing of that training is in the weights
        assert runs[method, 2].cost.pretraining.multiply_adds == 0


@pytest.mark.slow
def test_retraining_costs_epochs_at_the_multiply_adds_that_are_left(runs):
    for (method, _), result in runs.items():
        spent, size = result.cost.retraining, result.size
        assert spent.epochs == result.epochs_run
        assert spent.images == result.epochs_run * IMAGES
        per_image = size.multiply_adds if method == "gradual_magnitude" else size.multiply_adds_kept
        assert spent.multiply_adds == 3 * spent.images * per_image


def test_finding_masks_costs_what_was_looked_at(runs):
    assert runs["global_magnitude", 2].cost.pruning.images == 0
    dense = runs["global_gradient", 2].size.multiply_adds
    gradient = runs["global_gradient", 2].cost.pruning
    assert (gradient.epochs, gradient.images, gradient.multiply_adds) == (0, 64, 3 * 64 * dense)
    rounds = runs["lottery_ticket", 2].cost
    count = math.ceil(math.log(2) / -math.log(0.8))  # a fifth of the weights goes in each round
    assert rounds.pruning.epochs + rounds.retraining.epochs == 3 * count
    assert rounds.pruning.multiply_adds > (count - 1) * rounds.retraining.multiply_adds


def test_the_table_sums_all_stages(runs):
    frame = to_frame(runs.values()).set_index("key")
    for result in runs.values():
        spent, row = total(result.cost), frame.loc[result.key]
        assert (row.training_epochs, row.training_images) == (spent.epochs, spent.images)
        assert row.training_multiply_adds == spent.multiply_adds


def test_methods_compare_at_equal_training_in_epochs_and_in_multiply_adds(runs):
    observed = observe(runs.values())
    epochs = at_equal_training(observed)
    assert {"global_magnitude", "global_gradient"} <= set(epochs["method"])
    assert "lottery_ticket" not in set(epochs.loc[epochs["level"] == 2, "method"])
    computed = at_equal_training(observed, by="training_multiply_adds")
    for _, cell in computed.groupby("level"):
        spent = observed.pruned.set_index("method").loc[cell["method"], "training_multiply_adds"]
        assert spent.max() <= 1.06 * spent.min() * 1.06


def test_conditions_of_a_comparison_are_told_from_the_record(runs):
    found = common_set_ups(runs.values())
    assert found["global_gradient", "global_magnitude"] == "finetuning"  # unequal multiply-adds are left
    assert found["global_magnitude", "lottery_ticket"] == "weights"
    assert found["global_magnitude", "snip"] == "task"
    same = [r for r in runs.values() if r.spec.method.name == "global_magnitude"]
    twin = [
        r.model_copy(
            update={
                "spec": r.spec.model_copy(update={"method": r.spec.method.model_copy(update={"base": "twin"})})
            }
        )
        for r in same
    ]
    assert common_set_ups([*same, *twin]) == {("global_magnitude", "twin"): "effort"}
    other_seed = [r.model_copy(update={"spec": r.spec.model_copy(update={"seed": 1})}) for r in twin]
    assert set_up_table([*same, *other_seed]) is None


@pytest.mark.slow
def test_networks_are_timed_where_the_experiment_asks(tmp_path):
    methods = ["global_magnitude", "channel_l1"]
    short = {"method": methods, "train_images": 64, "pretrain": {"epochs": 1}, "finetune": {"epochs": 1}}
    plain = run(tmp_path, **short)
    assert not any(r.provenance.latency for r in plain.values())
    timed = run(tmp_path, **short, latency=[1, 8])
    assert plain.keys() == timed.keys()
    for key, result in timed.items():
        assert result.key == plain[key].key
        assert result.after == plain[key].after
        assert [t.batch_size for t in result.provenance.latency] == ([] if key[1] == 1 else [1, 8])
        assert all(t.seconds > 0 and t.dense_seconds > 0 for t in result.provenance.latency)
    assert {t.form for t in timed["global_magnitude", 2].provenance.latency} == {"masked"}
    assert {t.form for t in timed["channel_l1", 2].provenance.latency} == {"small"}
    first = (tmp_path / "runs" / timed["channel_l1", 2].key / "result.json").read_bytes()
    again = run(tmp_path, **short, latency=[8])
    assert again["channel_l1", 2].provenance.started == timed["channel_l1", 2].provenance.started
    assert (tmp_path / "runs" / timed["channel_l1", 2].key / "result.json").read_bytes() == first

    at = timed["channel_l1", 2].provenance.latency[-1]
    observed = observe(timed.values())
    row = observed.pruned.set_index("method").loc["channel_l1"]
    assert row.measured_speedup == pytest.approx(at.dense_seconds / at.seconds)
    levels = at_equal(observed, "measured_speedup", levels=(float(row.measured_speedup),))
    assert "channel_l1" in set(levels["method"])
    report = write_report(tmp_path, tmp_path / "report", figures="none")
    assert "Measured latency" in report.index.read_text(encoding="utf-8")
    assert (tmp_path / "report" / "tables" / "latency.csv").read_text().count("channel_l1") == 2
