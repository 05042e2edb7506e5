"""Faults to plant in a clean set of made results, one at a time, and what must name each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from made_results import FIGURE_6, PRETRAIN, make_result, make_results, plain_accuracy, quality

from shrinkbench.results.record import Latency, RunResult, TrainedSmaller
from shrinkbench.spec import CLASSIFICATION, Constraints, Normalisation

PAIR = [("cifar10", "resnet20")]
ONE = "layerwise_gradient"
"""The method that goes wrong where one does."""
Results = list[RunResult]
HALVES = Normalisation(mean=(0.5,), std=(0.5,))


@dataclass(frozen=True)
class Fault:
    """``plant`` spoils clean results; a pitfall of ``kind`` or a line of that id says all of ``words``."""

    name: str
    plant: Callable[[Results], Results]
    kind: str
    words: tuple[str, ...]


FAULTS: list[Fault] = []


def fault(kind: str, *words: str):
    """Register the decorated function as what plants a fault."""

    def register(plant):
        FAULTS.append(Fault(plant.__name__, plant, kind, words))
        return plant

    return register


def clean() -> Results:
    return make_results(pairs=PAIR)


def of(name: str):
    return lambda r: r.spec.method.name == name


def edit(results: Results, when, change) -> Results:
    """The results with ``change`` in place of each that ``when`` holds of."""
    return [change(r) if when(r) else r for r in results]


def respecified(**update):
    """Change fields of the specification, and make the result anew."""
    return lambda r: make_result(r.spec.model_copy(update=update))


def retasked(**update):
    return lambda r: make_result(r.spec.model_copy(update={"task": r.spec.task.model_copy(update=update)}))


def with_data(**update):
    return lambda r: retasked(data=r.spec.data.model_copy(update=update))(r)


def with_recipe(**update):
    return lambda r: respecified(recipe=r.spec.recipe.model_copy(update=update))(r)


def with_provenance(**update):
    return lambda r: r.model_copy(update={"provenance": r.provenance.model_copy(update=update)})


def with_weights(name: str):
    def change(r: RunResult) -> RunResult:
        weights = r.spec.weights.model_copy(
            update={"name": name, "recipe": PRETRAIN.model_copy(update={"name": name, "epochs": 80})}
        )
        return retasked(weights=weights)(r)

    return change


def with_accuracy(change):
    return lambda r: make_result(r.spec, accuracy=lambda spec: plain_accuracy(spec) + change(spec))


def failed(r: RunResult) -> RunResult:
    return make_result(r.spec, failed="the loss is not finite")


def renamed(r: RunResult, base: str) -> RunResult:
    spec = r.spec.model_copy(update={"method": r.spec.method.model_copy(update={"base": base})})
    return r.model_copy(update={"spec": spec, "key": spec.key})


def with_layers(r: RunResult) -> RunResult:
    """Keep other shares of layers; the whole stays."""
    layers = dict(r.layers)
    moved = layers["layer2.weight"].kept // 4
    for name, sign in (("layer2.weight", -1), ("layer3.weight", 1)):
        layers[name] = layers[name].model_copy(update={"kept": layers[name].kept + sign * moved})
    return r.model_copy(update={"layers": layers})


def untrained(r: RunResult) -> RunResult:
    nothing = {"epochs": (), "epochs_run": 0, "validation": None, "selected_epoch": 0}
    return r.model_copy(update=nothing)


# What the results consist of


@fault("seeds", "Fewer than 3 seeds (1)")
def single_seed(results):
    return [r for r in results if r.spec.seed == 0]


@fault("operating-points", "8x")
def single_operating_point(results):
    return [r for r in results if r.spec.is_control or r.spec.target == 8]


@fault("random", "random pruning")
def no_random(results):
    return [r for r in results if not r.spec.method.name.startswith("random")]


@fault("random-same-proportions", "random", "layer")
def no_controls_of_same_proportions(results):
    return [r for r in results if "@" not in r.spec.method.name]


@fault("random-same-proportions", "global_gradient", "seeds 1 and 2")
def controls_of_one_seed_only(results):
    return [r for r in results if r.spec.method.name != "random@global_gradient" or r.spec.seed == 0]


@fault("random-same-proportions", "global_gradient", "seeds 1 and 2")
def controls_right_for_one_seed_only(results):
    return edit(
        results,
        lambda r: of("random@global_gradient")(r) and not r.spec.is_control and r.spec.seed > 0,
        with_layers,
    )


@fault("control", "control")
def no_control(results):
    return [r for r in results if not r.spec.is_control]


@fault("control", "1 of 3 seeds (1)")
def control_missing_for_a_seed(results):
    return [r for r in results if not (r.spec.is_control and r.spec.seed == 1)]


@fault("seeds", ONE, "4x", "seed 1")
def runs_removed(results):
    return [r for r in results if not (of(ONE)(r) and r.spec.target == 4 and r.spec.seed == 1)]


@fault("failed-runs", ONE, "1 of 3 runs at 4x", "seed 1", "the loss is not finite")
def one_failed_run(results):
    return edit(results, lambda r: of(ONE)(r) and r.spec.target == 4 and r.spec.seed == 1, failed)


@fault("failed-runs", ONE, "3 of 3 runs at 16x", "3 of 3 runs at 32x")
def failures_at_high_compression(results):
    return edit(results, lambda r: of(ONE)(r) and (r.spec.target or 0) >= 16, failed)


@fault("target-missed", ONE, "reached compression 19.6 where 32 was asked")
def target_missed(results):
    def missed(r):
        ratio = 1 + 0.6 * (r.spec.target - 1)
        size = r.size.model_copy(update={"compression": ratio})
        return r.model_copy(update={"size": size})

    return edit(results, lambda r: of(ONE)(r) and not r.spec.is_control, missed)


@fault("layer-collapse", ONE, "no weight of", "at 32x (seeds 0 and 2)")
def layer_emptied(results):
    def emptied(r):
        name = next(iter(r.layers))
        gone = r.layers[name].model_copy(update={"kept": 0, "outputs": 0})
        return r.model_copy(update={"layers": {**r.layers, name: gone}})

    return edit(results, lambda r: of(ONE)(r) and r.spec.target == 32 and r.spec.seed != 1, emptied)


# Versions


def with_axis(axis, **update):
    """Change fields of one axis of the method, and make the result anew."""

    def change(r):
        method = r.spec.method
        value = getattr(method, axis).model_copy(update=update)
        return make_result(r.spec.model_copy(update={"method": method.model_copy(update={axis: value})}))

    return change


@fault("unequal-conditions", ONE, "version of finetuning continue 2", "6 of 7 methods", "continue 1")
def another_version_of_the_training_afterwards(results):
    return edit(results, of(ONE), with_axis("finetuning", version=2))


@fault("unequal-conditions", ONE, "version of score gradient 2")
def another_version_of_the_score(results):
    return edit(results, of(ONE), with_axis("score", version=2))


@fault("unequal-conditions", ONE, "code of structure weights abababababab", "that of shrinkbench")
def outside_code_under_the_name_of_a_structure(results):
    return edit(results, of(ONE), with_axis("structure", source="ab" * 32))


def judged_by(**update):
    """Change fields of the objective, and make the result anew."""

    def change(r):
        objective = r.spec.task.objective.model_copy(update=update)
        return respecified(task=r.spec.task.model_copy(update={"objective": objective}))(r)

    return change


@fault("unequal-conditions", ONE, "loss upper 100", "none")
def another_bound_of_a_metric(results):
    *others, loss = CLASSIFICATION.metrics
    return edit(results, of(ONE), judged_by(metrics=(*others, loss.model_copy(update={"upper": 100.0}))))


@fault("random-global", "another objective version: 2 against 1", "random at every amount")
def another_version_of_the_objective(results):
    return edit(results, of("random"), judged_by(version=2))


# Training


@fault("unequal-training", ONE, "epochs 60", "epochs 5")
def other_epochs_under_one_name(results):
    return edit(results, of(ONE), with_recipe(epochs=60))


@fault("unequal-training", ONE, "learning rate 0.003", "0.0003")
def other_learning_rate_under_one_name(results):
    return edit(results, of(ONE), with_recipe(learning_rate=3e-3))


@fault("unequal-training", ONE, "optimizer sgd", "optimizer adam")
def other_optimizer_under_one_name(results):
    return edit(results, of(ONE), with_recipe(optimizer="sgd"))


@fault("unequal-training", ONE, "weight decay 0.01", "weight decay 0.")
def other_weight_decay_under_one_name(results):
    return edit(results, of(ONE), with_recipe(weight_decay=0.01))


@fault("unequal-training", ONE, "augmentation off", "augmentation on")
def no_augmentation_under_one_name(results):
    return edit(results, of(ONE), with_recipe(augment=False))


@fault("unequal-training", "With seed 1", ONE, "learning rate 0.003", "0.0003")
def other_learning_rate_for_one_seed(results):
    return edit(results, lambda r: of(ONE)(r) and r.spec.seed == 1, with_recipe(learning_rate=3e-3))


@fault("unequal-training", "At 8x with seeds 0, 1 and 2", ONE, "batch size 512", "batch size 64")
def other_batch_size_at_one_amount(results):
    return edit(results, lambda r: of(ONE)(r) and r.spec.target == 8, with_recipe(batch_size=512))


@fault("unequal-training", "At 8x and 16x with seed 1", ONE, "learning rate 0.003", "0.0003")
def other_learning_rate_at_two_amounts_of_one_seed(results):
    def here(r):
        return of(ONE)(r) and r.spec.seed == 1 and r.spec.target in (8, 16)

    return edit(results, here, with_recipe(learning_rate=3e-3))


@fault("unequal-conditions", "At 4x with seed 2", ONE, "pruning of the classifier on")
def classifier_pruned_at_one_amount(results):
    def here(r):
        return of(ONE)(r) and r.spec.seed == 2 and r.spec.target == 4

    return edit(results, here, respecified(prune_classifier=True))


@fault("copied-runs", ONE, "global_magnitude", "in 3 of 15 runs they share")
def runs_of_another_method_at_one_amount(results):
    others = {r.spec.seed: r for r in results if of("global_magnitude")(r) and r.spec.target == 8}

    def copied(r):
        return others[r.spec.seed].model_copy(update={"key": r.key, "spec": r.spec})

    return edit(results, lambda r: of(ONE)(r) and r.spec.target == 8, copied)


@fault("unequal-training", ONE, "20 epochs against 5")
def more_epochs_spent(results):
    def longer(r):
        return r.model_copy(update={"epochs_run": 20})

    return edit(results, lambda r: of(ONE)(r) and not r.spec.is_control, longer)


@fault("unequal-training", ONE, "5 epochs against 2", "seed 0")
def other_epochs_by_seed_of_one_mean(results):
    def by_seed(r):
        return r.model_copy(update={"epochs_run": (2, 5, 8)[r.spec.seed]})

    longer = edit(results, lambda r: True, with_recipe(epochs=30))
    return edit(longer, lambda r: of(ONE)(r) and not r.spec.is_control, by_seed)


@fault("unequal-conditions", ONE, "validation examples 2500", "validation examples 5000")
def other_validation_examples(results):
    def fewer(r):
        return r.model_copy(update={"validation": r.validation.model_copy(update={"examples": 2500})})

    return edit(results, of(ONE), fewer)


@fault("unequal-training", "5 epochs", "control none", "seeds 0, 1 and 2")
def control_not_fine_tuned(results):
    return edit(results, lambda r: r.spec.is_control, lambda r: r.model_copy(update={"epochs_run": 0}))


@fault("unequal-training", "5 epochs", "control none", "seed 1)")
def control_not_fine_tuned_for_one_seed(results):
    return edit(
        results,
        lambda r: r.spec.is_control and r.spec.seed == 1,
        lambda r: r.model_copy(update={"epochs_run": 0}),
    )


@fault("unequal-training", "5 epochs", "control 1 ", "seeds 0, 1 and 2")
def control_trained_too_little(results):
    return edit(results, lambda r: r.spec.is_control, lambda r: r.model_copy(update={"epochs_run": 1}))


@fault("low-control", "5 of 7 methods are", "above their control, and on every seed")
def control_of_three_points_less(results):
    return edit(results, lambda r: r.spec.is_control, with_accuracy(lambda spec: -0.03))


@fault("unequal-training", ONE, "batch size 32", "batch size 64")
def other_batch_size_under_one_name(results):
    return edit(results, of(ONE), with_recipe(batch_size=32))


@fault("unequal-training", ONE, "precision bf16-mixed", "precision float32")
def other_precision_under_one_name(results):
    return edit(results, of(ONE), with_recipe(precision="bf16-mixed"))


@fault("selection-on-test", "best accuracy on the test split")
def selected_on_test(results):
    return edit(results, lambda r: True, with_recipe(selection="best-test"))


@fault("selection-on-test", ONE, "best accuracy on the test split")
def one_method_selected_on_test(results):
    return edit(results, of(ONE), with_recipe(selection="best-test"))


@fault("best-of-epochs", "3.0 points higher")
def best_of_epochs(results):
    def spiky(r):
        epochs = list(r.epochs)
        better = {"top1": epochs[-1].validation["top1"] + 0.03}
        epochs[2] = epochs[2].model_copy(update={"validation": better})
        return r.model_copy(update={"epochs": tuple(epochs), "selected_epoch": 3})

    return edit(results, lambda r: True, spiky)


# Conditions


@fault("unequal-conditions", ONE, "random", "weights B", "pretrain")
def other_weights_for_two_methods(results):
    return edit(results, lambda r: r.spec.method.name in (ONE, "random"), with_weights("B"))


@fault("unequal-conditions", "By seed", "seed 0 has weights pretrain", "weights B")
def pretraining_differs_by_seed(results):
    return edit(results, lambda r: r.spec.seed > 0, with_weights("B"))


@fault("unequal-conditions", ONE, "training images 40000", "training images all")
def other_training_split(results):
    return edit(results, of(ONE), with_data(train_images=40_000))


@fault("unequal-conditions", ONE, "test images 5000", "test images all")
def other_test_images(results):
    return edit(results, of(ONE), with_data(test_images=5_000))


@fault("unequal-conditions", ONE, "revision deb20edeb20e", "abababababab")
def other_data(results):
    return edit(results, of(ONE), with_data(revision="deb20e" * 10 + "dead"))


@fault("unequal-conditions", ONE, "seeds 10, 11, 12", "seeds 0, 1, 2")
def other_seeds_for_one_method(results):
    return edit(results, of(ONE), lambda r: respecified(seed=r.spec.seed + 10)(r))


@fault("unequal-conditions", ONE, "pruning of the classifier on", "pruning of the classifier off")
def classifier_pruned_for_one_method(results):
    return edit(results, lambda r: of(ONE)(r) and not r.spec.is_control, respecified(prune_classifier=True))


@fault("unequal-conditions", ONE, "torch 2.0.0", "torch 2.13.0", "device cuda")
def other_torch_and_device(results):
    versions = {"torch": "2.0.0", "shrinkbench": "0.1.0", "torchvision": "0.28.0"}
    return edit(results, of(ONE), with_provenance(versions=versions, device="cuda"))


@fault("unequal-conditions", ONE, "processor Other CPU", "threads 8", "Python 3.12.1", "numpy 1.26")
def other_processor_threads_and_python(results):
    versions = {"torch": "2.13.0", "shrinkbench": "0.1.0", "torchvision": "0.28.0", "numpy": "1.26"}
    change = with_provenance(processor="Other CPU", threads=8, python="3.12.1", versions=versions)
    return edit(results, of(ONE), change)


@fault("unequal-conditions", ONE, "threads 8", "threads 2")
def other_number_of_threads(results):
    return edit(results, of(ONE), with_provenance(threads=8))


@fault("unequal-conditions", ONE, "processes 4", "processes 1")
def trained_in_several_processes(results):
    return edit(results, of(ONE), with_provenance(processes=4))


@fault("unequal-conditions", ONE, "trained network smaller", "trained network masked")
def trained_as_smaller_networks(results):
    """Of methods that remove whole units; of single weights both networks are one."""

    def of_units(r):
        structure = r.spec.method.structure.model_copy(update={"unit": "channel"})
        method = r.spec.method.model_copy(update={"structure": structure})
        return respecified(method=method)(r)

    smaller = with_provenance(smaller=TrainedSmaller(trainings=1, smaller=1))
    return edit([of_units(r) for r in results], lambda r: of(ONE)(r) and not r.spec.is_control, smaller)


@fault("unequal-conditions", ONE, "shrinkbench 9.9.0", "shrinkbench 0.1.0")
def results_of_a_newer_version(results):
    versions = {"torch": "2.13.0", "shrinkbench": "9.9.0", "torchvision": "0.28.0", "numpy": "2.3.0"}
    return edit(results, of(ONE), with_provenance(versions=versions))


@fault("same-code", "torch: 2.0.0 in 21 runs (every method at 1x")
def controls_of_another_machine(results):
    versions = {"torch": "2.0.0", "shrinkbench": "0.1.0", "torchvision": "0.28.0", "numpy": "2.3.0"}
    return edit(results, lambda r: r.spec.is_control, with_provenance(versions=versions))


@fault("unequal-conditions", ONE, "normalisation")
def other_normalisation(results):
    return edit(results, of(ONE), with_data(normalisation=HALVES))


@fault("unequal-conditions", ONE, "bounds on layers multiples of 8", "bounds on layers none")
def bounds_for_one_method(results):
    bounded = respecified(constraints=Constraints(round_to=8))
    return edit(results, lambda r: of(ONE)(r) and not r.spec.is_control, bounded)


@fault("unequal-conditions", ONE, "measured examples 5000", "measured examples 10000")
def test_and_validation_swapped(results):
    return edit(results, of(ONE), lambda r: r.model_copy(update={"after": r.validation, "validation": r.after}))


def enlarged(r, weights, adds):
    """A network of so many times the weights in every layer, and so many times the multiply-adds."""
    layers = {
        n: d.model_copy(update={"kept": d.kept * weights, "total": d.total * weights, "positions": ()})
        for n, d in r.layers.items()
    }
    gone = sum(d.total - d.kept for d in layers.values())
    whole, all_adds = r.size.parameters * weights, r.size.multiply_adds * adds
    size = {
        "parameters": whole,
        "parameters_kept": whole - gone,
        "compression": whole / (whole - gone),
        "multiply_adds": all_adds,
        "theoretical_speedup": all_adds / r.size.multiply_adds_kept,
    }
    return r.model_copy(update={"layers": layers, "size": r.size.model_copy(update=size)})


@fault("unequal-conditions", ONE, "resnet20 on cifar10 has 2,620,000 parameters", "262,000")
def a_larger_network_under_one_specification(results):
    return edit(results, of(ONE), lambda r: enlarged(r, 10, 1))


@fault("architecture", "multiply-adds and, in 111 other runs", "layerwise_gradient at every amount but 1x")
def a_costlier_network_under_one_specification(results):
    return edit(results, lambda r: of(ONE)(r) and not r.spec.is_control, lambda r: enlarged(r, 1, 10))


@fault("unequal-conditions", ONE, "weights in layer1.weight")
def another_layer_under_one_specification(results):
    def narrower(r):
        moved = {"layer1.weight": -100, "layer2.weight": 100}
        layers = {n: d.model_copy(update={"total": d.total + moved.get(n, 0)}) for n, d in r.layers.items()}
        return r.model_copy(update={"layers": layers})

    return edit(results, lambda r: of(ONE)(r) and r.spec.target == 8, narrower)


@fault("unequal-conditions", ONE, "timed batch size 1;", "timed batch size 64")
def timed_at_another_batch_size(results):
    def timed(r):
        batch = 1 if of(ONE)(r) else 64
        times = {"form": "masked", "dense_seconds": 0.2, "seconds": 0.1, "threads": 2, "precision": "fp32"}
        return with_provenance(latency=(Latency(batch_size=batch, **times),))(r)

    return edit(results, lambda r: not r.spec.is_control, timed)


# Records


@fault("twin-methods", ONE, "twin", "up to rounding, in 15 of 15 runs")
def one_method_stored_under_two_names(results):
    return results + [renamed(r, "twin") for r in results if of(ONE)(r)]


@fault("twin-methods", ONE, "twin", "equal in structure")
def one_method_run_under_two_names(results):
    def again(r):
        return make_result(renamed(r, "twin").spec, accuracy=lambda spec: plain_accuracy(spec) - 0.001)

    return results + [again(r) for r in results if of(ONE)(r)]


@fault("copied-seeds", ONE, "seeds 0, 1 and 2")
def seeds_copied(results):
    first = {r.spec.amount: r for r in results if of(ONE)(r) and r.spec.seed == 0}

    def copied(r):
        spec = r.spec
        return first[spec.amount].model_copy(update={"spec": spec, "key": spec.key})

    return edit(results, of(ONE), copied)


@fault("copied-seeds", ONE, "seeds 0 and 1 have the same quality before training and quality after it to the")
def a_seed_copied_without_training(results):
    """Each seed has a network of its own, so that no two read alike."""
    first = {r.spec.amount: r for r in results if of(ONE)(r) and r.spec.seed == 0}

    def copy(r):
        return untrained(first[r.spec.amount].model_copy(update={"spec": r.spec, "key": r.spec.key}))

    return edit(edit(results, of(ONE), untrained), lambda r: of(ONE)(r) and r.spec.seed == 1, copy)


@fault("copied-seeds", ONE, "seeds 0, 1 and 2 have the same training losses and validation to the last digit")
def seeds_copied_but_for_an_image(results):
    first = {r.spec.amount: r for r in results if of(ONE)(r) and r.spec.seed == 0}

    def copied(r):
        source = first[r.spec.amount]
        measured = {
            name: getattr(source, name) for name in ("before", "validation", "epochs", "layers", "size")
        }
        image = 1e-4 * r.spec.seed
        before, after = (quality(q["top1"] + image) for q in (source.before, source.after))
        return r.model_copy(update=measured | {"before": before, "after": after})

    return edit(results, lambda r: of(ONE)(r) and r.spec.seed > 0, copied)


@fault("one-initial-network", "controls of seeds 0, 1 and 2", "start from one network")
def one_initial_network_for_all_seeds(results):
    start = next(r for r in results if r.spec.is_control).before
    return edit(results, lambda r: r.spec.is_control, lambda r: r.model_copy(update={"before": start}))


@fault("control", "Copies of one control that differ", ONE)
def another_initial_network_for_one_method(results):
    own = lambda r: r.spec.is_control and of(ONE)(r)  # noqa: E731 - a predicate
    return edit(results, own, lambda r: r.model_copy(update={"before": quality(0.5)}))


@fault("copied-seeds", "control", "seeds 0, 1 and 2")
def one_control_copied_for_every_seed(results):
    first = {r.spec.method: r for r in results if r.spec.is_control and r.spec.seed == 0}
    return edit(
        results,
        lambda r: r.spec.is_control,
        lambda r: first[r.spec.method].model_copy(update={"spec": r.spec, "key": r.key}),
    )


@fault("copied-runs", f"{ONE} at 16x on", f"{ONE} at 8x on", "seeds 0, 1 and 2")
def a_run_stored_under_another_amount(results):
    found = {r.spec.seed: r for r in results if of(ONE)(r) and r.spec.target == 8}

    def copied(r):
        measured = ("epochs", "before", "after", "validation")
        return r.model_copy(update={name: getattr(found[r.spec.seed], name) for name in measured})

    return edit(results, lambda r: of(ONE)(r) and r.spec.target == 16, copied)


@fault(
    "copied-runs", f"{ONE} at 2x on cifar10 / resnet20", f"{ONE} at 2x on cifar100 / resnet20", "4 more cases"
)
def runs_stored_for_another_task(results):
    more = make_results(pairs=[("cifar100", "resnet20")])
    found = {(r.spec.amount, r.spec.seed): r for r in results if of(ONE)(r)}

    def copied(r):
        return found[r.spec.amount, r.spec.seed].model_copy(update={"spec": r.spec, "key": r.key})

    return results + edit(more, of(ONE), copied)


# Orders and spread


@fault("metrics-not-interchangeable", "global_", "equal size", "equal theoretical speedup")
def size_and_speed_disagree(results):
    return make_results(pairs=PAIR, tilts=FIGURE_6)


@fault("order-varies-with-task", "global_magnitude", "cifar10 / resnet56")
def the_network_turns_the_order(results):
    def swapped(spec):
        late = spec.model.name == "resnet56" and spec.method.name == "global_magnitude" and spec.target > 1
        return -0.05 if late else 0.0

    pairs = [("cifar10", "resnet20"), ("cifar10", "resnet56")]
    return make_results(pairs=pairs, accuracy=lambda spec: plain_accuracy(spec) + swapped(spec))


@fault("order-varies-with-amount", "global_magnitude", "at compression")
def the_amount_turns_the_order(results):
    def late(spec):
        return -0.05 if spec.target > 8 and spec.method.name == "global_magnitude" else 0.0

    return edit(results, of("global_magnitude"), with_accuracy(late))


@fault("wide-seed-spread", ONE, "3 seeds")
def a_seed_collapses(results):
    return edit(
        results,
        lambda r: of(ONE)(r) and r.spec.target == 16 and r.spec.seed == 1,
        with_accuracy(lambda spec: -0.4),
    )
