"""The layout of Liu et al. 2019 from stored results: what stands in which row and column."""

from __future__ import annotations

import statistics

import pytest

from shrinkbench.report.scratch import scratch_tables
from shrinkbench.results.record import Provenance, RunResult
from shrinkbench.spec import (
    CONTINUE,
    SCRATCH_E,
    AllocationSpec,
    ChannelFraction,
    Compression,
    DataSpec,
    ExtraSpec,
    FinetuningSpec,
    MethodSpec,
    ModelSpec,
    Normalisation,
    PublishedWidths,
    Recipe,
    RunSpec,
    ScheduleSpec,
    ScoreSpec,
    StructureSpec,
    TaskSpec,
    WeightsSpec,
)
from shrinkbench.spec.measures import Cost, Quality, Size
from shrinkbench.spec.training_cost import NOTHING, training_cost

TRAIN = Recipe(name="train", reference="r", optimizer="sgd", learning_rate=0.1, batch_size=8, epochs=160)
TUNE = TRAIN.model_copy(update={"name": "tune", "learning_rate": 0.001, "epochs": 40})
PROVENANCE = Provenance(
    started="", seconds=1, host="", device="", threads=1, python="", platform="", processor="", versions={}
)
SCRATCH_B = FinetuningSpec(name="scratch-b", weights="scratch", recipe="pretraining", equal="computation")
TICKET = FinetuningSpec(name="rewind-weights-0", weights="rewound", recipe="pretraining")
ANEW = FinetuningSpec(name="reinitialise", weights="reinitialised", recipe="pretraining")


def quality(top1):
    return Quality(metrics={"top1": top1, "top5": 1, "loss": 1}, examples=10)


def size(compression):
    return Size(
        parameters=1000,
        parameters_kept=round(1000 / compression),
        compression=compression,
        multiply_adds=100,
        multiply_adds_kept=100,
        theoretical_speedup=1,
    )


def result(
    name,
    mode,
    seed,
    after,
    *,
    before=0.1,
    compression=2.0,
    amount=None,
    recipe=TUNE,
    weights=TRAIN,
    images=None,
    start="trained",
    **changes,
):
    method = MethodSpec(
        base=name,
        structure=StructureSpec(name="s"),
        score=ScoreSpec(name="x"),
        allocation=AllocationSpec(name="g"),
        schedule=ScheduleSpec(name="one-shot", start=start),
        finetuning=CONTINUE,
    ).finetuned_by(mode)
    normalisation = Normalisation(mean=(0,), std=(1,))
    spec = RunSpec(
        task=TaskSpec(
            data=DataSpec(name="data", revision="r", normalisation=normalisation, train_images=images),
            model=ModelSpec(name="net"),
            weights=WeightsSpec(kind="pretrain", name="pretrain", recipe=weights),
        ),
        method=method,
        amount=amount or Compression(ratio=compression),
        seed=seed,
        recipe=recipe,
    )
    fields = {"status": "done", "before": quality(before), "after": quality(after), "provenance": PROVENANCE}
    return RunResult(key=spec.key, spec=spec, size=size(compression), **{**fields, **changes})


def cost_of(pretraining, retraining, multiply_adds):
    large = training_cost(epochs=pretraining, images=10, multiply_adds=100) if pretraining else NOTHING
    small = training_cost(epochs=retraining, images=10, multiply_adds=multiply_adds)
    return Cost(pretraining=large, pruning=NOTHING, retraining=small)


WIDTHS = PublishedWidths(target="li2017:net-a")
RESULTS = [
    *(
        result("m", CONTINUE, s, a, compression=1, before=b, cost=cost_of(160, 40, 100))
        for s, a, b in ((0, 0.99, 0.9), (1, 0.98, 0.8))
    ),
    *(result("m", CONTINUE, s, a, cost=cost_of(160, 40, 50)) for s, a in ((0, 0.7), (1, 0.72))),
    *(result("m", SCRATCH_E, s, a, recipe=TRAIN, cost=cost_of(0, 160, 50)) for s, a in ((0, 0.75), (1, 0.78))),
    result("li2017:net-a", CONTINUE, 0, 0.6, compression=1.5, amount=WIDTHS),
    result("li2017:net-a", SCRATCH_B, 0, 0.61, compression=1.5, amount=WIDTHS, recipe=TRAIN),
]


def rows(table):
    return [dict(zip(table.columns, (cell.text for cell in row), strict=True)) for row in table.rows]


def test_the_papers_layout():
    accuracy = scratch_tables(RESULTS)[0]
    assert accuracy.columns == (
        "task", "pruned network", "Unpruned", "Fine-tuned", "Scratch-E", "Scratch-B"
    )  # fmt: skip
    published, other = rows(accuracy)
    assert (published["pruned network"], other["pruned network"]) == ("li2017:net-a", "m 2×")
    assert other["Unpruned"] == f"85.00 ± {100 * statistics.stdev([0.9, 0.8]):.2f}"  # before fine-tuning
    assert other["Fine-tuned"] == f"71.00 ± {100 * statistics.stdev([0.7, 0.72]):.2f}"
    assert other["Scratch-E"].startswith("76.50 ± 2.12")
    assert (other["Scratch-B"], published["Scratch-B"]) == ("–", "61.00")
    assert [cell.text for row in accuracy.rows for cell in row if cell.best] == ["61.00", other["Scratch-E"]]
    assert "1 to 2 seeds" in accuracy.caption


def test_what_prunes_while_it_trains_is_pruned_and_finding_it_costs_scratch_nothing():
    def started(mode, **changes):
        return result("m", mode, 0, 0.8, recipe=TRAIN, start="initialisation", **changes)

    searched = cost_of(0, 160, 50).model_copy(update={"pruning": cost_of(160, 0, 1).pretraining})
    accuracy, *_, cost = scratch_tables(
        [
            started(CONTINUE, compression=1, cost=cost_of(0, 160, 100)),
            started(CONTINUE, cost=cost_of(0, 160, 100)),
            started(SCRATCH_E, cost=searched),
        ]
    )
    assert accuracy.columns[2:] == ("Unpruned", "Pruned", "Scratch-E")
    assert "1 seed." in accuracy.caption
    (row,) = rows(cost)
    assert (row["Pruned"], row["Scratch-E"]) == ("1.00 (160 epochs)", "0.50 (160 epochs)")


def test_rows_are_in_order_of_compression():
    more = [result("m", SCRATCH_E, 0, 0.5, compression=c) for c in (16.0, 4.0)]
    names = [row["pruned network"] for row in rows(scratch_tables([*RESULTS, *more])[0])]
    assert names == ["li2017:net-a", "m 2×", "m 4×", "m 16×"]


def test_costs_are_relative_to_training_the_large_network():
    *_, cost = scratch_tables(RESULTS)
    published, row = rows(cost)
    assert published["Fine-tuned"] == "–"  # these runs carry no costs
    assert row["Fine-tuned"] == f"{1 + 40 * 50 / (160 * 100):.2f} (40 epochs)"
    assert row["Scratch-E"] == "0.50 (160 epochs)"
    assert row["Scratch-B"] == "–"


def test_several_recipes_are_told_apart():
    long = TUNE.model_copy(update={"name": "tune-160", "epochs": 160})
    slow = TRAIN.model_copy(update={"learning_rate": 0.01})
    more = [
        result("m", CONTINUE, 0, 0.5, recipe=long),
        result("m", CONTINUE, 0, 0.4, weights=slow),
        result("m", SCRATCH_E, 0, 0.3, recipe=slow, weights=slow),
    ]
    accuracy = scratch_tables([*RESULTS, *more])[0]
    assert accuracy.columns[3:] == ("Fine-tuned (tune)", "Fine-tuned (tune-160)", "Scratch-E", "Scratch-B")
    assert {row["task"] for row in rows(accuracy)} == {
        "data / net / train (learning_rate 0.1)",
        "data / net / train (learning_rate 0.01)",
    }


@pytest.mark.parametrize("kept", [RESULTS[:4], []])
def test_without_training_from_scratch_there_is_nothing(kept):
    assert scratch_tables(kept) == []


def test_winning_tickets_stand_beside_new_random_weights():
    accuracy = scratch_tables(
        [
            result("m", TICKET, 0, 0.9, compression=1, recipe=TRAIN),
            result("m", TICKET, 0, 0.8, recipe=TRAIN),
            result("m", ANEW, 0, 0.7, recipe=TRAIN),
        ]
    )[0]
    (row,) = rows(accuracy)
    assert (row["Unpruned"], row["Winning ticket"], row["Random weights"]) == ("90.00", "80.00", "70.00")


def test_networks_of_different_subsets_are_different_rows():
    """Each beside its own unpruned network: nothing is averaged over two tasks."""
    runs = [
        made
        for images, top1 in ((None, 0.9), (100, 0.3))
        for made in (
            result("m", CONTINUE, 0, top1, compression=1, before=top1, images=images),
            result("m", CONTINUE, 0, top1 - 0.1, images=images),
            result("m", SCRATCH_E, 0, top1 - 0.2, images=images, recipe=TRAIN),
        )
    ]
    accuracy = scratch_tables(runs)[0]
    assert [(r["task"], r["Unpruned"], r["Fine-tuned"], r["Scratch-E"]) for r in rows(accuracy)] == [
        ("data / net / 100 training images", "30.00", "20.00", "10.00"),
        ("data / net / all images", "90.00", "80.00", "70.00"),
    ]


def test_an_amount_that_is_no_compression_is_shown_with_what_it_reached():
    channels = ChannelFraction(fraction=0.6)
    runs = [
        result("slim", mode, seed, 0.8, amount=channels, compression=ratio, recipe=recipe)
        for mode, recipe in ((CONTINUE, TUNE), (SCRATCH_E, TRAIN))
        for seed, ratio in ((0, 3.1), (1, 3.3))
    ]
    (row,) = rows(scratch_tables(runs)[0])
    assert row["pruned network"] == "slim 60% of channels (3.2×)"


def test_a_strategy_is_what_its_mode_does_however_it_is_spelt():
    odd = [
        FinetuningSpec(name="learning-rate", weights="scratch", recipe="pretraining"),
        FinetuningSpec(name="scratch", weights="kept", recipe="finetuning"),
        FinetuningSpec(name="rewind-learning-rate-3", recipe="pretraining", epoch=3),
    ]
    accuracy = scratch_tables([result("a:b", mode, 0, 0.5, recipe=TRAIN) for mode in odd])[0]
    assert accuracy.columns[3:] == ("Fine-tuned", "rewind-learning-rate-3", "Scratch-E")
    assert rows(accuracy)[0]["pruned network"] == "a:b 2×"


def test_two_controls_are_not_averaged():
    """The unpruned network is the trained one; one that was trained anew stands in where there is no other."""
    controls = [
        result("m", CONTINUE, 0, 0.99, compression=1, before=0.9),
        result("control", SCRATCH_E, 0, 0.5, compression=1, recipe=TRAIN),
    ]
    pruned = result("m", SCRATCH_E, 0, 0.4, recipe=TRAIN)
    for kept, expected in ((controls, "90.00"), (controls[1:], "50.00")):
        (row,) = rows(scratch_tables([*kept, pruned])[0])
        assert row["Unpruned"] == expected


def test_two_controls_of_other_seeds_are_not_averaged():
    later = FinetuningSpec(name="rewind-weights-5", weights="rewound", recipe="pretraining", epoch=5)
    runs = [
        result("m", TICKET, 0, 0.5, compression=1, recipe=TRAIN),
        result("m", later, 1, 0.9, compression=1, recipe=TRAIN),
        result("m", later, 2, 0.9, compression=1, recipe=TRAIN),
        result("m", SCRATCH_E, 0, 0.4, recipe=TRAIN),
    ]
    (row,) = rows(scratch_tables(runs)[0])
    assert row["Unpruned"] == "90.00 ± 0.00"


def test_modes_of_one_name_are_not_averaged():
    modes = [
        FinetuningSpec(name="again", recipe="pretraining", epoch=1),
        FinetuningSpec(name="again", recipe="pretraining", epoch=2),
        FinetuningSpec(name="again", recipe="pretraining", epoch=1, source="a" * 64),
        ANEW,
        FinetuningSpec(name="redraw", weights="reinitialised", recipe="pretraining"),
    ]
    runs = [result("m", mode, 0, 0.1 + n / 10, recipe=TRAIN) for n, mode in enumerate(modes)]
    (row,) = rows(scratch_tables(runs)[0])
    assert sorted(list(row.values())[3:]) == ["10.00", "20.00", "30.00", "40.00", "50.00"]


def test_a_run_that_was_measured_further_is_no_other_seed():
    more = (ExtraSpec(name="further", revision="r"),)
    plain = result("m", SCRATCH_E, 0, 0.4, recipe=TRAIN)
    spec = plain.spec.model_copy(update={"extra": more})
    again = plain.model_copy(update={"spec": spec, "key": spec.key})
    (row,) = rows(scratch_tables([plain, again])[0])
    assert row["Scratch-E"] == "40.00"
