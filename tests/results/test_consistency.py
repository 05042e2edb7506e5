"""Values beyond their bounds, and results that contradict themselves, are no results wherever they are read."""

import json
import time

import pytest
from made_results import changed, make_result, make_results, make_spec, write_store

from shrinkbench.results.bundle import read_source, write_bundle
from shrinkbench.results.consistency import contradictions
from shrinkbench.results.merging import merge
from shrinkbench.results.verification import verify

PAIR = [("cifar10", "resnet20")]


def put(path, value):
    """Change one value in the fields of a result, named by its path."""

    def change(fields):
        *parents, last = path.split("/")
        table = fields
        for parent in parents:
            table = table[int(parent)] if isinstance(table, list) else table[parent]
        table[last] = value

    return change


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
    "no images": (put("after/examples", 0), "after.examples"),
    "key": (put("key", "../../../etc/passwd"), "key: string should match pattern"),
    "key of capitals": (put("key", "A" * 64), "key: string should match pattern"),
    "bins": (put("weight_histogram/before", [1, 2]), "the counts are not one for every bin"),
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
