"""Pitfalls: exactly the planted ones are found, and none in a clean set."""

import numpy as np
import pytest
from made_results import (
    FIGURE_6,
    FINETUNE,
    PRETRAIN,
    make_result,
    make_results,
    make_spec,
    method,
    plain_accuracy,
)

from shrinkbench.report.pitfalls import find_pitfalls
from shrinkbench.report.pitfalls.noise import clear_signs
from shrinkbench.report.pitfalls.practice import training_is_equal
from shrinkbench.report.statistics.observations import observe
from shrinkbench.results.record import Cost, Spent
from shrinkbench.spec import EarlyStopping, FinetuningSpec

ONE_PAIR = [("cifar10", "resnet20")]
TWO = ["global_magnitude", "layerwise_magnitude"]


def found(results):
    return find_pitfalls(results, observe(results))


def kinds(results):
    return sorted({pitfall.kind for pitfall in found(results)})


def test_a_clean_set_has_no_pitfall():
    assert found(make_results()) == []


def test_figure_6_size_and_speed_disagree():
    pitfalls = found(make_results(tilts=FIGURE_6, methods=TWO, pairs=ONE_PAIR))
    assert [p.kind for p in pitfalls] == ["metrics-not-interchangeable"]
    assert pitfalls[0].finding.startswith("global_magnitude is")
    assert {panel.axis for panel in pitfalls[0].panels} == {"compression", "theoretical_speedup"}


def test_figure_7_order_changes_with_the_amount():
    def accuracy(spec):
        late = spec.target > 8 and spec.method.name == "global_magnitude"
        return plain_accuracy(spec) - (0.05 if late else 0.0)

    pitfalls = found(make_results(accuracy=accuracy, methods=TWO, pairs=ONE_PAIR))
    assert [p.kind for p in pitfalls] == ["order-varies-with-amount"]
    assert "less accurate at 16" in pitfalls[0].finding or "less accurate at 32" in pitfalls[0].finding


def test_figure_7_order_changes_with_the_network():
    def accuracy(spec):
        swapped = spec.model.name == "resnet56" and spec.method.name == "global_magnitude" and spec.target > 1
        return plain_accuracy(spec) - (0.05 if swapped else 0.0)

    pitfalls = found(make_results(accuracy=accuracy, methods=TWO))
    assert [p.kind for p in pitfalls] == ["order-varies-with-task"]
    assert pitfalls[0].where in (
        "cifar10 / resnet20 and cifar10 / resnet56",
        "imagenet / resnet18 and cifar10 / resnet56",
    )


def test_figure_8_initial_weights_confound_and_changes_do_not_cure_it():
    def accuracy(spec):
        steeper = 0.012 * np.log2(spec.target) if spec.weights.name == "A" else 0.0
        return plain_accuracy(spec) - steeper

    pitfalls = found(make_results(accuracy=accuracy, methods=TWO, pairs=ONE_PAIR, weights=("A", "B")))
    assert [p.kind for p in pitfalls] == ["initial-model-confounds"]
    assert "layerwise_magnitude never beats global_magnitude" in pitfalls[0].finding
    assert "does not cure it" in pitfalls[0].finding
    assert {panel.metric for panel in pitfalls[0].panels} == {"headline", "headline_change"}


def test_equal_weights_confound_nothing():
    assert found(make_results(methods=TWO, pairs=ONE_PAIR, weights=("A", "B"))) == []


def test_seeds_that_disagree_are_found_with_their_runs():
    def accuracy(spec):
        unlucky = spec.method.name == "global_gradient" and spec.target == 16 and spec.seed == 1
        return plain_accuracy(spec) - (0.25 if unlucky else 0.0)

    results = make_results(accuracy=accuracy)
    pitfalls = found(results)
    assert {p.kind for p in pitfalls} == {"wide-seed-spread"}
    by_key = {r.key: r.spec for r in results}
    assert {by_key[k].target for p in pitfalls for k in p.runs} == {16.0}
    assert {by_key[k].method.name for p in pitfalls for k in p.runs} == {"global_gradient"}


def test_selection_on_the_test_split_by_recipe():
    recipe = FINETUNE.model_copy(update={"selection": "best-test"})
    results = make_results(pairs=ONE_PAIR, recipe=recipe)
    assert kinds(results) == ["selection-on-test"]
    assert set(found(results)[0].runs) == {r.key for r in results}


def test_selection_on_the_test_split_by_equal_figures():
    results = [r.model_copy(update={"validation": r.after}) for r in make_results(pairs=ONE_PAIR)]
    assert kinds(results) == ["selection-on-test"]


def test_pretraining_selected_on_test_counts_too():
    weights_recipe = PRETRAIN.model_copy(update={"selection": "best-test"})
    results = []
    for r in make_results(pairs=ONE_PAIR):
        weights = r.spec.weights.model_copy(update={"recipe": weights_recipe})
        spec = r.spec.model_copy(update={"task": r.spec.task.model_copy(update={"weights": weights})})
        results.append(r.model_copy(update={"spec": spec, "key": spec.key}))
    assert kinds(results) == ["selection-on-test"]


def test_unequal_recipes_are_found():
    longer = FINETUNE.model_copy(update={"name": "long", "epochs": 60})
    results = make_results(methods=["global_magnitude"], pairs=ONE_PAIR)
    results += make_results(methods=["layerwise_magnitude"], pairs=ONE_PAIR, recipe=longer)
    pitfalls = found(results)
    assert [p.kind for p in pitfalls] == ["unequal-training"]
    assert "layerwise_magnitude has epochs 60; 1 of 2 methods has epochs 5." in pitfalls[0].finding


def test_unequal_recipes_of_one_name_are_told_apart():
    faster = FINETUNE.model_copy(update={"learning_rate": 3.0000001e-4})
    results = make_results(methods=["global_magnitude"], pairs=ONE_PAIR)
    results += make_results(methods=["layerwise_magnitude"], pairs=ONE_PAIR, recipe=faster)
    (pitfall,) = found(results)
    assert "has learning rate 0.00030000001; 1 of 2 methods has learning rate 0.0003." in pitfall.finding


def test_every_method_under_every_recipe_is_equal():
    longer = FINETUNE.model_copy(update={"name": "long", "epochs": 60})
    results = make_results(methods=TWO, pairs=ONE_PAIR)
    assert found(results + make_results(methods=TWO, pairs=ONE_PAIR, recipe=longer)) == []


@pytest.mark.parametrize(("stopping", "epochs", "expected"), [(None, 7, 1), (3, 7, 0), (3, 12, 1)])
def test_unequal_epochs_under_one_recipe(stopping, epochs, expected):
    rule = EarlyStopping(patience=stopping) if stopping else None
    recipe = FINETUNE.model_copy(update={"epochs": 30, "early_stopping": rule})
    results = [
        r.model_copy(update={"epochs_run": epochs}) if r.spec.method.name == "global_magnitude" else r
        for r in make_results(methods=TWO, pairs=ONE_PAIR, recipe=recipe)
    ]
    titles = [p.title for p in found(results) if "control" not in p.title]
    assert titles == ["Methods had unequal training"] * expected


def test_a_control_without_fine_tuning_is_found():
    results = [
        r.model_copy(update={"epochs_run": 0}) if r.spec.target == 1 else r
        for r in make_results(methods=TWO, pairs=ONE_PAIR)
    ]
    pitfalls = found(results)
    assert [p.kind for p in pitfalls] == ["unequal-training"]
    assert "control" in pitfalls[0].title


def test_best_of_epochs_is_found():
    def spiky(result):
        epochs = list(result.epochs)
        better = {"top1": epochs[-1].validation["top1"] + 0.03}
        epochs[2] = epochs[2].model_copy(update={"validation": better})
        return result.model_copy(update={"epochs": tuple(epochs), "selected_epoch": 3})

    results = [spiky(r) for r in make_results(methods=TWO, pairs=ONE_PAIR)]
    assert kinds(results) == ["best-of-epochs"]
    last = FINETUNE.model_copy(update={"selection": "last"})
    assert kinds([spiky(r) for r in make_results(methods=TWO, pairs=ONE_PAIR, recipe=last)]) == []


def test_pure_noise_shows_no_order():
    def accuracy(spec):
        rng = np.random.default_rng([spec.seed, len(spec.method.name), int(spec.target), len(spec.model.name)])
        return 0.8 + 0.003 * rng.standard_normal()

    assert found(make_results(accuracy=accuracy)) == []


def test_failed_runs_are_found_and_do_not_disturb():
    results = make_results(methods=TWO)
    results[5] = make_result(results[5].spec, failed="the loss is not finite")
    (pitfall,) = found(results)
    assert pitfall.finding == ("global_magnitude failed in 1 of 3 runs at 2x (seed 2): the loss is not finite.")


def signs_of(*differences):
    return [clear_signs({"task": {("a", "b"): list(d)}})["task"]["a", "b"] for d in differences]


def test_a_difference_counts_only_out_of_the_noise():
    assert signs_of([0.004, 0.0041, 0.004], [0.02, 0.021, 0.022], [-0.02, -0.021, -0.022]) == [0, 1, -1]
    assert signs_of([0.05, -0.05, 0.06], [0.009], [-0.5]) == [0, 0, 0]


def test_many_pairs_looked_at_need_clearer_differences():
    clear = {("a", "b"): [0.020, 0.025, 0.015]}
    assert clear_signs({0: clear})[0] == {("a", "b"): 1}
    noise = {k: {("a", "b"): [0.01, -0.012, 0.003]} for k in range(1, 30)}
    assert clear_signs({0: clear} | noise)[0] == {("a", "b"): 0}


def test_training_of_two_tasks_is_not_compared():
    """On a subset every method was trained by another recipe: within either task all are equal."""
    longer = FINETUNE.model_copy(update={"name": "long", "epochs": 60})
    results = make_results(methods=TWO, pairs=ONE_PAIR)
    for r in make_results(methods=TWO, pairs=ONE_PAIR, recipe=longer):
        data = r.spec.data.model_copy(update={"train_images": 100})
        spec = r.spec.model_copy(update={"task": r.spec.task.model_copy(update={"data": data})})
        results.append(make_result(spec))
    assert "unequal-training" not in kinds(results)


def test_the_control_of_other_runs_may_stay_untrained():
    """That of runs without fine-tuning has none itself; it says nothing about those that are fine-tuned."""
    untrained = FinetuningSpec(name="none", recipe="none")
    bare = method("bare", "magnitude", finetuning=untrained)
    results = make_results(methods=TWO, pairs=ONE_PAIR)
    for compression in (1.0, 4.0):
        spec = make_spec(method=bare, compression=compression)
        results.append(make_result(spec).model_copy(update={"epochs_run": 0}))
    assert not any("control" in p.title for p in found(results))


def test_the_best_of_epochs_is_told_by_task():
    """The gain of a subset's runs is not thinned by runs on all images."""

    def on_a_subset(result):
        data = result.spec.data.model_copy(update={"train_images": 100})
        spec = result.spec.model_copy(update={"task": result.spec.task.model_copy(update={"data": data})})
        epochs = list(result.epochs)
        better = {"top1": epochs[-1].validation["top1"] + 0.015}
        epochs[2] = epochs[2].model_copy(update={"validation": better})
        return result.model_copy(update={"spec": spec, "key": spec.key, "epochs": tuple(epochs)})

    results = make_results(methods=TWO, pairs=ONE_PAIR)
    both = results + [on_a_subset(r) for r in results]
    (pitfall,) = (p for p in found(both) if p.kind == "best-of-epochs")
    assert "100 training images" in pitfall.where


def told(results):
    return training_is_equal(results, observe(results))


def with_cost(result, adds):
    spent = Spent(epochs=5, images=100, multiply_adds=adds)
    nothing = Spent(epochs=0, images=0, multiply_adds=0)
    return result.model_copy(update={"cost": Cost(pretraining=nothing, pruning=nothing, retraining=spent)})


def test_training_that_is_equal_is_told_with_what_was_looked_at():
    results = make_results(methods=TWO, pairs=ONE_PAIR)
    assert told(results) == (
        True,
        "Within every task, methods were trained by one recipe; epochs were equal, up to 10 %.",
    )
    adds = {"global_magnitude": 150.0, "layerwise_magnitude": 100.0}
    equal, sentence = told([with_cost(r, adds[r.spec.method.name]) for r in results])
    assert equal
    assert "multiply-adds of training differed by up to 1.5 times" in sentence
    longer = FINETUNE.model_copy(update={"name": "long", "epochs": 60})
    both = told(results + make_results(methods=TWO, pairs=ONE_PAIR, recipe=longer))
    assert both[0]
    assert "the same recipes" in both[1]


def trained_for(epochs):
    """Two methods, of which one was trained for so many epochs with each seed; ``None`` is unrecorded."""
    return [
        r.model_copy(update={"epochs_run": epochs[r.spec.seed]})
        if r.spec.method.name == TWO[0] and not r.spec.is_control
        else r
        for r in make_results(methods=TWO, pairs=ONE_PAIR, recipe=FINETUNE.model_copy(update={"epochs": 30}))
    ]


def test_epochs_are_compared_seed_by_seed():
    """The mean of 2, 5 and 8 is that of 5, 5 and 5."""
    results = trained_for((2, 5, 8))
    equal, sentence = told(results)
    assert not equal
    assert "seed 0" in sentence
    assert "(5 epochs against 2)" in sentence
    assert any(p.kind == "unequal-training" and "seed 0" in p.where for p in found(results))


def test_epochs_that_nobody_recorded_are_not_equal():
    nobody = [r.model_copy(update={"epochs_run": None}) for r in trained_for((5, 5, 5))]
    assert (
        told(nobody)[1] == "Within every task, methods were trained by one recipe; no run records its epochs."
    )
    some = told(trained_for((5, None, 5)))[1]
    assert "5 of 30 runs do not record their epochs; recorded epochs were equal, up to 10 %." in some


def test_training_that_is_not_equal_is_told_as_the_pitfall_tells_it():
    for change in ({"optimizer": "sgd"}, {"learning_rate": 1e-3}, {"batch_size": 32}, {"augment": False}):
        other = FINETUNE.model_copy(update=change)
        results = make_results(methods=TWO[:1], pairs=ONE_PAIR)
        results += make_results(methods=TWO[1:], pairs=ONE_PAIR, recipe=other)
        equal, sentence = told(results)
        (pitfall,) = (p for p in found(results) if p.kind == "unequal-training")
        assert not equal
        assert pitfall.finding.rstrip(".") in sentence


def test_epochs_that_differ_at_equal_computation_are_equal_training():
    results = [
        with_cost(r, 100.0).model_copy(update={"epochs_run": 10})
        for r in make_results(methods=TWO, pairs=ONE_PAIR)
    ]
    longer = Spent(epochs=20, images=100, multiply_adds=100.0)
    results = [
        r.model_copy(update={"cost": r.cost.model_copy(update={"retraining": longer})})
        if r.spec.method.name == TWO[0]
        else r
        for r in results
    ]
    equal, sentence = told(results)
    assert equal
    assert "epochs differed by up to 4 times" in sentence


def test_early_stopping_may_double_what_is_spent_and_is_told():
    recipe = FINETUNE.model_copy(update={"epochs": 30, "early_stopping": EarlyStopping(patience=3)})
    results = [
        r.model_copy(update={"epochs_run": 8}) if r.spec.method.name == TWO[0] else r
        for r in make_results(methods=TWO, pairs=ONE_PAIR, recipe=recipe)
    ]
    equal, sentence = told(results)
    assert equal
    assert "epochs differed by up to 1.6 times" in sentence


def at_other_amounts(epochs, amounts=(1, 2.2, 4.4, 8.8, 17.6, 33)):
    """Two methods of one recipe that share no amount; the second was trained for so many epochs."""
    second = make_results(methods=TWO[1:], pairs=ONE_PAIR, compressions=amounts)
    return [
        *make_results(methods=TWO[:1], pairs=ONE_PAIR),
        *(r if r.spec.is_control else r.model_copy(update={"epochs_run": epochs}) for r in second),
    ]


def test_training_is_compared_between_amounts_too():
    """Curves are judged over a range, whatever their amounts: so is what they cost."""
    equal, sentence = told(at_other_amounts(30))
    assert not equal
    assert (
        "layerwise_magnitude was trained 6.0 times as long as global_magnitude (30 epochs against 5)"
        in sentence
    )
    findings = [p for p in found(at_other_amounts(30)) if p.title == "Methods had unequal training"]
    assert "beside" in findings[0].where
    assert told(at_other_amounts(5)) == (
        True,
        "Within every task, methods were trained by one recipe; epochs were equal, up to 10 %.",
    )


def test_where_no_range_is_shared_no_training_is_compared():
    equal, sentence = told(at_other_amounts(30, amounts=(1, 100, 150)))
    assert equal
    assert sentence.startswith("No two methods were run over a common range of pruning")


def test_who_was_not_trained_at_all_is_not_compared_by_a_ratio():
    equal, sentence = told(trained_for((0, 0, 0)))
    assert not equal
    assert "layerwise_magnitude was trained for 5 epochs, global_magnitude for none" in sentence
    assert "inf" not in sentence


def test_methods_that_have_more_conditions_than_others_share_some_with_them():
    """A variant of one method, and tasks that not every method has, are no unequal condition."""
    results = make_results(methods=TWO, pairs=ONE_PAIR)
    more = [
        make_result(r.spec.model_copy(update={"prune_classifier": True}))
        for r in results
        if r.spec.method.name == TWO[0] and not r.spec.is_control
    ]
    assert "unequal-conditions" not in kinds(results + more)
    wider = make_results(methods=TWO[:1], pairs=ONE_PAIR, seeds=(3, 4))
    assert "unequal-conditions" not in kinds(results + wider)


def test_a_version_that_nobody_recorded_is_no_other_version():
    results = make_results(methods=TWO, pairs=ONE_PAIR)

    def told_of(**versions):
        spoilt = []
        for r in results:
            known = r.provenance.versions | versions
            own = {name: version for name, version in known.items() if version}
            provenance = r.provenance.model_copy(update={"versions": own})
            wanted = r.spec.method.name == TWO[0] and not r.spec.is_control
            spoilt.append(r.model_copy(update={"provenance": provenance}) if wanted else r)
        return [p.finding for p in found(spoilt) if p.kind == "unequal-conditions"]

    assert told_of(torch="") == []
    (finding,) = told_of(torch="", numpy="9.9")
    assert "numpy 9.9" in finding
    assert "torch" not in finding


MEASURED = ("before", "after", "validation", "epochs")


def copying(change=lambda r: r, *, shift=0, spared=()):
    """Two methods, of which the second is a copy of the first, of ``shift`` seeds on, but for ``spared``."""
    results = make_results(methods=TWO, pairs=ONE_PAIR)
    own = {(r.spec.target, r.spec.seed): r for r in results if r.spec.method.name == TWO[0]}

    def copied(r):
        source = change(own[r.spec.target, (r.spec.seed + shift) % 3])
        return r.model_copy(update={name: getattr(source, name) for name in MEASURED})

    return [
        copied(r)
        if r.spec.method.name == TWO[1] and not r.spec.is_control and (r.spec.target, r.spec.seed) not in spared
        else r
        for r in results
    ]


def with_losses(result, factor, *, only=None):
    """The result with other training losses, of all epochs or of ``only`` one."""
    epochs = tuple(
        e.model_copy(update={"train_loss": e.train_loss * factor}) if only in (None, e.epoch) else e
        for e in result.epochs
    )
    return result.model_copy(update={"epochs": epochs})


@pytest.mark.parametrize(
    ("results", "count"),
    [
        (copying(), 15),
        (copying(shift=1), 15),
        (copying(spared=[(32, 2)]), 14),
        (copying(lambda r: with_losses(r, 1 + 1e-7, only=1)), 15),
        (copying(lambda r: with_losses(r, 1 + 1e-9), shift=2), 15),
    ],
)
def test_a_copied_method_is_found_however_it_was_disguised(results, count):
    (twin,) = (p for p in found(results) if p.kind == "twin-methods")
    assert f"up to rounding, in {count} of 15 runs they share" in twin.finding


def test_a_seed_whose_losses_were_changed_in_a_late_digit_is_a_copy():
    results = make_results(methods=TWO, pairs=ONE_PAIR)
    first = {(r.spec.method.name, r.spec.target): r for r in results if r.spec.seed == 0}
    spoilt = []
    for r in results:
        source = with_losses(first[r.spec.method.name, r.spec.target], 1 + 1e-9)
        update = {name: getattr(source, name) for name in MEASURED}
        spoilt.append(r.model_copy(update=update) if r.spec.seed == 1 else r)
    findings = [p for p in found(spoilt) if p.kind == "copied-seeds"]
    assert findings
    assert all("seeds 0 and 1 have the same" in p.finding for p in findings)


def emptied(result):
    """The same with a layer of which nothing is left."""
    name = "layer1.weight"
    layers = result.layers | {name: result.layers[name].model_copy(update={"kept": 0})}
    return result.model_copy(update={"layers": layers})


def test_what_trains_behind_an_emptied_layer_is_no_copy():
    """Of one seed it trains alike, whatever else was pruned."""
    results = make_results(methods=TWO[:1], pairs=ONE_PAIR)
    at_16 = {r.spec.seed: r for r in results if r.spec.target == 16}
    spoilt = [
        r.model_copy(update={name: getattr(at_16[r.spec.seed], name) for name in MEASURED})
        if r.spec.target == 32
        else r
        for r in results
    ]
    assert "copied-runs" in {p.kind for p in found(spoilt)}
    dead = [emptied(r) if r.spec.target in (16, 32) else r for r in spoilt]
    assert "copied-runs" not in {p.kind for p in found(dead)}
