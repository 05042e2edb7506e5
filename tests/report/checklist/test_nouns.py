"""Every noun of every sentence of the checklist: what breaks it, and what does not."""

import numpy as np
import pytest
from made_results import (
    FINETUNE,
    GLOBAL,
    LAYERWISE,
    METHODS,
    MULTIPLY_ADDS,
    PAIRS,
    make_result,
    make_results,
    make_spec,
    method,
    size_of,
)
from sampling import sampled

from shrinkbench.report.checklist import gather, judge
from shrinkbench.report.checklist.lines import RULES
from shrinkbench.results.record import LayerDensity
from shrinkbench.spec import (
    AllocationSpec,
    ChannelFraction,
    Compression,
    Constraints,
    EarlyStopping,
    FinetuningSpec,
    FractionPerLayer,
    Normalisation,
    StructureSpec,
)
from shrinkbench.spec.training_cost import scratch_b_epochs

ONE = PAIRS[:1]
TASK = "cifar10 / resnet20"


@pytest.fixture(scope="module")
def clean():
    return make_results(pairs=ONE)


def line(results, name, **options):
    return RULES[name](gather(results, **options))


def violation(results, name, **options):
    """What a line says that has to be violated."""
    found = line(results, name, **options)
    assert found.status == "violated", found.evidence
    return " ".join(found.evidence)


def respecified(results, wanted, **update):
    """The results with another specification, and its key, where ``wanted``."""
    changed = []
    for r in results:
        spec = r.spec.model_copy(update=update) if wanted(r.spec) else r.spec
        changed.append(r.model_copy(update={"spec": spec, "key": spec.key}))
    return changed


def is_method(*names):
    return lambda spec: spec.method.name in names


@pytest.mark.parametrize(("tasks", "seeds"), sampled([(3, 3), (3, 5), (1, 3), (1, 5), (2, 3), (2, 5)], every=2))
def test_no_false_alarm_on_clean_stores(tasks, seeds):
    results = make_results(pairs=PAIRS[-tasks:], seeds=range(seeds))
    found = {x.id for x in judge(results) if x.status == "violated"}
    assert found == ({"pairs"} if tasks < 3 else set())


# --- same libraries, data loading and other code -----------------------------------------------------------

SETTINGS = {
    "shrinkbench": {"versions": {"shrinkbench": "0.2.0"}},
    "torch": {"versions": {"torch": "9.9"}},
    "torchvision": {"versions": {"torchvision": "9.9"}},
    "numpy": {"versions": {"numpy": "9.9"}},
    "Python": {"python": "9.9"},
    "commit": {"commit": "9.9"},
    "device": {"device": "9.9"},
    "processor": {"processor": "9.9"},
    "threads": {"threads": 99},
    "processes": {"processes": 99},
}


def elsewhere(result, update):
    p = result.provenance
    update = {k: p.versions | v if k == "versions" else v for k, v in update.items()}
    return result.model_copy(update={"provenance": p.model_copy(update=update)})


@pytest.mark.parametrize("name", sampled(list(SETTINGS), every=3))
def test_each_setting_is_compared_and_named(clean, name):
    results = [elsewhere(r, SETTINGS[name]) if r.spec.seed == 2 else r for r in clean]
    found = line(results, "same-code")
    assert found.status == "violated"
    (sentence,) = (fact for fact in found.evidence if fact.startswith(f"{name}:"))
    assert "in 42 runs (1 of 3 seeds (2) everywhere)" in sentence
    assert "in 84 runs." in sentence
    assert set(found.runs) == {r.key for r in results if r.spec.seed == 2}
    assert name in line(clean, "same-code").evidence[0]


def test_what_is_not_recorded_is_not_claimed(clean):
    results = [elsewhere(r, {"commit": None}) for r in clean]
    found = line(results, "same-code")
    assert found.status == "satisfied"
    assert "commit" not in found.evidence[0]
    assert found.evidence[-1] == "Not recorded by every run, so unknown: commit."


TREATMENTS = {
    "augmentation": {"augment": False},
    "batch size": {"batch_size": 32},
    "precision": {"precision": "bf16-mixed"},
}


@pytest.mark.parametrize("name", TREATMENTS)
def test_each_way_of_loading_is_compared_between_methods(clean, name):
    recipe = FINETUNE.model_copy(update=TREATMENTS[name])
    told = violation(respecified(clean, is_method("random"), recipe=recipe), "same-code")
    assert f"{name} of networks" in told
    assert "for random" in told
    everyone = [*clean, *respecified(clean, lambda _: True, recipe=recipe)]
    assert line(everyone, "same-code").status == "satisfied"


def test_a_classifier_pruned_for_one_method_only(clean):
    results = respecified(clean, is_method("global_gradient"), prune_classifier=True)
    assert "pruning of the classifier" in violation(results, "same-code")
    assert "pruning of biases" in violation(
        respecified(clean, is_method("global_gradient"), prune_biases=True), "same-code"
    )


def of_other_data(results, wanted, **update):
    task = results[0].spec.task
    task = task.model_copy(update={"data": task.data.model_copy(update=update)})
    return respecified(results, wanted, task=task)


@pytest.mark.parametrize(
    ("update", "told"),
    [
        ({"train_images": 40000}, "40000 against all training images"),
        ({"validation_images": 10}, "10 against all validation images"),
        ({"test_images": 10}, "10 against all test images"),
        ({"revision": "cd" * 32}, "digest cdcdcdcdcdcd against abababababab"),
        ({"normalisation": Normalisation(mean=(0.5,), std=(0.5,))}, "another normalisation"),
        ({"sides": (1, 2)}, "data loaded by other code or at another size"),
    ],
)
def test_other_data_of_one_method_is_the_cause(clean, update, told):
    results = of_other_data(clean, is_method("layerwise_gradient"), **update)
    for name in ("same-code", "random", "competing-curves"):
        sentence = violation(results, name)
        assert told in sentence
        assert "layerwise_gradient at every amount" in sentence


def test_two_subsets_with_every_method_are_no_fault(clean):
    both = [*clean, *of_other_data(clean, lambda _: True, train_images=100)]
    assert line(both, "same-code").status == "satisfied"


def test_other_initial_weights_are_the_cause(clean):
    task = clean[0].spec.task
    weights = task.weights.model_copy(update={"kind": "file", "recipe": None, "digest": "12" * 32})
    other = task.model_copy(update={"weights": weights})
    results = respecified(clean, is_method("global_gradient", "layerwise_gradient"), task=other)
    told = violation(results, "random")
    assert "other initial weights: " in told
    assert "digest 121212121212" in told
    assert "global_gradient and layerwise_gradient" in told


def test_bounds_of_one_method_only(clean):
    wanted = is_method("global_gradient")
    results = respecified(
        clean, lambda spec: wanted(spec) and not spec.is_control, constraints=Constraints(round_to=8)
    )
    assert "bounds on layers" in violation(results, "same-code")


def test_precision_and_pruned_parts_may_differ_between_trainings_of_other_kinds(clean):
    """Methods that are trained alike are compared, and those only."""
    other = METHODS["random"].finetuned_by(FinetuningSpec(name="none", weights="kept", recipe="none"))
    recipe = FINETUNE.model_copy(update={"precision": "bf16-mixed"})
    untrained = respecified(clean, is_method("random"), method=other, recipe=recipe)
    assert "precision" not in " ".join(line(untrained, "same-code").evidence[:1])


# --- proportions -------------------------------------------------------------------------------------------


def skewed(result):
    """Much less of one layer."""
    name = list(result.layers)[1]
    thin = LayerDensity(kept=result.layers[name].kept // 8, total=result.layers[name].total)
    return result.model_copy(update={"layers": {**result.layers, name: thin}})


@pytest.mark.parametrize("kind", ["random", "magnitude"])
def test_a_control_that_is_right_for_one_seed_only(clean, kind):
    name = f"{kind}@global_gradient"
    wrong = [skewed(r) if r.spec.method.name == name and r.spec.seed > 0 else r for r in clean]
    absent = [r for r in clean if r.spec.method.name != name or r.spec.seed == 0]
    for results in (wrong, absent):
        told = violation(results, f"{kind}-same-proportions", proposed=["global_gradient"])
        assert f"seeds 1 and 2 of global_gradient at every amount on {TASK}" in told
    at_one_amount = [skewed(r) if r.spec.method.name == name and r.spec.target == 8 else r for r in clean]
    told = violation(at_one_amount, f"{kind}-same-proportions")
    assert told.endswith(f"keeps as much of every layer as: global_gradient at 8x on {TASK}.")


def test_draws_are_not_taken_for_other_proportions_by_chance():
    """However many layers are looked at: of 40 pages with draws at random none or one alarms."""
    rng = np.random.default_rng(0)
    uniform = method("layerwise_gradient", "gradient", LAYERWISE)
    drawn = method("random", "random", AllocationSpec(name="independent", scope="global", exact=False))
    specs = [
        make_spec(method=m, compression=c, seed=s)
        for m in (uniform, drawn)
        for c in (2, 4, 8, 16, 32)
        for s in range(3)
    ]
    results = [make_result(spec) for spec in specs]
    alarms = 0
    for _ in range(40):
        page = []
        for r in results:
            total, share = 2000, 1 / r.spec.target
            kept = rng.binomial(total, share, 20) if r.spec.method == drawn else [round(total * share)] * 20
            layers = {f"l{n}": LayerDensity(kept=int(k), total=total) for n, k in enumerate(kept)}
            page.append(r.model_copy(update={"layers": layers}))
        evidence = gather(page)
        (task,) = evidence.tasks
        found = evidence.same_proportions(task, "layerwise_gradient", "random")
        alarms += not all(found.values())
    assert alarms <= 1
    shifted = [r if r.spec.method == uniform else skewed(r) for r in page]
    evidence = gather(shifted)
    assert not any(evidence.same_proportions(task, "layerwise_gradient", "random").values())


def moved(result, source, target, count):
    """``count`` weights fewer of one layer, and more of another."""
    layers = dict(result.layers)
    for name, sign in ((source, -count), (target, count)):
        layers[name] = layers[name].model_copy(update={"kept": layers[name].kept + sign})
    return result.model_copy(update={"layers": layers, "size": size_of(layers)})


@pytest.mark.parametrize("kind", ["random", "magnitude"])
def test_one_weight_more_is_not_as_many(clean, kind):
    results = [
        moved(r, "conv1.weight", "layer1.weight", 1) if r.spec.method.name == f"{kind}@global_gradient" else r
        for r in clean
    ]
    told = violation([r for r in results if r.spec.target in (1, 8)], f"{kind}-same-proportions")
    assert "global_gradient at" in told


# --- amounts that were reached -----------------------------------------------------------------------------


def missing_its_target(result):
    """A network that was compressed half as far as asked."""
    if result.spec.is_control:
        return result
    nearer = make_result(
        result.spec.model_copy(update={"amount": Compression(ratio=1 + 0.5 * (result.spec.target - 1))})
    )
    return result.model_copy(update={"size": nearer.size, "layers": nearer.layers})


def test_a_baseline_that_missed_the_amount_was_not_run_at_it(clean):
    magnitude = is_method("layerwise_magnitude", "global_magnitude")
    few = [r for r in clean if r.spec.target in (1, 4, 8)]
    missed = [missing_its_target(r) if magnitude(r.spec) else r for r in few]
    assert "every method at every amount" in violation(missed, "magnitude-global-or-uniform")
    everybody = [missing_its_target(r) for r in few]
    assert line(everybody, "magnitude-global-or-uniform").status == "satisfied"
    one = [missing_its_target(r) if is_method("global_magnitude")(r.spec) else r for r in few]
    assert line(one, "magnitude-global-or-uniform").status == "satisfied"


def test_equal_shares_remove_as_much_and_are_equal(clean):
    shares = is_method("layerwise_magnitude", "layerwise_gradient")
    few = [r for r in clean if r.spec.target in (1, 4, 8)]
    missed = [missing_its_target(r) if shares(r.spec) else r for r in few]
    assert "global_gradient at every amount" in violation(missed, "uniform")
    unequal = [
        moved(r, "layer2.weight", "layer3.weight", r.layers["layer2.weight"].kept // 3)
        if shares(r.spec) and not r.spec.is_control
        else r
        for r in few
    ]
    assert "by equal shares" in violation(unequal, "uniform")


# --- pairs -------------------------------------------------------------------------------------------------


def test_pairs_without_a_comparison_do_not_count(clean):
    more = make_results(pairs=PAIRS[1:], compressions=(1, 2), methods=("random", "global_gradient"))
    assert line([*clean, *more], "pairs").status == "satisfied"
    controls = [r for r in more if r.spec.is_control]
    chance = [r for r in more if r.spec.method.name == "random" and r.spec.seed == 0]
    for few in (controls, chance):
        told = violation([*clean, *few], "pairs")
        assert "Pairs that count: cifar10 / resnet20." in told
        assert "do not count: cifar10 / resnet56, imagenet / resnet18." in told


def test_one_dataset_under_several_names_is_one_pair(clean):
    results = make_results(compressions=(1, 2), methods=("random", "global_gradient"))
    assert line(results, "pairs").status == "satisfied"
    task = clean[0].spec.task
    again = [
        r.model_copy(update={"spec": spec, "key": spec.key})
        for r in results
        if r.spec.data.name == "cifar10" and r.spec.model.name == "resnet20"
        for data in [task.data.model_copy(update={"name": "cifar10-again"})]
        for spec in [r.spec.model_copy(update={"task": task.model_copy(update={"data": data})})]
    ]
    two = [r for r in results if r.spec.model.name != "resnet56"]
    told = violation([*two, *again], "pairs")
    assert "another name, which count once: cifar10-again / resnet20." in told


# --- examples ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "what"), [("after", "measured"), ("validation", "validation")])
def test_other_numbers_of_examples_in_a_task(clean, field, what):
    results = [
        r.model_copy(update={field: getattr(r, field).model_copy(update={"examples": 2500})})
        if is_method("layerwise_gradient")(r.spec) and r.spec.seed == 1
        else r
        for r in clean
    ]
    told = violation(results, "same-code")
    assert f"{what} examples: 2500 in 6 runs (seed 1 of layerwise_gradient at every amount" in told


# --- baselines ---------------------------------------------------------------------------------------------


def test_a_method_without_validation_was_not_validated_on_as_many_images():
    last = FINETUNE.model_copy(update={"selection": "last"})
    results = make_results(pairs=ONE, recipe=last)
    assert line(results, "same-code").status == "satisfied"
    bare = [
        r.model_copy(
            update={
                "validation": None,
                "epochs": tuple(e.model_copy(update={"validation": {}}) for e in r.epochs),
            }
        )
        if r.spec.method.name == "random" and not r.spec.is_control
        else r
        for r in results
    ]
    told = violation(bare, "same-code")
    assert f"validation examples: none in 15 runs (random at every amount but 1x on {TASK})" in told


def test_a_baseline_needs_every_seed_and_amount(clean):
    without_seed = [r for r in clean if r.spec.method.score.kind != "random" or r.spec.seed != 1]
    assert violation(without_seed, "random").startswith("No random pruning beside 1 of 3 seeds (1) everywhere.")
    without_amount = [r for r in clean if r.spec.method.score.kind != "magnitude" or r.spec.target != 4]
    assert "every method at 4x" in violation(without_amount, "magnitude")


def test_only_baselines_that_stand_beside_every_run_are_named(clean):
    some = [
        r
        for r in clean
        if r.spec.method.name != "layerwise_magnitude" or (r.spec.target, r.spec.seed) in ((1, 0), (2, 0))
    ]
    (told,) = line(some, "magnitude").evidence
    assert "layerwise_magnitude" not in told
    assert "with its every seed: global_magnitude" in told
    plain = [r for r in clean if r.spec.method.name != "magnitude@global_gradient"]
    halves = [
        r
        for r in plain
        if r.spec.is_control
        or "magnitude" not in r.spec.method.name
        or (r.spec.method.name == "global_magnitude") == (r.spec.target < 8)
    ]
    (told,) = line(halves, "magnitude", proposed=["global_gradient"]).evidence
    assert told.endswith("one of global_magnitude, layerwise_magnitude (none of them beside every run).")


def test_a_fraction_of_every_layer_is_no_global_baseline(clean):
    amount = FractionPerLayer(fraction=0.5)
    results = respecified(clean, lambda spec: spec.target == 2, amount=amount)
    told = violation(results, "random-global")
    assert "at 50% per layer" in told
    assert "at 4x" not in told
    assert line(results, "random").status == "satisfied"
    assert line(results, "magnitude-global-or-uniform").status == "satisfied"  # there, shares are equal


# --- control -----------------------------------------------------------------------------------------------


def test_a_control_that_was_trained_shorter(clean):
    results = [
        r.model_copy(update={"epochs_run": 1}) if r.spec.is_control and r.spec.seed == 1 else r for r in clean
    ]
    told = violation(results, "control")
    assert "trained for 1 epochs, the pruned networks for 5: 1 of 3 seeds (1) everywhere" in told


def test_early_stopping_excuses_other_lengths_up_to_its_patience():
    recipe = FINETUNE.model_copy(update={"early_stopping": EarlyStopping(patience=3)})
    for epochs, status in ((4, "satisfied"), (2, "violated")):
        results = [
            r.model_copy(update={"epochs_run": epochs}) if r.spec.is_control else r
            for r in make_results(pairs=ONE, recipe=recipe)
        ]
        assert line(results, "control").status == status
    assert "stopped by one rule" not in line(make_results(pairs=ONE), "control").evidence[0]


def test_unknown_lengths_are_told(clean):
    results = [r.model_copy(update={"epochs_run": None}) for r in clean]
    assert "105 runs do not record for how many epochs" in " ".join(line(results, "control").evidence)


def test_controls_that_differ_between_methods(clean):
    results = [
        r.model_copy(update={"after": make_result(r.spec, accuracy=lambda _: 0.5).after})
        if r.spec.is_control and r.spec.method.name == "random"
        else r
        for r in clean
    ]
    told = violation(results, "control")
    assert "differ" in told
    assert "random at" in told
    others = {"before": clean[30].before, "validation": clean[30].validation, "epochs": clean[30].epochs}
    for field, value in others.items():
        results = [
            r.model_copy(update={field: value}) if r.spec.is_control and is_method("random")(r.spec) else r
            for r in clean
        ]
        assert "random at" in violation(results, "control")


# --- seeds -------------------------------------------------------------------------------------------------


def test_other_seeds_for_one_method_are_the_cause(clean):
    results = []
    for r in clean:
        other = is_method("layerwise_gradient")(r.spec)
        results.append(make_result(r.spec.model_copy(update={"seed": r.spec.seed + 10 * other})))
    where = f"layerwise_gradient at every amount on {TASK}"
    told = f"Other seeds for {where}: 10, 11 and 12, where others have 0, 1 and 2."
    assert violation(results, "seeds") == told


def test_a_cell_without_any_finished_run_holds_no_seeds(clean):
    """*Every* cell: one whose runs all failed is a cell all the same, and so is one that was only planned."""
    broken = [
        make_result(r.spec, failed="ValueError: no")
        if (r.spec.method.name, r.spec.target) == ("random", 8)
        else r
        for r in clean
    ]
    assert violation(broken, "seeds") == f"Missing: random at 8x on {TASK}."
    kept = [r for r in clean if (r.spec.method.name, r.spec.target) != ("random", 8)]
    missing = [r.spec for r in clean if (r.spec.method.name, r.spec.target) == ("random", 8)]
    assert violation(kept, "seeds", missing=missing) == f"Missing: random at 8x on {TASK}."


def test_cells_of_a_method_at_one_amount_are_not_of_every_amount(clean):
    some = [r for r in clean if r.spec.method.name != "random" or r.spec.target in (1, 2)]
    found = line(some, "seeds")
    assert found.status == "satisfied"
    assert found.evidence[0].startswith("Every cell of method and amount that was run holds 3 seeds")
    assert "the same for every method and amount" in line(clean, "seeds").evidence[0]


def test_each_seed_has_its_own_network_where_each_control_shows_it(clean):
    """*Each* seed, not one of them."""
    blind = [
        r.model_copy(update={"before": None}) if r.spec.is_control and r.spec.seed > 0 else r for r in clean
    ]
    (told,) = line(blind, "seeds").evidence
    assert told.endswith(
        "Each seed has its own initial network by its specification; not every control of seed 1 and 2 was "
        "measured before training."
    )
    (told,) = line(clean, "seeds").evidence
    assert told.endswith("Each seed has its own initial network.")


def test_copied_seeds_are_no_seeds(clean):
    results = []
    for r in clean:
        if r.spec.method.name == "random" and r.spec.seed == 2:
            (source,) = (o for o in clean if o.spec == r.spec.model_copy(update={"seed": 0}))
            r = source.model_copy(update={"spec": r.spec, "key": r.key})
        results.append(r)
    assert f"copies: seed 2 of random at every amount on {TASK}" in violation(results, "seeds")


def test_seeds_have_a_network_each(clean):
    start = next(r for r in clean if r.spec.is_control).before
    one = [
        r.model_copy(update={"before": start}) if r.spec.is_control and r.spec.seed < 2 else r for r in clean
    ]
    assert f"Seeds 0 and 1 on {TASK} start from one network" in violation(one, "seeds")
    unmeasured = [r.model_copy(update={"before": None}) if r.spec.is_control else r for r in clean]
    assert "by its specification" in line(unmeasured, "seeds").evidence[0]
    assert "by its specification" not in line(clean, "seeds").evidence[0]


def test_controls_may_be_copies_too(clean):
    first = {r.spec.method: r for r in clean if r.spec.is_control and r.spec.seed == 0}
    results = [
        first[r.spec.method].model_copy(update={"spec": r.spec, "key": r.key, "before": r.before})
        if r.spec.is_control and r.spec.seed == 2
        else r
        for r in clean
    ]
    assert "copies: seed 2 of every method at 1x" in violation(results, "seeds")


def test_missing_seeds_are_said_by_what_they_share(clean):
    results = [r for r in clean if not (r.spec.method.name == "random" and r.spec.seed == 2)]
    assert violation(results, "seeds") == f"Missing: seed 2 of random at every amount on {TASK}."


# --- Liu et al. --------------------------------------------------------------------------------------------

FILTERS = StructureSpec(name="filters", unit="filter")
SCRATCH_B = FinetuningSpec(name="scratch-b", weights="scratch", recipe="pretraining", equal="computation")


def structured(name, kind, allocation=GLOBAL, **fields):
    return method(name, kind, allocation).model_copy(update={"structure": FILTERS, **fields})


def scratch_runs(definition, seeds=(0, 1, 2), epochs=None):
    for seed in seeds:
        result = make_result(make_spec(method=definition.finetuned_by(SCRATCH_B), seed=seed))
        whole = scratch_b_epochs(FINETUNE.epochs, large=MULTIPLY_ADDS, small=result.size.multiply_adds_kept)
        yield result.model_copy(update={"epochs_run": epochs or whole})


def filter_runs(*definitions, **fields):
    return [make_result(make_spec(method=d, seed=s, **fields)) for d in definitions for s in range(3)]


def test_a_structured_method_needs_its_networks_from_scratch(clean):
    pruner = structured("filter_gradient", "gradient")
    runs = filter_runs(pruner)
    assert line(clean, "from-scratch").status == "inapplicable"
    assert "filter_gradient" in violation(runs, "from-scratch")
    assert line([*runs, *scratch_runs(pruner)], "from-scratch").status == "satisfied"
    told = violation([*runs, *scratch_runs(pruner, seeds=(0, 1))], "from-scratch")
    assert f"seed 2 of filter_gradient at 4x on {TASK}" in told
    assert "less computation" in violation([*runs, *scratch_runs(pruner, epochs=5)], "from-scratch")
    elsewhere = [moved(r, "layer1.weight", "layer2.weight", 9) for r in scratch_runs(pruner)]
    assert "What was kept of every layer was not trained" in violation([*runs, *elsewhere], "from-scratch")
    other = structured("filter_other", "other")
    assert violation([*runs, *scratch_runs(other)], "from-scratch")


def test_equal_epochs_are_not_equal_computation():
    pruner = structured("filter_gradient", "gradient")
    equal_epochs = SCRATCH_B.model_copy(update={"equal": "epochs"})
    runs = [*filter_runs(pruner), *filter_runs(pruner.finetuned_by(equal_epochs))]
    assert violation(runs, "from-scratch")


def test_the_control_of_a_longer_training_from_scratch_is_of_equal_computation():
    pruner = structured("filter_gradient", "gradient")
    specs = [make_spec(method=pruner.finetuned_by(SCRATCH_B), compression=1, seed=s) for s in range(3)]
    controls = [make_result(spec).model_copy(update={"epochs_run": 2}) for spec in specs]
    whole = [r.model_copy(update={"epochs_run": FINETUNE.epochs}) for r in controls]
    assert line([*scratch_runs(pruner), *whole], "control").status == "satisfied"
    assert f"{FINETUNE.epochs} epochs" not in line([*scratch_runs(pruner), *whole], "control").evidence[0]
    assert line([*scratch_runs(pruner), *controls], "control").status == "violated"


def test_an_automatic_method_needs_equal_shares(clean):
    assert line(clean, "uniform").status == "satisfied"
    automatic = [r for r in clean if not r.spec.method.allocation.uniform]
    assert "global_gradient at every amount" in violation(automatic, "uniform")
    uniform = is_method("layerwise_magnitude", "layerwise_gradient")
    without_seed = [r for r in clean if not (uniform(r.spec) and r.spec.seed == 1)]
    assert "seed 1 of global_gradient at every amount" in violation(without_seed, "uniform")
    without_amount = [r for r in clean if not (uniform(r.spec) and r.spec.target == 4)]
    assert "global_gradient at 4x" in violation(without_amount, "uniform")
    only = line(clean, "uniform", proposed=["layerwise_gradient"])
    assert only.status == "inapplicable"


def test_equal_shares_are_of_the_same_structure():
    pruner = structured("filter_gradient", "gradient")
    single = filter_runs(pruner, METHODS["layerwise_magnitude"])
    assert violation(single, "uniform")
    alike = filter_runs(pruner, structured("filter_l1", "magnitude", LAYERWISE))
    assert line(alike, "uniform").status == "satisfied"


def test_the_counterpart_of_a_fraction_of_all_channels_is_that_of_every_layer():
    channels = structured("slimming", "gradient", structure=StructureSpec(name="channels", unit="channel"))
    shares = structured("channel_l1", "magnitude", LAYERWISE, structure=channels.structure)
    runs = filter_runs(channels, amount=ChannelFraction(fraction=0.6))
    assert violation([*runs, *filter_runs(shares, amount=FractionPerLayer(fraction=0.5))], "uniform")
    beside = filter_runs(shares, amount=FractionPerLayer(fraction=0.6))
    assert line([*runs, *beside], "uniform").status == "satisfied"
    predefined = filter_runs(channels, amount=FractionPerLayer(fraction=0.6))
    assert line(predefined, "uniform").status == "inapplicable"


def test_a_network_from_scratch_is_a_control_and_not_judged():
    pruner = structured("filter_gradient", "gradient")
    results = [*filter_runs(pruner), *scratch_runs(pruner)]
    assert gather(results).proposed == ("filter_gradient",)
    assert "filter_gradient on" in violation(results, "competing-curves")


# --- the rest ----------------------------------------------------------------------------------------------


def test_controls_do_not_compete(clean):
    kept = is_method("global_gradient", "random@global_gradient", "magnitude@global_gradient")
    told = violation([r for r in clean if kept(r.spec)], "competing-curves")
    assert told == f"Without a competitor: global_gradient on {TASK}."


def test_operating_points_are_said_by_what_is_there(clean):
    few = [r for r in clean if r.spec.method.name != "random" or r.spec.target in (1, 4)]
    assert violation(few, "operating-points") == f"Fewer than 5 points: only 4x for random on {TASK}."


def test_uncounted_multiply_adds_are_none(clean):
    size = clean[5].size.model_copy(update={"multiply_adds": 0, "multiply_adds_kept": 0})
    results = [*clean[:5], clean[5].model_copy(update={"size": size}), *clean[6:]]
    assert violation(results, "flops") == "1 run counts no multiply-adds."


def test_commits_are_counted(clean):
    results = [elsewhere(r, {"commit": None}) if r.spec.seed else r for r in clean]
    assert line(results, "code").evidence == ("42 of 126 runs record the commit 0123456789ab.",)


def test_weights_trained_by_nobody_are_vague(clean):
    task = clean[0].spec.task
    weights = task.weights.model_copy(update={"recipe": None})
    results = respecified(clean, lambda _: True, task=task.model_copy(update={"weights": weights}))
    assert "without a digest or a recipe" in violation(results, "architecture")


def test_data_without_a_digest_is_not_described(clean):
    results = of_other_data(clean, lambda _: True, revision="")
    for name in ("dataset", "identify"):
        assert "126 runs do not record the data" in violation(results, name)


def test_without_controls_nobody_says_how_far_accuracy_falls(clean):
    told = violation([r for r in clean if not r.spec.is_control], "range")
    assert told.startswith("Without the control of every run, nobody can tell how far accuracy falls: ")


# --- what each line says of all of something ---------------------------------------------------------------


def both_tasks(clean):
    return [*clean, *make_results(pairs=PAIRS[1:2])]


def test_a_baseline_of_one_task_is_none_for_another(clean):
    """Run on the *task* of every judged method."""
    here = is_method("random", "random@global_gradient")
    results = [r for r in both_tasks(clean) if not (here(r.spec) and r.spec.model.name == "resnet56")]
    for name in ("random", "random-global", "random-same-proportions"):
        assert "cifar10 / resnet56" in violation(results, name)


def test_another_method_may_not_stand_in_for_a_control_of_another_seed(clean):
    """A random run of the same *seed*."""
    shifted = respecified(clean, is_method("random@global_gradient"), seed=7)
    told = violation(shifted, "random-same-proportions", proposed=["global_gradient"])
    assert "global_gradient" in told


def test_the_control_of_another_task_is_none(clean):
    """A control of its *task*."""
    results = [r for r in both_tasks(clean) if not (r.spec.is_control and r.spec.model.name == "resnet56")]
    told = violation(results, "control")
    assert "resnet56" in told
    assert "resnet20" not in told


def test_the_control_of_another_recipe_is_none(clean):
    """A control of its *recipe*, by value, whatever it is called."""
    other = FINETUNE.model_copy(update={"learning_rate": 1e-3})
    results = respecified(clean, lambda spec: spec.is_control, recipe=other)
    assert "Without a finished control" in violation(results, "control")


def test_one_seed_that_falls_is_no_mean_that_does(clean):
    """*Mean* accuracy, of *the runs'* controls: of one control nothing follows for three runs."""

    def falls(spec):
        return 0.92 if spec.is_control else 0.75 if (spec.seed, spec.target) == (0, 32) else 0.9

    some = [make_result(r.spec, accuracy=falls) for r in clean if not r.spec.is_control or r.spec.seed == 0]
    assert "Without the control of every run" in violation(some, "range")


def test_a_method_at_one_amount_has_no_curve_to_compete_with(clean):
    two = [r for r in clean if r.spec.method.name in ("global_gradient", "random")]
    assert line(two, "competing-curves").status == "satisfied"
    some = [r for r in two if r.spec.method.name != "random" or r.spec.target == 2]
    assert "global_gradient on" in violation(some, "competing-curves")


@pytest.mark.parametrize("task", [0, 1])
def test_one_method_that_never_falls_breaks_the_range(clean, task):
    """The curve of *every* judged method, on every task."""
    model = PAIRS[task][1]

    def flat(r):
        wanted = r.spec.method.name == "layerwise_gradient" and r.spec.model.name == model
        return make_result(r.spec, accuracy=lambda _: 0.9) if wanted and not r.spec.is_control else r

    told = violation(list(map(flat, both_tasks(clean))), "range")
    assert told == (
        "Mean accuracy never falls 10 points below the runs' own controls: layerwise_gradient on "
        f"cifar10 / {model}."
    )


def test_one_method_at_one_amount_is_no_range(clean):
    few = [r for r in clean if r.spec.method.name != "layerwise_gradient" or r.spec.target in (1, 32)]
    assert "One operating point is no range: layerwise_gradient" in violation(few, "range")


def test_fewer_seeds_on_one_task_are_told(clean):
    """Every cell, of *every task*."""
    results = [r for r in both_tasks(clean) if not (r.spec.model.name == "resnet56" and r.spec.seed)]
    assert violation(results, "seeds").startswith("Fewer than 3 seeds (1) on cifar10 / resnet56.")
    assert "cifar10 / resnet56" in violation(results, "error-bars")


def test_a_metric_that_one_run_lacks_is_not_stated_by_all(clean):
    first = next(r for r in clean if not r.spec.is_control)
    bare = first.after.model_copy(update={"metrics": {"top1": first.after["top1"]}})
    results = [r.model_copy(update={"after": bare}) if r.key == first.key else r for r in clean]
    assert violation(results, "both-accuracies") == "1 run states no top-1 or no top-5."
    stated = line(results, "raw-accuracy").evidence[0]
    assert stated == f"All {len(results)} finished runs state top1 on the test split."


def test_a_planned_point_without_a_run_has_no_accuracy(clean):
    lacking = next(r for r in clean if r.spec.target == 8)
    results = [r for r in clean if r.key != lacking.key]
    assert "at 8x" in violation(results, "raw-accuracy", missing=[lacking.spec])
    assert "another accuracy" in violation(clean, "raw-accuracy", disputed=[lacking.key])


def test_a_control_that_another_source_contradicts(clean):
    control = next(r for r in clean if r.spec.is_control and r.spec.seed == 1)
    told = violation(clean, "control", disputed=[control.key])
    name = control.spec.method.name
    assert told == (
        f"Controls with other numbers or another outcome in another source: seed 1 of {name} at 1x on {TASK}."
    )
    assert line(clean, "raw-accuracy", disputed=[control.key]).status == "satisfied"  # theirs are undisputed


def test_a_speedup_that_was_not_counted_is_not_stated(clean):
    size = clean[5].size.model_copy(update={"multiply_adds": 0, "multiply_adds_kept": 0})
    results = [*clean[:5], clean[5].model_copy(update={"size": size}), *clean[6:]]
    assert violation(results, "both-sizes") == "1 run counts no multiply-adds."


@pytest.mark.parametrize("update", [{"versions": {"numpy": "2"}}, {"processor": ""}, {"device": ""}])
def test_hardware_that_one_run_does_not_record(clean, update):
    told = clean[4].provenance.model_copy(update=update)
    results = [*clean[:4], clean[4].model_copy(update={"provenance": told}), *clean[5:]]
    found = line(results, "hardware")
    assert found.status == "violated"
    assert found.runs == (clean[4].key,)


def test_a_result_that_names_no_shrinkbench_was_not_carried_out_by_it(clean):
    told = clean[4].provenance.model_copy(update={"versions": {"torch": "2"}})
    results = [*clean[:4], clean[4].model_copy(update={"provenance": told}), *clean[5:]]
    found = line(results, "how-compared")
    assert found.status == "undecidable"
    assert found.evidence == ("1 of 126 results do not record which shrinkbench carried them out.",)
    assert line(clean, "how-compared").status == "satisfied"


def test_a_network_of_a_plug_in_is_defined_elsewhere(clean):
    """`shrinkbench describe` prints the networks that it has."""
    task = clean[0].spec.task
    foreign = task.model_copy(update={"model": task.model.model_copy(update={"source": "0" * 64})})
    results = respecified(clean, lambda _: True, task=foreign)
    assert line(results, "architecture").status == "undecidable"
    cited = [r.model_copy(update={"references": {"model": "he2016deep"}}) for r in results]
    assert "describe" not in line(cited, "architecture-citation").evidence[0]


def test_one_network_without_a_reference(clean):
    cited = [
        r.model_copy(update={"references": {"model": "he2016deep"}}) if r.spec.model.name == "resnet20" else r
        for r in both_tasks(clean)
    ]
    found = line(cited, "architecture-citation")
    assert found.status == "undecidable"
    assert found.evidence == ("Networks without a recorded reference: resnet56.",)


def test_an_amount_that_lacks_its_networks_from_scratch():
    """Beside *every* run of a judged structured method."""
    pruner = structured("filter_gradient", "gradient")
    runs = [*filter_runs(pruner), *filter_runs(pruner, compression=8.0), *scratch_runs(pruner)]
    assert f"filter_gradient at 8x on {TASK}" in violation(runs, "from-scratch")


def test_one_task_without_a_competitor(clean):
    alone = [
        r
        for r in both_tasks(clean)
        if r.spec.model.name != "resnet56"
        or r.spec.method.name in ("global_gradient", "random@global_gradient")
    ]
    assert violation(alone, "competing-curves").startswith(
        "Without a competitor: global_gradient on cifar10 / resnet56."
    )
