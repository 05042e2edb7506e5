"""A record that is gone contradicts nothing: it is missed beside the runs of its kind that have it."""

import pytest
from made_results import make_results

from shrinkbench.results.lacking import find_lacking
from shrinkbench.results.odd_records import find_odd_records
from shrinkbench.results.record import Cost, Spent

PAIR = [("cifar10", "resnet20")]
NAMES = ("global_magnitude", "layerwise_magnitude", "random")
SPENT = Spent(epochs=5, images=5 * 45_000, multiply_adds=1e12)


def with_cost(run):
    return run.model_copy(update={"cost": Cost(pretraining=SPENT, pruning=SPENT, retraining=SPENT)})


@pytest.fixture(scope="module")
def clean():
    made = make_results(pairs=PAIR, methods=NAMES, compressions=(1, 2, 4, 8), weights=("pretrain", "other"))
    return [with_cost(run) for run in made]


def without(quality, name):
    return quality.model_copy(update={"metrics": {k: v for k, v in quality.metrics.items() if k != name}})


def no_cost(run):
    return {"cost": None}


def no_cost_of_pretraining(run):
    return {"cost": run.cost.model_copy(update={"pretraining": None})}


def not_measured_before(run):
    return {"before": None}


def no_loss_before(run):
    return {"before": without(run.before, "loss")}


def no_loss_on_validation(run):
    return {"validation": without(run.validation, "loss")}


def epochs_without_loss(run):
    return {
        "epochs": tuple(
            epoch.model_copy(update={"validation": {"top1": epoch.validation["top1"]}}) for epoch in run.epochs
        )
    }


def no_histogram(run):
    return {"weight_histogram": None}


def empty_histogram(run):
    nothing = (0,) * len(run.weight_histogram.before)
    return {"weight_histogram": run.weight_histogram.model_copy(update={"before": nothing, "after": nothing})}


def layer_renamed(run):
    (first, layer), *others = run.layers.items()
    return {"layers": {f"{first}.old": layer, **dict(others)}}


def no_versions(run):
    return {"provenance": run.provenance.model_copy(update={"versions": {}})}


TAKEN = [
    (no_cost, "no cost of pretraining and no cost of training"),
    (no_cost_of_pretraining, "no cost of pretraining"),
    (not_measured_before, "before training"),
    (no_loss_before, "no loss before training"),
    (no_loss_on_validation, "no loss on validation"),
    (epochs_without_loss, "no loss on validation after every epoch"),
    (no_histogram, "no histogram of weights"),
    (empty_histogram, "no histogram of weights"),
    (layer_renamed, "a layer 'conv1.weight.old' in place of 'conv1.weight'"),
    (no_versions, "no version of shrinkbench and no version of torch"),
]


def test_clean_results_lack_nothing(clean):
    assert list(find_lacking(clean)) == []


@pytest.mark.parametrize("take", TAKEN, ids=lambda case: case[0].__name__)
def test_what_one_run_leaves_out_is_missed(clean, take):
    remove, words = take
    chosen = next(run for run in clean if run.spec.target == 4 and run.spec.seed == 1)
    found = [run.model_copy(update=remove(run)) if run is chosen else run for run in clean]
    (told,) = find_lacking(found)
    assert told.startswith(f"run {chosen.key[:12]}: it has ")
    assert words in told


@pytest.mark.parametrize("take", [TAKEN[0], TAKEN[2], TAKEN[5], TAKEN[8]], ids=lambda case: case[0].__name__)
def test_what_a_method_leaves_out_is_missed_in_each_of_its_runs(clean, take):
    remove, words = take
    own = [run for run in clean if run.spec.method.name == NAMES[0] and not run.spec.is_control]
    found = [run.model_copy(update=remove(run)) if run in own else run for run in clean]
    told = list(find_lacking(found))
    assert {sentence[4:16] for sentence in told} == {run.key[:12] for run in own}
    assert all(words in sentence for sentence in told)


def test_what_nobody_or_only_few_record_is_not_missed(clean):
    for remove in (no_cost, not_measured_before, no_histogram):
        bare = [run.model_copy(update=remove(run)) for run in clean]
        assert list(find_lacking(bare)) == []
        assert list(find_lacking([clean[5], *bare[:5], *bare[6:]])) == []


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"seconds": 0.0}, "it trained 5 epochs in 0 seconds"),
        ({"seconds": 1e9}, "took 1e+09 seconds, which are not over"),
        ({"started": "1970-01-01T00:00:00+00:00"}, "before there was a PyTorch"),
    ],
)
def test_times_that_no_training_has_are_told(clean, update, words):
    run = clean[5]
    odd = run.model_copy(update={"provenance": run.provenance.model_copy(update=update)})
    assert list(find_odd_records(run)) == []
    (told,) = find_odd_records(odd)
    assert words in told


def test_training_that_changed_no_digit_is_told(clean):
    run = next(run for run in clean if run.spec.target == 8)
    (told,) = find_odd_records(run.model_copy(update={"after": run.before}))
    assert "it reads as before training, to the last digit of the loss" in told
