"""How many seeds are needed, and what limits what is told of it."""

import pytest
from made_results import FINETUNE, make_result, make_results, write_store

from shrinkbench.report.power import power_notes, power_tables
from shrinkbench.report.statistics.observations import observe, observe_bundle
from shrinkbench.results.bundle import read_source
from shrinkbench.spec import UntilDecided

PAIR = [("cifar10", "resnet20")]
TWO = ("global_magnitude", "layerwise_magnitude")
LONGER = FINETUNE.model_copy(update={"epochs": 50, "learning_rate": 0.01})


def made(**options):
    return make_results(**{"pairs": PAIR, "methods": TWO, "compressions": (1, 2, 4, 8), **options})


def told(tmp_path, results):
    """The ranges of the tables' pairs, and the notes beside them."""
    write_store(tmp_path, results)
    bundle = read_source(tmp_path)
    observations = observe_bundle(bundle)
    tables = [*power_tables(observations, margin=0.01)]
    ranges = {tuple(c.text for c in row[:3]) for table in tables for row in table.rows}
    return ranges, [*power_notes(bundle, observations)]


def test_methods_under_one_condition_need_no_note(tmp_path):
    assert told(tmp_path, made()) == ({(*TWO, "1–8×")}, [])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"recipe": LONGER},
            "layerwise_magnitude has learning rate 0.01 and epochs 50",
        ),
        ({"weights": ("other",)}, "1 of 2 methods has weights other"),
        ({"pairs": [("cifar10", "resnet56")]}, "cifar10 / resnet56: one method alone was run there"),
        ({"seeds": (0, 1, 5)}, "layerwise_magnitude has seeds 0, 1, 5"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "said",
)
def test_what_one_method_has_for_itself_is_said(tmp_path, options, words):
    _, notes = told(tmp_path, [*made(methods=TWO[:1]), *made(methods=TWO[1:], **options)])
    assert any(words in note for note in notes), notes


def test_who_is_left_out_is_named(tmp_path):
    def broken(run):
        fails = run.spec.method.name == TWO[0] and run.spec.seed == 1 and run.spec.target == 4
        return make_result(run.spec, failed="the loss is not finite") if fails else run

    ranges, notes = told(tmp_path, [broken(run) for run in made(methods=(*TWO, "random"))])
    assert ranges == {(TWO[1], "random", "1–8×")}
    assert any("Not compared: global_magnitude (1 failed run (4x; seed 1))" in note for note in notes)


def test_seeds_added_until_decided_are_said(tmp_path):
    write_store(tmp_path, made())
    bundle = read_source(tmp_path)
    rules = UntilDecided(first_look=3, max_seeds=10)
    experiment = bundle.plan.experiments[0].model_copy(
        update={"until_decided": rules, "seed": tuple(range(10))}
    )
    notes = [*power_notes(bundle, observe(bundle.results, sequential=experiment.seeds_added))]
    assert any("Seeds were added until decided" in note for note in notes), notes
