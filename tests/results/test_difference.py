"""Two sets of results: which runs, numbers, settings and means tell them apart."""

from pathlib import Path

import pytest
from made_results import FINETUNE, changed, make_result, make_results, make_spec, plain_accuracy, write_store

from shrinkbench.results.bundle import Bundle, read_source, write_bundle
from shrinkbench.results.conflicts import unlike
from shrinkbench.results.difference import SettingDifference, difference_of
from shrinkbench.results.merging import merge
from shrinkbench.results.record import Cost, Spent

PAIR = [("cifar10", "resnet20")]
GRID = {"pairs": PAIR, "methods": ["random", "global_magnitude"], "compressions": (1, 4), "seeds": (0, 1)}


@pytest.fixture(scope="module")
def results():
    return make_results(**GRID)


def compared(tmp_path, first, second):
    paths = [write_store(tmp_path / n, list(r), name=n).root for n, r in (("a", first), ("b", second))]
    return difference_of(*map(read_source, paths))


def test_a_store_and_its_bundle_are_the_same(results, tmp_path):
    store = write_store(tmp_path / "a", results)
    write_bundle(store.root, tmp_path / "a.zip")
    found = difference_of(read_source(store.root), read_source(tmp_path / "a.zip"))
    assert found.is_empty
    assert (found.runs, found.cells, found.settings) == ((8, 8), (), ())


def test_another_machine_is_no_difference(results, tmp_path):
    elsewhere = [
        r.model_copy(update={"provenance": r.provenance.model_copy(update={"host": "elsewhere"})})
        for r in results
    ]
    assert compared(tmp_path, results, elsewhere).is_empty


def test_runs_of_one_set_only_are_named(results, tmp_path):
    missing = next(r for r in results if r.spec.target == 4 and r.spec.method.name == "random")
    found = compared(tmp_path, results, [r for r in results if r is not missing])
    assert found.only_first == ((missing.key, "cifar10 / resnet20, random, 4x, seed 0"),)
    assert (found.only_second, found.unequal, found.settings) == ((), (), ())
    (cell,) = found.cells
    assert (cell.label, cell.first_n, cell.second_n) == ("cifar10 / resnet20, random, 4x", 2, 1)
    both = [r.headline for r in results if r.spec.target == 4 and r.spec.method.name == "random"]
    assert cell.first == pytest.approx(sum(both) / 2)
    assert cell.second == pytest.approx(both[1])


def test_other_numbers_stand_with_the_largest_difference_first(results, tmp_path):
    def shift(spec):
        by = {(4.0, "random", 0): 0.01, (4.0, "global_magnitude", 1): -0.02}
        return plain_accuracy(spec) + by.get((spec.target, spec.method.name, spec.seed), 0.0)

    other = make_results(**GRID, accuracy=shift)
    found = compared(tmp_path, results, other)
    assert [round(u.difference, 4) for u in found.unequal] == [-0.02, 0.01]
    assert found.unequal[0].fields == ("before", "after", "validation", "epochs")
    assert (found.only_first, found.only_second) == ((), ())
    assert [(c.first_n, c.second_n, c.same_settings) for c in found.cells] == [(2, 2, True)] * 2
    assert [round(c.second - c.first, 4) for c in found.cells] == [-0.01, 0.005]
    failed = [make_result(r.spec, failed="killed") if r is results[0] else r for r in results]
    (lost,) = compared(tmp_path / "failed", results, failed).unequal
    assert (lost.second, lost.difference, lost.fields[0]) == (None, None, "status")


def with_epochs(result, **update):
    return result.model_copy(
        update={"epochs": tuple(e.model_copy(update=update) for e in result.epochs), "epochs_run": 5}
    )


COST = Cost(
    pretraining=None,
    pruning=Spent(epochs=0, images=0, multiply_adds=0),
    retraining=Spent(epochs=5, images=9, multiply_adds=1e9),
)
ALSO_MEASURED = {
    "epochs_run": lambda r: r.model_copy(update={"epochs_run": 50}),
    "epochs": lambda r: with_epochs(r, train_loss=2.0),
    "weight_histogram": lambda r: r.model_copy(update={"weight_histogram": None}),
    "cost": lambda r: r.model_copy(update={"cost": COST}),
    "layers": lambda r: r.model_copy(
        update={"layers": {n: d.model_copy(update={"outputs": 3}) for n, d in r.layers.items()}}
    ),
}


@pytest.mark.parametrize("field", ALSO_MEASURED)
def test_everything_measured_counts(results, field):
    first = {"name": "", "source": Path(), "plan": None, "problems": ()}
    other = [ALSO_MEASURED[field](r) if r is results[1] else r for r in results]
    found = difference_of(Bundle(results=tuple(results), **first), Bundle(results=tuple(other), **first))
    assert [u.fields for u in found.unequal] == [(field,)]
    assert not found.is_empty


def test_rounding_and_provenance_do_not_count(results):
    near = [
        r.model_copy(
            update={
                "after": changed(r.after, loss=r.after["loss"] * (1 + 1e-8)),
                "epochs": tuple(
                    e.model_copy(update={"train_loss": e.train_loss * (1 + 1e-8)}) for e in r.epochs
                ),
                "provenance": r.provenance.model_copy(update={"seconds": 1.0, "host": "elsewhere"}),
            }
        )
        for r in results
    ]
    assert not any(unlike(first, second) for first, second in zip(results, near, strict=True))


def test_the_settings_that_differ_are_named_with_both_values(results, tmp_path):
    longer = FINETUNE.model_copy(update={"epochs": 40, "learning_rate": 1e-3})
    other = [
        make_result(r.spec.model_copy(update={"recipe": longer})) if r.spec.method.name == "random" else r
        for r in results
    ]
    found = compared(tmp_path, results, other)
    (group,) = found.settings
    assert group.settings == (
        SettingDifference("recipe.learning_rate", 3e-4, 1e-3),
        SettingDifference("recipe.epochs", 5, 40),
    )
    assert len(group.pairs) == len(found.only_first) == len(found.only_second) == 4
    assert {a for a, _ in group.pairs} == {key for key, _ in found.only_first}
    assert not any(cell.same_settings for cell in found.cells)


def test_runs_of_another_seed_or_amount_are_no_settings(tmp_path):
    first = [make_result(make_spec(seed=0))]
    second = [make_result(make_spec(seed=1)), make_result(make_spec(seed=0, compression=8.0))]
    found = compared(tmp_path, first, second)
    assert (len(found.only_first), len(found.only_second), found.settings) == (1, 2, ())


def test_a_conflict_that_one_set_lacks_is_a_difference(results, tmp_path):
    """Merged in one order or another, equal numbers are used on some of the runs; the others count too."""
    plain = read_source(write_store(tmp_path / "plain", results).root)
    victim = next(r for r in results if not r.spec.is_control)
    other = make_result(victim.spec, accuracy=lambda spec: plain_accuracy(spec) + 0.01)
    write_store(tmp_path / "other", [other])
    merge([tmp_path / "plain", tmp_path / "other"], tmp_path / "both")
    both = read_source(tmp_path / "both")
    for pair in ((plain, both), (both, plain)):
        found = difference_of(*pair)
        assert (found.unequal, found.disputed, found.is_empty) == ((), (victim.key,), False)
    assert difference_of(both, both).is_empty


def test_runs_that_one_plan_alone_misses_are_a_difference(results, tmp_path):
    more = make_results(pairs=PAIR, methods=["global_gradient"], seeds=(0,))
    one = write_store(tmp_path / "one", results).root
    store = write_store(tmp_path / "two", [*results, *more])
    for result in more:
        store.result_path(result.key).unlink()
    found = difference_of(read_source(one), read_source(store.root))
    assert len(found.planned) == len(more)
    assert not found.is_empty
    assert difference_of(read_source(one), read_source(one)).is_empty


def test_failures_for_other_reasons_are_a_difference(tmp_path):
    spec = make_spec()
    found = compared(tmp_path, [make_result(spec, failed="a")], [make_result(spec, failed="b")])
    assert [u.fields for u in found.unequal] == [("error",)]
