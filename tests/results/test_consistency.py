"""Values beyond their bounds, and results that contradict themselves, are no results wherever they are read."""

import json
import time

import pytest
from made_results import FINETUNE, changed, make_result, make_results, make_spec, write_store

from shrinkbench.results.bundle import read_source, write_bundle
from shrinkbench.results.consistency import contradictions
from shrinkbench.results.merging import merge
from shrinkbench.results.verification import verify
from shrinkbench.spec import EarlyStopping

PAIR = [("cifar10", "resnet20")]


def put(path, value):
    """Change one value in the fields of a result, named by its path."""

    def change(fields):
        *parents, last = path.split("/")
        table = fields
        for parent in parents:
            table = table[int(parent)] if isinstance(table, list) else table[parent]
        table[int(last) if isinstance(table, list) else last] = value

    return change


def timed(**fields):
    """A wall time as it is stored, with other values of some fields."""
    usual = {"batch_size": 1, "form": "small", "dense_seconds": 1.0, "seconds": 0.5, "threads": 1}
    return usual | {"precision": "float32"} | fields


WRONG = {
    "accuracy above 1": (put("after/metrics/top1", 1.2), "top1 = 1.2 is above 1"),
    "accuracy in percent": (put("after/metrics/top1", 91.2), "top1 = 91.2 is above 1"),
    "120": (put("validation/metrics/top1", 120.0), "top1 = 120 is above 1"),
    "accuracy below 0": (put("before/metrics/top1", -0.5), "top1 = -0.5 is below 0"),
    "accuracy that is no number": (put("after/metrics/top1", float("nan")), "after.metrics.top1"),
    "accuracy of an epoch": (put("epochs/0/validation/top1", 1.01), "top1 = 1.01 is above 1"),
    "endless loss": (put("after/metrics/loss", float("inf")), "after.metrics.loss"),
    "loss below 0": (put("after/metrics/loss", -1.0), "loss = -1 is below 0"),
    "more kept than there was": (put("size/parameters_kept", 10**9), "more is kept"),
    "no parameters": (put("size/parameters", 0), "size.parameters"),
    "compression below 1": (put("size/compression", 0.5), "size.compression"),
    "compression": (put("size/compression", 3.5), "size.compression = 3.5 is not 262000 /"),
    "speedup": (put("size/theoretical_speedup", 77.0), "size.theoretical_speedup = 77 is not"),
    "layers": (put("layers/layer1.weight/kept", 0), "the layers do not add up"),
    "layer beyond": (put("layers/layer1.weight/kept", 10**6), "more is kept"),
    "half an image": (
        put("after/metrics/top1", 0.80005),
        "after.top1 = 0.80005 is not a count of 10000 images",
    ),
    "half an image before": (put("before/metrics/top5", 0.99995), "before.top5 = 0.99995 is not a count of"),
    "top5 below top1": (put("after/metrics/top5", 0.1), "after.top5 = 0.1 is below top1"),
    "images beyond counting": (put("after/examples", 10**400), "after.examples: input should be less than"),
    "parameters beyond counting": (put("size/parameters", 10**400), "size.parameters: input should be less"),
    "bins beyond counting": (put("weight_histogram/before/0", 10**400), "weight_histogram.before.0"),
    "epoch that was not run": (put("selected_epoch", 9), "epoch 9 is selected of 5 that were run"),
    "validation gone": (
        put("validation", None),
        "its recipe 'cifar-finetune' takes the best epoch by validation, and has no quality on it of epoch 5",
    ),
    "an epoch without validation": (put("epochs/2/validation", {}), "by validation, and epoch 3 was not"),
    "no validation at all": (
        lambda r: r.update(
            validation=None, selected_epoch=None, epochs=[e | {"validation": {}} for e in r["epochs"]]
        ),
        "by validation, and epoch 1 was not validated",
    ),
    "epoch that stands there twice": (put("epochs/1/epoch", 1), "its 5 epochs are not numbered"),
    "epochs cut": (lambda r: r.update(epochs=r["epochs"][:1]), "trained for 5 epochs and has records of 1"),
    "epochs gone": (lambda r: r.update(epochs=[]), "trained for 5 epochs and has records of 0"),
    "more epochs than the recipe has": (
        lambda r: r.update(epochs_run=31, epochs=[r["epochs"][0] | {"epoch": n} for n in range(1, 32)]),
        "trained up to epoch 31, and its recipe has 5",
    ),
    "epochs that were not": (put("epochs_run", 500), "trained for 500 epochs and has records of 5"),
    "validation of no epoch": (
        lambda r: r["validation"]["metrics"].update(top1=r["validation"]["metrics"]["top1"] + 0.03, top5=1.0),
        "is not that of the selected epoch 5",
    ),
    "loss on validation of no epoch": (
        put("validation/metrics/loss", 0.5),
        "validation.loss = 0.5 is not that",
    ),
    "no epoch selected": (put("selected_epoch", None), "its epochs were validated, and none is selected"),
    "the epoch before the first": (put("selected_epoch", 0), "no epoch is selected that it is of"),
    "half an image in an epoch": (put("epochs/1/validation/top1", 0.12345), "epoch 2.top1 = 0.12345 is not"),
    "training loss below 0": (put("epochs/0/train_loss", -5.0), "training loss of epoch 1 is -5"),
    "learning rate below 0": (put("epochs/0/learning_rate", -1.0), "epochs.0.learning_rate"),
    "no images": (put("after/examples", 0), "after.examples"),
    "key": (put("key", "../../../etc/passwd"), "key: string should match pattern"),
    "key of capitals": (put("key", "A" * 64), "key: string should match pattern"),
    "bins": (put("weight_histogram/before", [1, 2]), "the counts are not one for every bin"),
    "bins that fall": (lambda r: r["weight_histogram"]["edges"].reverse(), "the edges of the bins do not rise"),
    "bins of more weights than there are": (
        put("weight_histogram/after/9", 10**9),
        "weights after pruning, and the layers",
    ),
    "layers gone": (put("layers", {}), "no layer is named that they are of"),
    "more filters than weights": (put("layers/conv1.weight/outputs", 10**6), "1000000 outputs cannot keep"),
    "no filter with weights": (put("layers/conv1.weight/outputs", 0), "0 outputs cannot keep"),
    "a position of a larger kernel": (
        lambda r: r["layers"]["conv1.weight"].update(positions=[r["layers"]["conv1.weight"]["kept"], *[0] * 8]),
        "a position keeps more than its part",
    ),
    "another test split before": (
        lambda r: r.update(before={"metrics": {"top1": 0.5, "top5": 1.0, "loss": 1.0}, "examples": 2}),
        "the test split has 2 images before training and 10000 after",
    ),
    "a target that is out of reach and is not": (
        lambda r: r.update(status="failed", error="x", reachable=9.0, after=None, selected_epoch=5),
        "it failed to meet 4, and says that up to 9 can be met",
    ),
    "no time at all": (lambda r: r["provenance"].update(latency=[timed(seconds=0.0)]), "latency.0.seconds"),
    "a time of other rounds": (
        lambda r: r["provenance"].update(
            latency=[timed(time={"median": 0.9, "lower": 0.8, "upper": 1.0, "rounds": 5})]
        ),
        "the seconds are not the median",
    ),
    "a time beyond all": (put("provenance/seconds", 1e300), "provenance.seconds"),
    "time": (put("provenance/seconds", float("nan")), "provenance.seconds"),
    "unknown field": (put("size/colour", "red"), "size.colour"),
}


@pytest.fixture(scope="module")
def clean():
    return make_results(pairs=PAIR, methods=["random"], compressions=(1, 4), seeds=(0, 1))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_value_is_named_with_its_file_and_never_used(clean, tmp_path, wrong):
    change, sentence = WRONG[wrong]
    store = write_store(tmp_path / "store", clean)
    victim = next(r for r in clean if r.spec.target == 4)
    fields = json.loads(store.result_path(victim.key).read_text())
    change(fields)
    store.result_path(victim.key).write_text(json.dumps(fields))
    results, problems = store.results()
    assert [(p.path, sentence in p.sentence) for p in problems] == [(store.result_path(victim.key), True)]
    assert problems[0].sentence.count("\n") == 0
    assert victim.key not in {r.key for r in results}
    assert store.status().missing == 1
    assert len(verify(read_source(store.root))) == 1
    merged = merge([store.root, store.root], tmp_path / "out")
    assert merged.runs == len(clean) - 1
    assert [p.path for p in merged.problems[:1]] == [store.result_path(victim.key)]
    assert len(write_bundle(store.root, tmp_path / "a.zip").results) == len(clean) - 1


@pytest.mark.parametrize(("field", "split"), [("after", "test"), ("before", "test"), ("validation",) * 2])
def test_a_subset_is_measured_whole(field, split):
    """What is told of the specification's subset is told of no data that is taken whole."""
    spec = make_spec()
    data = spec.data.model_copy(update={f"{split}_images": 500})
    few = make_result(spec.model_copy(update={"task": spec.task.model_copy(update={"data": data})}))
    assert list(contradictions(few)) == []
    whole = make_result(spec)
    odd = few.model_copy(update={field: getattr(whole, field)})
    assert f"{field} is of {getattr(whole, field).examples} images, and its specification asks for 500" in list(
        contradictions(odd)
    )


def test_other_losses_may_be_negative_and_other_tasks_count_otherwise():
    result = make_result(make_spec())
    task = result.spec.task
    epochs = [e.model_copy(update={"train_loss": -1.0}) for e in result.epochs]
    assert any(
        "cross-entropy" in c for c in contradictions(result.model_copy(update={"epochs": tuple(epochs)}))
    )
    own = task.model_copy(update={"objective": task.objective.model_copy(update={"loss": "likelihood"})})
    spec = result.spec.model_copy(update={"task": own})
    assert list(contradictions(result.model_copy(update={"spec": spec, "epochs": tuple(epochs)}))) == []


def test_smaller_networks_may_be_trained_for_longer_and_old_results_kept_less():
    result = make_result(make_spec())
    record = result.epochs[-1]
    epochs = tuple(record.model_copy(update={"epoch": n}) for n in range(1, 41))
    long = result.model_copy(update={"epochs": epochs, "epochs_run": 40})
    assert list(contradictions(long)) == ["it was trained up to epoch 40, and its recipe has 5"]
    after = long.spec.method.finetuning.model_copy(update={"equal": "computation"})
    spec = long.spec.model_copy(update={"method": long.spec.method.model_copy(update={"finetuning": after})})
    assert list(contradictions(long.model_copy(update={"spec": spec}))) == []
    old = long.spec.model_copy(update={"migrated_from": "ab" * 32})
    assert list(contradictions(long.model_copy(update={"spec": old, "epochs": epochs[:2]}))) == []


def test_a_name_that_stands_twice_is_told(clean, tmp_path):
    store = write_store(tmp_path / "store", clean[:1])
    path = store.result_path(clean[0].key)
    text = path.read_text()
    better = json.dumps({"metrics": {"top1": 0.99, "top5": 1.0, "loss": 0.1}, "examples": 10000})
    path.write_text(text.rstrip()[:-1] + f', "after": {better}}}')
    assert "has two entries of one name, 'after'" in store.results()[1][0].sentence
    path.write_text(json.dumps(json.loads(text)))  # the same in another form
    assert store.results()[1] == []


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "x" * 101, "a\nb"])
def test_a_plan_of_an_unsafe_name_is_a_problem(clean, tmp_path, name):
    store = write_store(tmp_path / "store", clean)
    for field in ("plan", "experiment"):
        fields = json.loads(store.plan_path.read_text())
        (fields if field == "plan" else fields["experiments"][0])["name"] = name
        (tmp_path / field / "runs").mkdir(parents=True)
        (tmp_path / field / "plan.json").write_text(json.dumps(fields))
        found = read_source(tmp_path / field)
        assert found.plan is None
        assert ["name" in p.sentence for p in found.problems] == [True]


def test_clean_results_contradict_nothing_and_thousands_are_looked_at_at_once(clean):
    results = [make_result(make_spec(seed=seed)) for seed in range(100)] + clean
    start = time.process_time()
    for _ in range(25):
        assert [list(contradictions(result)) for result in results] == [[] for _ in results]
    assert time.process_time() - start < 1


def test_further_splits_are_shares_of_images_too(clean):
    result = clean[0]
    odd = result.model_copy(update={"further": {"cifar10.1": changed(result.after, top1=0.50005)}})
    assert list(contradictions(odd)) == ["further.cifar10.1.top1 = 0.50005 is not a count of 10000 images"]


def test_a_control_that_lacks_weights_contradicts_itself(clean):
    control = next(r for r in clean if r.spec.is_control)
    half = {"parameters_kept": control.size.parameters // 2, "compression": 2.0}
    layer = control.layers["layer3.weight"]
    fewer = layer.model_copy(update={"kept": layer.kept - control.size.parameters // 2})
    cut = control.model_copy(
        update={
            "size": control.size.model_copy(update=half),
            "layers": {**control.layers, "layer3.weight": fewer},
            "weight_histogram": None,
        }
    )
    assert list(contradictions(cut)) == ["it is a control and keeps 131000 of 262000 parameters"]


@pytest.mark.parametrize("place", ["key", "schema_version", "spec/amount/kind", "layers/conv1.weight/total"])
def test_a_sentence_about_a_value_without_end_stays_short(clean, tmp_path, place):
    store = write_store(tmp_path, clean[:1])
    path = store.result_path(clean[0].key)
    fields = json.loads(path.read_text())
    put(place, 10**2000)(fields)
    path.write_text(json.dumps(fields))
    results, problems = store.results()
    assert not results
    assert len(problems[0].sentence) < 300


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("runs/0/experiment", "nobody"), "belongs to experiment 'nobody', which is none"),
        (lambda plan: plan["runs"].append(plan["runs"][0]), "stands in it twice"),
        (lambda plan: plan["experiments"].append(plan["experiments"][0]), "stands in it twice"),
    ],
)
def test_a_plan_whose_runs_no_experiment_asks_for_once_is_a_problem(clean, tmp_path, change, sentence):
    store = write_store(tmp_path, clean)
    fields = json.loads(store.plan_path.read_text())
    change(fields)
    store.plan_path.write_text(json.dumps(fields))
    found = read_source(tmp_path)
    assert found.plan is None
    assert sentence in found.problems[0].sentence


def test_a_recipe_that_takes_the_last_epoch_needs_no_validation():
    last = FINETUNE.model_copy(update={"selection": "last"})
    result = make_result(make_spec(recipe=last))
    bare = {"validation": None, "epochs": tuple(e.model_copy(update={"validation": {}}) for e in result.epochs)}
    assert not list(contradictions(result.model_copy(update=bare)))
    stopping = last.model_copy(update={"early_stopping": EarlyStopping(patience=3)})
    stopped = make_result(make_spec(recipe=stopping)).model_copy(update=bare)
    assert "stops by validation" in next(contradictions(stopped))


def test_a_name_that_stands_twice_in_a_plan_is_told(clean, tmp_path):
    store = write_store(tmp_path / "store", clean[:1])
    text = store.plan_path.read_text()
    store.plan_path.write_text(text.replace('"description"', '"description": "none", "description"', 1))
    assert "has two entries of one name, 'description'" in store.find_plan().sentence
