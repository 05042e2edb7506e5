"""What agrees with itself may be hard to believe all the same, and clean results are not suspected."""

from dataclasses import replace

import numpy as np
import pytest
from made_results import (
    FINETUNE,
    METHODS,
    MULTIPLY_ADDS,
    changed,
    make_result,
    make_results,
    make_spec,
    quality,
    validated,
    write_store,
)

from shrinkbench.results.bundle import read_source
from shrinkbench.results.copies import find_other_seeds
from shrinkbench.results.layer_counts import find_other_layers, find_unequal_shares
from shrinkbench.results.networks import find_other_networks
from shrinkbench.results.odd_records import find_odd_records
from shrinkbench.results.recomputing import find_other_costs, find_other_epochs
from shrinkbench.results.record import Cost, EpochRecord, Latency, Quality, Spent
from shrinkbench.results.verification import _find_differing_controls, find_implausible, verify
from shrinkbench.spec import EarlyStopping, ScheduleSpec, WeightsSpec
from shrinkbench.spec.measures import LayerDensity

PAIR = [("cifar10", "resnet20")]


def doubts(tmp_path, results):
    bundle = read_source(write_store(tmp_path / "store", results).root)
    assert verify(bundle) == []
    return find_implausible(bundle)


def test_clean_results_are_not_suspected(tmp_path):
    assert doubts(tmp_path, make_results(methods=["random", "global_magnitude"])) == []


def test_a_test_accuracy_far_above_validation_is_told(tmp_path):
    """0.93 of 10,000 and 0.9 of 5,000 images; the standard error by hand, not pooled, is 0.00495."""
    result = make_result(make_spec())
    raised = validated(result.model_copy(update={"after": quality(0.93)}), quality(0.90, 5000))
    (told,) = doubts(tmp_path, [raised])
    assert told == (
        f"run {result.key[:12]}: test top1 0.9300 is 6.1 standard errors above its own on validation, 0.9000"
    )


def test_validation_that_was_copied_from_test_is_told(tmp_path):
    result = make_result(make_spec())
    assert doubts(tmp_path, [validated(result, result.after)]) == [
        f"run {result.key[:12]}: its test loss is that on validation, to the last digit"
    ]


def test_a_constant_answer_reads_alike_on_all_splits(tmp_path):
    constant = [changed(quality(0.1, images), loss=2.385087585449219) for images in (10_000, 500)]
    result = make_result(make_spec()).model_copy(update={"after": constant[0]})
    assert doubts(tmp_path, [validated(result, constant[1])]) == []


def rising(result, *, accuracy):
    epochs = [
        epoch.model_copy(
            update={
                "train_loss": 0.1234567 * epoch.epoch,
                "validation": {**epoch.validation, "top1": accuracy(epoch)},
            }
        )
        for epoch in result.epochs
    ]
    return result.model_copy(update={"epochs": tuple(epochs)})


def test_a_training_loss_that_rises_while_accuracy_does_not_fall_is_told(tmp_path):
    result = make_result(make_spec())
    (told,) = doubts(tmp_path, [rising(result, accuracy=lambda epoch: epoch.validation["top1"])])
    assert "its training loss rises after every epoch, from 0.1235 to 0.6173" in told


def test_what_diverges_or_prunes_on_the_way_may_rise():
    during = ScheduleSpec(name="gradual", during=True)
    gradual = METHODS["global_magnitude"].model_copy(update={"schedule": during})
    runs = [rising(make_result(make_spec(method=gradual)), accuracy=lambda epoch: epoch.validation["top1"])]
    runs.append(rising(make_result(make_spec()), accuracy=lambda epoch: 0.9 - 0.01 * epoch.epoch))
    assert [told for run in runs for told in find_odd_records(run)] == []


def test_what_diverges_at_the_accuracy_of_chance_may_rise():
    dead = rising(make_result(make_spec()), accuracy=lambda epoch: 0.1)
    diverging = [{"top1": 0.1, "loss": 20 * epoch.train_loss} for epoch in dead.epochs]
    epochs = [e.model_copy(update={"validation": v}) for e, v in zip(dead.epochs, diverging, strict=True)]
    assert list(find_odd_records(dead.model_copy(update={"epochs": tuple(epochs)}))) == []


def start(result, seed):
    """With a histogram of the seed's own network."""
    counts = list(result.weight_histogram.before)
    counts[0] += seed
    counts[1] += 10 - seed
    histogram = result.weight_histogram.model_copy(update={"before": tuple(counts)})
    return result.model_copy(update={"weight_histogram": histogram})


def test_runs_of_another_seed_are_told_by_the_weights_that_they_began_with():
    results = make_results(pairs=PAIR, methods=["random", "global_magnitude", "layerwise_magnitude"])
    whole = [start(r, r.spec.seed) for r in results]
    assert list(find_other_seeds(whole)) == []
    swapped = {0: 1, 1: 0, 2: 2}
    mixed = [start(r, swapped[r.spec.seed] if r.spec.method.name == "random" else r.spec.seed) for r in results]
    told = list(find_other_seeds(mixed))
    assert {(run.spec.method.name, run.spec.seed, seed) for run, seed in told} == {
        ("random", 0, 1),
        ("random", 1, 0),
    }
    assert list(find_other_seeds([start(r, 0) for r in results])) == []  # one network for all


@pytest.mark.parametrize(
    ("test", "validation", "images"),
    [(0.912, 0.90, 5000), (0.90, 0.95, 5000), (0.99, 0.90, 50), (1.0, 1.0, 5000), (0.0, 0.0, 100)],
    ids=["noise", "below", "few images", "all right", "all wrong"],
)
def test_what_noise_or_a_fall_explains_is_not(tmp_path, test, validation, images):
    result = make_result(make_spec())
    result = validated(result.model_copy(update={"after": quality(test)}), quality(validation, images))
    assert doubts(tmp_path, [result]) == []


def copied(result, seed):
    spec = result.spec.model_copy(update={"seed": seed})
    return result.model_copy(update={"spec": spec, "key": spec.key})


def test_a_seed_that_was_copied_is_told(tmp_path):
    results = make_results(pairs=PAIR, methods=["random"], compressions=(1, 4), seeds=(0, 1))
    victim = next(r for r in results if r.spec.target == 4)
    told = doubts(tmp_path, [*results, copied(victim, 7)])
    assert len(told) == 1
    assert "seed 0" in told[0]
    assert "seed 7" in told[0]


def with_losses(result, change):
    epochs = [e.model_copy(update={"train_loss": change(e)}) for e in result.epochs]
    return result.model_copy(update={"epochs": tuple(epochs)})


SAME_BUT = {
    "one image": lambda r: r.model_copy(update={"after": quality(r.after["top1"] - 1e-4)}),
    "one epoch's loss": lambda r: with_losses(r, lambda e: e.train_loss + (e.epoch == 2)),
    "all qualities": lambda r: validated(
        r.model_copy(update={"after": quality(0.5), "before": quality(0.4)}), quality(0.5, 5000)
    ),
}


@pytest.mark.parametrize("but", SAME_BUT)
def test_a_copied_seed_is_told_by_its_record_of_training(tmp_path, but):
    results = make_results(pairs=PAIR, methods=["random"], compressions=(1, 4), seeds=(0, 1))
    victim = next(r for r in results if r.spec.target == 4)
    (told,) = doubts(tmp_path, [*results, SAME_BUT[but](copied(victim, 7))])
    assert "seed 7 has training losses" in told
    assert ("quality before training" in told) == (but != "all qualities")


def test_short_numbers_and_losses_of_a_dead_network_are_nobodys(tmp_path):
    """ln 10 for every seed is what a constant answer gives; 0.5 may be anybody's."""
    results = make_results(pairs=PAIR, methods=["random"], compressions=(4,), seeds=(0, 1, 2))
    for loss in (2.302585092994046, 2.3025851, 0.5):
        same = [with_losses(r, lambda _, loss=loss: loss) for r in results]
        assert doubts(tmp_path / str(loss), same) == []


def test_seeds_that_start_from_one_network_are_told(tmp_path):
    results = make_results(pairs=PAIR, methods=["random"], compressions=(1, 4), seeds=(0, 1, 2))
    start = next(r for r in results if r.spec.is_control).before
    one = [r.model_copy(update={"before": start}) if r.spec.is_control else r for r in results]
    told = doubts(tmp_path, one)
    assert ["starts from the network of seed 0" in sentence for sentence in told] == [True, True]


@pytest.mark.parametrize("field", ["before", "after", "validation", "epochs_run", "epochs", "weight_histogram"])
def test_copies_of_one_control_agree_in_everything_measured(tmp_path, field):
    results = make_results(pairs=PAIR, methods=["random", "global_magnitude"], compressions=(1,), seeds=(0,))
    other = make_result(make_spec(compression=1, seed=5), accuracy=lambda _: 0.5)
    odd = results[1].model_copy(update={field: 4 if field == "epochs_run" else getattr(other, field)})
    if field == "weight_histogram":
        odd = results[1].model_copy(update={field: None})
    (told,) = _find_differing_controls([results[0], odd])
    assert f" in {field}" in told
    assert not list(_find_differing_controls(results))


def test_seeds_that_have_no_say_may_be_equal(tmp_path):
    """Nothing is random where weights are of a file and nothing is trained afterwards."""
    weights = WeightsSpec(kind="file", name="published", digest="a" * 64)
    spec = make_spec()
    spec = spec.model_copy(update={"task": spec.task.model_copy(update={"weights": weights})})
    untrained = {"epochs": (), "epochs_run": 0, "selected_epoch": 0, "validation": None}
    result = make_result(spec).model_copy(update=untrained)
    assert doubts(tmp_path, [result, copied(result, 1)]) == []


@pytest.mark.parametrize(
    ("loss", "told"),
    [(0.05, "which takes at least 0.06931"), (1e30, "far above its own on validation"), (0.07, ""), (4.0, "")],
)
def test_a_loss_that_does_not_go_with_the_accuracy_is_told(tmp_path, loss, told):
    """Of ten per cent that another class is more likely for, each has a loss of ln 2 at least."""
    result = make_result(make_spec(), accuracy=lambda _: 0.9)
    found = doubts(tmp_path, [result.model_copy(update={"after": changed(result.after, loss=loss)})])
    assert [told in sentence for sentence in found] == ([True] if told else [])


def test_a_network_of_another_size_is_told(tmp_path):
    results = make_results(
        pairs=PAIR, methods=["random", "global_magnitude"], compressions=(1, 4), seeds=(0, 1)
    )
    size = results[-1].size
    adds = size.multiply_adds * 10
    larger = {"multiply_adds": adds, "theoretical_speedup": adds / size.multiply_adds_kept}
    odd = results[-1].model_copy(update={"size": size.model_copy(update=larger)})
    (told,) = verify(read_source(write_store(tmp_path, [*results[:-1], odd]).root))
    assert told.startswith(
        f"run {odd.key[:12]}: resnet20 on cifar10 has {adds:,} multiply-adds and, in 7 other runs"
    )


def test_one_name_on_other_data_is_another_network(tmp_path):
    results = make_results(pairs=PAIR, methods=["random"], compressions=(1, 4), seeds=(0,))
    others = make_results(pairs=[("cifar100", "resnet20")], methods=["random"], compressions=(1, 4), seeds=(0,))
    wider = [r.model_copy(update={"size": r.size.model_copy(update={"multiply_adds": 10**9})}) for r in others]
    assert list(find_other_networks([*results, *wider])) == []


def test_a_conflict_in_loss_alone_names_the_loss(tmp_path):
    result = make_result(make_spec())
    other = result.model_copy(update={"after": changed(result.after, loss=result.after["loss"] + 0.5)})
    bundle = read_source(write_store(tmp_path, [result]).root)
    (sentence,) = verify(replace(bundle, others=(other,)))
    assert "after.loss" in sentence
    assert "top1" not in sentence


@pytest.mark.parametrize("factor", [1 + 1e-9, 1 + 1e-7])
def test_a_copy_whose_numbers_were_changed_in_a_late_digit_is_told(tmp_path, factor):
    first = make_result(make_spec(seed=0))
    other = copied(first, 1)
    epochs = tuple(e.model_copy(update={"train_loss": e.train_loss * factor}) for e in first.epochs)
    assert any(
        "up to rounding" in doubt
        for doubt in doubts(tmp_path, [first, other.model_copy(update={"epochs": epochs})])
    )


def test_starts_that_differ_in_a_late_digit_are_one(tmp_path):
    results = make_results(pairs=PAIR, methods=["random"], compressions=(1, 2))
    start = results[0].before
    one = [
        r.model_copy(update={"before": changed(start, loss=start["loss"] * (1 + 1e-9 * r.spec.seed))})
        if r.spec.is_control
        else r
        for r in results
    ]
    assert sum("starts from the network of seed 0" in doubt for doubt in doubts(tmp_path, one)) == 2


def test_other_learning_rates_than_the_recipes_are_told(tmp_path):
    result = make_result(make_spec())
    epochs = tuple(e.model_copy(update={"learning_rate": 9.0}) for e in result.epochs)
    root = write_store(tmp_path / "made", [result.model_copy(update={"epochs": epochs})]).root
    (told,) = verify(read_source(root))
    assert "the learning rate of epoch 1 is 9, and that of recipe 'cifar-finetune' is 0.0003" in told


def with_adds(result, kept):
    size = {"multiply_adds_kept": kept, "theoretical_speedup": result.size.multiply_adds / kept}
    return result.model_copy(update={"size": result.size.model_copy(update=size)})


def test_multiply_adds_that_do_not_go_with_the_layers_are_told(tmp_path):
    results = make_results(pairs=PAIR, methods=["random", "global_magnitude"], compressions=(1, 2, 4))
    assert verify(read_source(write_store(tmp_path / "clean", results).root)) == []
    victim = next(r for r in results if r.spec.target == 4)
    kept = victim.size.multiply_adds_kept
    for number, forged in enumerate((kept // 10, kept * 11 // 10)):
        spoilt = [with_adds(r, forged) if r is victim else r for r in results]
        told = verify(read_source(write_store(tmp_path / f"{number}", spoilt).root))
        assert told
        assert all("multiply-adds" in sentence for sentence in told)


STOPPING = FINETUNE.model_copy(update={"early_stopping": EarlyStopping(patience=2)})
WHOLE = Spent(epochs=5, images=50_000, multiply_adds=3.0 * 50_000 * MULTIPLY_ADDS)


def validated_as(result, scores, selected):
    """The same, whose epochs had these shares right on validation, and of which one was taken."""
    epochs = tuple(
        EpochRecord(
            epoch=number, learning_rate=3e-4, train_loss=1 / number, validation={"top1": score, "loss": 1.0}
        )
        for number, score in enumerate(scores, 1)
    )
    taken = Quality(metrics={"top1": scores[selected - 1], "loss": 1.0}, examples=5000)
    changes = {"epochs": epochs, "epochs_run": len(epochs), "selected_epoch": selected, "validation": taken}
    return result.model_copy(update=changes)


@pytest.mark.parametrize(
    ("scores", "selected", "told"),
    [
        ((0.7, 0.9, 0.8, 0.8), 2, ""),
        ((0.7, 0.9, 0.9, 0.9), 2, ""),
        ((0.7, 0.9, 0.8, 0.8), 3, "takes the best epoch, and epoch 2 has top1 0.9 on validation, epoch 3"),
        ((0.7, 0.9, 0.8), 2, "ended after epoch 3, and recipe 'cifar-finetune' stops later"),
        ((0.7, 0.9, 0.8, 0.8, 0.8), 2, "ended after epoch 5, and recipe 'cifar-finetune' stops after epoch 4"),
    ],
    ids=["stopped", "ties", "another epoch", "cut", "went on"],
)
def test_the_epoch_that_is_taken_and_the_last_one_are_those_of_the_recipe(tmp_path, scores, selected, told):
    run = validated_as(make_result(make_spec(recipe=STOPPING)), scores, selected)
    found = verify(read_source(write_store(tmp_path, [run]).root))
    assert [told in sentence for sentence in found] == [True] * bool(told)


def test_what_is_best_before_a_network_is_pruned_is_not_taken(tmp_path):
    method = make_spec().method
    during = method.model_copy(update={"schedule": method.schedule.model_copy(update={"during": True})})
    spec = make_spec(method=during, recipe=FINETUNE.model_copy(update={"epochs": 3}))
    run = validated_as(make_result(spec), (0.9, 0.7, 0.8), 3)
    assert verify(read_source(write_store(tmp_path, [run]).root)) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"epochs": 50.0}, "trained for 5 epochs, and its cost is of 50"),
        ({"images": 10}, "its cost is of 10 images, and 5 epochs of 10000 are 50000"),
        (
            {"multiply_adds": 1.0},
            "its training cost 1 multiply-adds, and 50000 images through its network take",
        ),
        ({"multiply_adds": WHOLE.multiply_adds}, "images through its network take"),
    ],
    ids=["clean", "epochs", "images", "cheap", "as the whole network"],
)
def test_the_cost_of_training_goes_with_its_epochs(tmp_path, changes, told):
    spec = make_spec()
    task = spec.task.model_copy(update={"data": spec.data.model_copy(update={"train_images": 10_000})})
    run = make_result(spec.model_copy(update={"task": task}))
    due = WHOLE.model_copy(update={"multiply_adds": 3.0 * 50_000 * run.size.multiply_adds_kept})
    nothing = Spent(epochs=0, images=0, multiply_adds=0)
    cost = Cost(pretraining=None, pruning=nothing, retraining=due.model_copy(update=changes))
    found = verify(read_source(write_store(tmp_path, [run.model_copy(update={"cost": cost})]).root))
    assert [told in sentence for sentence in found] == [True] * bool(told)


def with_cost(seed, *, pretraining=160.0, images=50_000):
    """A run whose cost goes with its network: ``images`` in all of its 5 epochs."""
    run = make_result(make_spec(seed=seed))
    nothing = Spent(epochs=0, images=0, multiply_adds=0)
    spent = Spent(epochs=5, images=images, multiply_adds=3.0 * images * run.size.multiply_adds_kept)
    cost = Cost(
        pretraining=Spent(epochs=pretraining, images=0, multiply_adds=0), pruning=nothing, retraining=spent
    )
    return run.model_copy(update={"cost": cost})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"images": 150_000}, "its epochs have 30,000 images, and those of run"),
        ({"images": 0}, "its epochs have 0 images, and those of run"),
        ({"pretraining": 0.0}, "its pretraining cost 0 epochs, and recipe 'pretrain' has 160"),
        ({"pretraining": 80.0}, "its pretraining cost 80 epochs, and recipe 'pretrain' has 160"),
    ],
    ids=["clean", "more images", "no images", "no pretraining", "less pretraining"],
)
def test_an_epoch_has_as_many_images_in_all_runs_and_pretraining_its_epochs(changes, told):
    found = list(find_other_costs([with_cost(0), with_cost(1), with_cost(2, **changes)]))
    assert [told in sentence for sentence in found] == [True] * bool(told)


def test_training_begins_with_the_first_epoch_except_where_pretraining_goes_on():
    run = make_result(make_spec())
    later = tuple(epoch.model_copy(update={"epoch": epoch.epoch + 4}) for epoch in run.epochs)
    began = run.model_copy(update={"epochs": later, "selected_epoch": 9})
    (told, *_) = find_other_epochs([began])
    assert told.endswith("its training began with epoch 5, and recipe 'cifar-finetune' with the first")
    method = run.spec.method
    rewound = method.finetuning.model_copy(update={"weights": "rewound", "recipe": "pretraining", "epoch": 4})
    spec = run.spec.model_copy(update={"method": method.model_copy(update={"finetuning": rewound})})
    assert not any("began" in clause for clause in find_other_epochs([began.model_copy(update={"spec": spec})]))


def with_loss(loss):
    def change(run):
        first, *rest = run.epochs
        return run.model_copy(update={"epochs": (first.model_copy(update={"train_loss": loss}), *rest)})

    return change


def with_provenance(**update):
    return lambda run: run.model_copy(update={"provenance": run.provenance.model_copy(update=update)})


def timed(seconds):
    return Latency(
        batch_size=1, form="small", dense_seconds=1.0, seconds=seconds, threads=1, precision="float32"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_loss(0.0), "the training loss of epoch 1 is 0, and that on validation after it 0."),
        (with_loss(1e6), "the training loss of epoch 1 is 1e+06, and that on validation after it 0."),
        (with_loss(20.0), ""),
        (with_provenance(started="yesterday"), "it was started at 'yesterday', which is no date"),
        (
            with_provenance(started="2999-01-01T00:00:00"),
            "it was started on 2999-01-01, which is still to come",
        ),
        (with_provenance(latency=(timed(1e-6),)), "it is 1e+06 times as fast, with 4"),
        (with_provenance(latency=(timed(0.1), timed(0.5))), "was timed 2 times at batch size 1, and one"),
        (with_provenance(latency=(timed(0.1),)), ""),
    ],
)
def test_records_that_are_hard_to_believe_are_told(tmp_path, change, told):
    found = doubts(tmp_path, [change(make_result(make_spec()))])
    assert [told in sentence for sentence in found] == [True] * bool(told)


def test_a_record_that_ends_before_its_recipe_is_told(tmp_path):
    scores = (0.7, 0.8, 0.9)
    whole = make_spec(recipe=FINETUNE.model_copy(update={"epochs": 3}))
    assert (
        verify(read_source(write_store(tmp_path / "whole", [validated_as(make_result(whole), scores, 3)]).root))
        == []
    )
    cut = make_spec(recipe=FINETUNE.model_copy(update={"epochs": 4}))
    (told,) = verify(
        read_source(write_store(tmp_path / "cut", [validated_as(make_result(cut), scores, 3)]).root)
    )
    assert told.endswith("its training ended after epoch 3, and recipe 'cifar-finetune' has 4 epochs")


PLACES = {"a": 1024, "b": 256, "c": 64}
TOTALS = {"a": 400, "b": 2000, "c": 9000}


def of_layers(seed, kept, **changes):
    """A run whose multiply-adds are a sum over its layers."""
    layers = {name: LayerDensity(kept=n, total=TOTALS[name]) for name, n in zip(TOTALS, kept, strict=True)}
    result = make_result(make_spec(seed=seed, **changes))
    adds = {
        "multiply_adds": sum(TOTALS[name] * places for name, places in PLACES.items()),
        "multiply_adds_kept": sum(layers[name].kept * places for name, places in PLACES.items()),
    }
    return result.model_copy(update={"layers": layers, "size": result.size.model_copy(update=adds)})


def drawn(count):
    generator = np.random.default_rng(0)
    return [of_layers(n, [int(generator.integers(1, TOTALS[name])) for name in TOTALS]) for n in range(count)]


def moved(run, amount):
    """The same, with some of layer a told as kept of layer b."""
    layers = dict(run.layers)
    for name, by in (("a", -amount), ("b", amount)):
        layers[name] = layers[name].model_copy(update={"kept": layers[name].kept + by})
    return run.model_copy(update={"layers": layers})


def test_counts_that_were_moved_to_another_layer_are_told():
    runs = drawn(12)
    assert list(find_other_layers(runs)) == []
    runs[7] = moved(runs[7], 1 if runs[7].layers["a"].kept > 1 else -1)
    (told,) = find_other_layers(runs)
    assert told.startswith(
        f"run {runs[7].key[:12]}: its multiply-adds do not follow from its layers as in 11 other"
    )


def test_where_any_places_would_fit_nothing_is_said_of_layers():
    runs = drawn(4)
    assert list(find_other_layers([*runs[:3], moved(runs[3], -1)])) == []


def test_products_of_another_kind_are_left_alone():
    runs = drawn(12)
    odd = [
        run.model_copy(update={"size": run.size.model_copy(update={"multiply_adds_kept": 7 * n * n + 5})})
        for n, run in enumerate(runs)
    ]
    assert list(find_other_layers(odd)) == []


def test_equal_shares_of_layers_do_not_depend_on_the_seed():
    method = make_spec().method
    rule = method.allocation.model_copy(update={"scope": "layerwise", "uniform": True})
    layerwise = method.model_copy(update={"allocation": rule})
    runs = [of_layers(seed, (100, 500, 2250), method=layerwise) for seed in range(3)]
    assert list(find_unequal_shares(runs)) == []
    (told,) = find_unequal_shares([*runs[:2], moved(runs[2], 3)])
    assert told.startswith(f"run {runs[2].key[:12]}: it keeps 97 of 'a', and run {runs[0].key[:12]}")
    assert list(find_unequal_shares([of_layers(0, (1, 2, 3)), of_layers(1, (3, 2, 1))])) == []
