"""The layout of Liu et al. 2019 from stored results: what stands in which row and column."""

from __future__ import annotations

import statistics

import pytest

from shrinkbench.report.scratch import scratch_tables
from shrinkbench.results.record import Provenance, RunResult
from shrinkbench.spec import DataSpec, MethodSpec, Normalisation, Recipe, RunSpec, WeightsSpec
from shrinkbench.spec.measures import Budget, Quality
from shrinkbench.spec.training_cost import NOTHING, training_cost

TRAIN = Recipe(name="train", reference="r", optimizer="sgd", learning_rate=0.1, batch_size=8, epochs=160)
TUNE = TRAIN.model_copy(update={"name": "tune", "learning_rate": 0.001, "epochs": 40})
PROVENANCE = Provenance(
    started="", seconds=1, host="", device="", threads=1, python="", platform="", processor="", versions={}
)


def quality(top1):
    return Quality(top1=top1, top5=1, loss=1, images=10)


def result(name, mode, seed, after, *, before=0.1, compression=2.0, recipe=TUNE, weights=TRAIN, **changes):
    method = MethodSpec(
        name=name, structure="s", score="x", allocation="g", schedule="one-shot", finetuning=mode
    )
    spec = RunSpec(
        data=DataSpec(name="data", revision="r", normalisation=Normalisation(mean=(0,), std=(1,))),
        model="net",
        weights=WeightsSpec(kind="pretrain", name="pretrain", recipe=weights),
        method=method,
        compression=compression,
        seed=seed,
        recipe=recipe,
    )
    fields = {"status": "done", "before": quality(before), "after": quality(after), "provenance": PROVENANCE}
    return RunResult(key=spec.key, spec=spec, **{**fields, **changes})


def budget(pretraining, retraining, multiply_adds):
    large = training_cost(epochs=pretraining, images=10, multiply_adds=100) if pretraining else NOTHING
    small = training_cost(epochs=retraining, images=10, multiply_adds=multiply_adds)
    return Budget(pretraining=large, pruning=NOTHING, retraining=small)


SCRATCH = "m[finetuning=scratch-e]"
RESULTS = [
    *(
        result("m", "continue", s, a, compression=1, before=b, budget=budget(160, 40, 100))
        for s, a, b in ((0, 0.99, 0.9), (1, 0.98, 0.8))
    ),
    *(result("m", "continue", s, a, budget=budget(160, 40, 50)) for s, a in ((0, 0.7), (1, 0.72))),
    *(
        result(SCRATCH, "scratch-e", s, a, recipe=TRAIN, budget=budget(0, 160, 50))
        for s, a in ((0, 0.75), (1, 0.78))
    ),
    result("li2017:net-a", "continue", 0, 0.6),
    result("li2017:net-a[finetuning=scratch-b]", "scratch-b", 0, 0.61, recipe=TRAIN),
]


def rows(table):
    return [dict(zip(table.columns, (cell.text for cell in row), strict=True)) for row in table.rows]


def test_the_papers_layout():
    accuracy, _ = scratch_tables(RESULTS)
    assert accuracy.columns == (
        "dataset", "network", "pruned network", "Unpruned", "Fine-tuned", "Scratch-E", "Scratch-B"
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
    start = {"start": "initialisation"}

    def started(name, mode, **changes):
        made = result(name, mode, 0, 0.8, recipe=TRAIN, **changes)
        spec = made.spec.model_copy(update={"method": made.spec.method.model_copy(update=start)})
        return made.model_copy(update={"spec": spec, "key": spec.key})

    searched = budget(0, 160, 50).model_copy(update={"pruning": budget(160, 0, 1).pretraining})
    accuracy, cost = scratch_tables(
        [
            started("m", "continue", compression=1, budget=budget(0, 160, 100)),
            started("m", "continue", budget=budget(0, 160, 100)),
            started(SCRATCH, "scratch-e", budget=searched),
        ]
    )
    assert accuracy.columns[3:] == ("Unpruned", "Pruned", "Scratch-E")
    assert "1 seed." in accuracy.caption
    (row,) = rows(cost)
    assert (row["Pruned"], row["Scratch-E"]) == ("1.00 (160 epochs)", "0.50 (160 epochs)")


def test_rows_are_in_order_of_compression():
    more = [result(SCRATCH, "scratch-e", 0, 0.5, compression=c) for c in (16.0, 4.0)]
    names = [row["pruned network"] for row in rows(scratch_tables([*RESULTS, *more])[0])]
    assert names == ["li2017:net-a", "m 2×", "m 4×", "m 16×"]


def test_costs_are_relative_to_training_the_large_network():
    _, cost = scratch_tables(RESULTS)
    published, row = rows(cost)
    assert published["Fine-tuned"] == "–"  # these runs carry no budgets
    assert row["Fine-tuned"] == f"{1 + 40 * 50 / (160 * 100):.2f} (40 epochs)"
    assert row["Scratch-E"] == "0.50 (160 epochs)"
    assert row["Scratch-B"] == "–"


def test_several_recipes_are_told_apart():
    long = TUNE.model_copy(update={"name": "tune-160", "epochs": 160})
    slow = TRAIN.model_copy(update={"learning_rate": 0.01})
    more = [
        result("m", "continue", 0, 0.5, recipe=long),
        result("m", "continue", 0, 0.4, weights=slow),
        result(SCRATCH, "scratch-e", 0, 0.3, recipe=slow, weights=slow),
    ]
    accuracy = scratch_tables([*RESULTS, *more])[0]
    assert accuracy.columns[4:] == ("Fine-tuned (tune)", "Fine-tuned (tune-160)", "Scratch-E", "Scratch-B")
    assert {row["network"] for row in rows(accuracy)} == {
        "net (train, 160 epochs at 0.1)",
        "net (train, 160 epochs at 0.01)",
    }


@pytest.mark.parametrize("kept", [RESULTS[:4], []])
def test_without_training_from_scratch_there_is_nothing(kept):
    assert scratch_tables(kept) == []


def test_winning_tickets_stand_beside_new_random_weights():
    accuracy = scratch_tables(
        [
            result("m[finetuning=rewind-weights-0]", "rewind-weights-0", 0, 0.9, compression=1, recipe=TRAIN),
            result("m[finetuning=rewind-weights-0]", "rewind-weights-0", 0, 0.8, recipe=TRAIN),
            result("m[finetuning=reinitialise]", "reinitialise", 0, 0.7, recipe=TRAIN),
        ]
    )[0]
    (row,) = rows(accuracy)
    assert (row["Unpruned"], row["Winning ticket"], row["Random weights"]) == ("90.00", "80.00", "70.00")
