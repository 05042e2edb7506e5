"""What differs in value differs in its label, however it is spelt, and nothing else does."""

from __future__ import annotations

import pytest
from made_results import FINETUNE, METHODS, PRETRAIN, make_result, make_results, make_spec, method

from shrinkbench.report.patterns import series_of_runs, with_weights
from shrinkbench.report.result_tables import latency_table, result_tables, summary_tables
from shrinkbench.report.statistics.observations import aggregate, observe
from shrinkbench.results.labels import distinct_runs, label_runs, share_values
from shrinkbench.results.record import Latency
from shrinkbench.spec import (
    ChannelFraction,
    ExtraSpec,
    FinetuningSpec,
    FractionPerLayer,
    ModelSpec,
    PublishedWidths,
)

SCRATCH = FinetuningSpec(name="scratch-e", weights="scratch", recipe="pretraining")
SLIMMING = method("network_slimming", "magnitude", start="initialisation", during=True, finetuning=SCRATCH)
THIRD = 1 / 3


def renamed(recipe, name, epochs):
    return recipe.model_copy(update={"name": name, "epochs": epochs})


APART = {
    "searches": [
        make_spec(method=SLIMMING, recipe=PRETRAIN, search=PRETRAIN),
        make_spec(method=SLIMMING, recipe=PRETRAIN, search=renamed(PRETRAIN, "pretrain", 9)),
        make_spec(method=SLIMMING, recipe=PRETRAIN, search=renamed(PRETRAIN, "pretrain", 8)),
    ],
    "compressions of one label": [make_spec(compression=4), make_spec(compression=4.0000001)],
    "ways of rounding": [
        make_spec(amount=FractionPerLayer(fraction=0.3, rounding=rounding, projections=projections))
        for rounding, projections in (("remove-floor", True), ("nearest", True), ("nearest", False))
    ],
    "fractions of one label": [
        make_spec(amount=ChannelFraction(fraction=THIRD)),
        make_spec(amount=ChannelFraction(fraction=round(THIRD, 8))),
    ],
    "published widths": [make_spec(amount=PublishedWidths(target=target)) for target in ("a", "b")],
    "learning rates of one label": [
        make_spec(),
        make_spec(recipe=FINETUNE.model_copy(update={"learning_rate": 3.0000001e-4})),
    ],
    "a method spelt like another with its classifier": [
        make_spec(method=method("m", "other"), prune_classifier=True),
        make_spec(method=method("m + classifier", "other")),
    ],
    "a method spelt like another with its recipe": [
        make_spec(method=method("m", "other")),
        make_spec(method=method("m", "other"), recipe=PRETRAIN),
        make_spec(method=method("m, cifar-pretrain", "other")),
    ],
    "a recipe spelt like another with its epochs": [
        make_spec(recipe=renamed(FINETUNE, "r", 5)),
        make_spec(recipe=renamed(FINETUNE, "r", 6)),
        make_spec(recipe=renamed(FINETUNE, "r (epochs 5)", 7)),
    ],
    "a network spelt like another with its images": [
        make_spec(dataset="a", model="b"),
        make_spec(dataset="a", model="b / 10 test images"),
        (few := make_spec(dataset="a", model="b")).model_copy(
            update={
                "task": few.task.model_copy(update={"data": few.data.model_copy(update={"test_images": 10})})
            }
        ),
    ],
}


@pytest.mark.parametrize("specs", APART.values(), ids=APART)
def test_runs_that_differ_are_told_apart_and_none_is_lost(specs):
    labels = {(label.task, label.method, label.amount) for label in label_runs(specs)}
    assert len(labels) == len(specs)
    results = [make_result(spec, accuracy=lambda s, top1=0.5 + n / 10: top1) for n, spec in enumerate(specs)]
    observations = observe(results)
    cells = aggregate(observations.pruned, ["top1"])
    assert sorted(cells["top1"]) == pytest.approx([0.5 + n / 10 for n in range(len(specs))])
    texts = [cell.text for t in result_tables(observations, "top1") for row in t.rows for cell in row[2:]]
    assert all(any(f"{50 + 10 * n:.2f}" in text for text in texts) for n in range(len(specs)))
    columns = [column for series in series_of_runs(results) for column in series.columns]
    assert [len(column.layers) for column in columns] == [1] * len(specs)
    for series in series_of_runs(results):
        assert len({column.name for column in series.columns}) == len(series.columns)
    assert sum(map(len, with_weights(results).values())) == len(specs)


def test_columns_of_amounts_with_one_label_have_other_headings():
    (table,) = result_tables(observe(map(make_result, APART["compressions of one label"])), "top1")
    assert table.columns[2:] == ("4x (ratio 4)", "4x (ratio 4.0000001)")


def test_methods_that_round_in_other_ways_share_a_column():
    specs = [
        make_spec(method=m, amount=FractionPerLayer(fraction=0.3, rounding=rounding))
        for m, rounding in (("random", "nearest"), ("global_magnitude", "keep-floor"))
    ]
    assert {label.amount for label in label_runs(specs)} == {"30% per layer"}


def test_a_method_may_be_called_as_a_control_is():
    plain = method("control", "other")
    results = [make_result(make_spec(method=m, compression=c)) for m in (plain, "random") for c in (1, 2)]
    observations = observe(results)
    assert observations.controls_of("cifar10 / resnet20") == ("control",)
    assert "control" not in observations.methods
    assert len(observations.methods) == 2
    (table,) = result_tables(observations, "top1")
    assert len({row[0].text for row in table.rows}) == 3


FURTHER = ExtraSpec(name="cifar10.1", revision="cd" * 32)


def measured(spec, *, top1):
    """A run with the quality that is given, on further splits too."""
    result = make_result(spec, accuracy=lambda _: top1)
    return result.model_copy(update={"further": {extra.name: result.after for extra in spec.extra}})


def test_a_run_that_was_measured_further_counts_once():
    plain = [make_spec(seed=seed, compression=c) for seed in (0, 1) for c in (1, 4)]
    more = [spec.model_copy(update={"extra": (FURTHER,)}) for spec in plain if spec.seed == 0]
    top1 = {1: 0.9, 4: 0.8}
    results = [measured(spec, top1=top1[spec.target]) for spec in (*plain, *more)]
    latency = Latency(batch_size=1, form="small", dense_seconds=2, seconds=1, threads=1, precision="float32")
    results = [
        r.model_copy(update={"provenance": r.provenance.model_copy(update={"latency": (latency,)})})
        for r in results
    ]
    observations = observe(results)
    assert observations.pruned["seed"].tolist() == [0, 1]
    assert observations.pruned["cifar10.1_top1"].notna().tolist() == [True, False]
    assert observations.pruned["top1_change"].tolist() == pytest.approx([-0.1, -0.1])
    assert observations.controls_of("cifar10 / resnet20") == (
        "control, also on cifar10.1",
        "control, on one split",
    )
    (series,) = series_of_runs(results)
    assert [len(column.layers) for column in series.columns] == [2]
    assert sum(not run.spec.is_control for run, _ in distinct_runs(results)) == 2
    assert latency_table(results) is not None


def test_a_result_that_is_given_twice_counts_once():
    results = [make_result(make_spec(compression=c)) for c in (1, 2, 4)]
    once, twice = observe(results), observe([*results, *results])
    assert once.pruned.equals(twice.pruned)
    assert once.control.equals(twice.control)
    assert summary_tables(twice) == summary_tables(once)


def test_tables_of_networks_that_differ_in_case_are_files_of_their_own():
    names = ("resnet20", "ResNet20", "resnet-20")
    specs = [
        (s := make_spec()).model_copy(
            update={"task": s.task.model_copy(update={"model": ModelSpec(name=name)})}
        )
        for name in names
    ]
    tables = result_tables(observe(map(make_result, specs)), "top1")
    assert len({table.name.lower() for table in tables}) == len(names)


def test_methods_are_the_same_on_every_task():
    specs = [make_spec(dataset=d, method=m) for d in ("cifar10", "cifar100") for m in METHODS]
    assert {label.method for label in label_runs(specs)} == set(METHODS)


def test_shared_values_are_equal_and_one_object():
    results = [
        r.model_validate_json(r.model_dump_json()) for r in make_results(methods=["random"], seeds=(0, 1))
    ]
    shared = share_values(results)
    assert shared == results
    assert len({id(r.spec.task) for r in results}) == len(results)
    assert len({id(r.spec.task) for r in shared}) == len({r.spec.task for r in results})
    assert len({id(r.spec.method) for r in shared}) == 1
    assert label_runs([r.spec for r in shared]) == label_runs([r.spec for r in results])
