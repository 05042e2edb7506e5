"""Results of schema 1, as a released version stored them, are read, marked, and never taken for new ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from made_results import make_result, make_spec, write_store

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.frame import to_frame
from shrinkbench.results.merging import merge
from shrinkbench.results.store import ResultStore
from shrinkbench.spec import UNPRUNED, Compression, RunSpec
from shrinkbench.spec.value import digest_of_fields

STORED = Path(__file__).with_name("schema_1")


@pytest.fixture
def store(tmp_path):
    shutil.copytree(STORED, tmp_path / "old")
    return ResultStore(tmp_path / "old")


def raw(store):
    files = store.root.glob("runs/*/result.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def test_every_number_is_the_one_that_was_stored(store):
    results, problems = store.results()
    assert (len(results), problems) == (8, [])
    for result in results:
        old = raw(store)[result.key]
        assert result.after.metrics == {name: old["after"][name] for name in ("top1", "top5", "loss")}
        assert result.after.examples == old["after"]["images"]
        assert result.size.model_dump() == old["size"]
        assert result.spec.seed == old["spec"]["seed"]
        assert result.spec.amount == Compression(ratio=old["spec"]["compression"])
        assert result.spec.method.name == old["spec"]["method"]["name"]
        assert [epoch.validation["top1"] for epoch in result.epochs] == [
            epoch["validation_top1"] for epoch in old["epochs"]
        ]


def test_what_was_stored_as_budget_is_read_as_the_cost_and_written_so(store, tmp_path):
    again = ResultStore(tmp_path / "again")
    for result in store.results()[0]:
        assert result.cost.model_dump() == raw(store)[result.key]["budget"]
        again.write(result)
        written = raw(again)[result.key]
        assert written["schema_version"] == 2
        assert "budget" not in written
        written["budget"] = written.pop("cost")  # as schema 2 was written at first
        (again.root / "runs" / result.key / "result.json").write_text(json.dumps(written))
        assert again.read(result.key) == result


def test_kinds_are_those_of_the_built_in_scores(store):
    kinds = {r.spec.method.name: r.spec.method.score.kind for r in store.results()[0]}
    assert kinds == {"global_magnitude": "magnitude", "random": "random"}


def test_keys_are_marked_and_never_those_of_new_runs(store):
    for result in store.results()[0]:
        assert result.spec.migrated_from == result.key
        assert result.spec.key != result.key
        assert result.spec.model_copy(update={"migrated_from": None}).key != result.key
        assert result.spec.method.score.version == 0


def test_a_run_finds_its_own_control(store):
    frame = to_frame(store.results()[0])
    assert frame["task"].nunique() == 1
    controls = frame[frame["compression_target"] == 1].groupby("seed")["control_key"].unique()
    assert all(len(keys) == 1 for keys in controls)
    pruned = frame[frame["compression_target"] > 1]
    assert all(key in controls[seed] for seed, key in zip(pruned["seed"], pruned["control_key"], strict=True))


def test_the_plan_is_read_and_all_of_it_is_done(store):
    assert store.status().as_dict() == {"total": 8, "done": 8, "failed": 0, "missing": 0}
    assert {run.spec.is_control for run in store.read_plan().runs} == {True, False}


def test_an_edited_result_is_refused(store):
    path = next(path for path in store.root.glob("runs/*/result.json"))
    path.write_text(path.read_text().replace('"seed":0', '"seed":7').replace('"seed":1', '"seed":7'))
    problems = store.results()[1]
    assert "its key does not follow from its specification" in problems[0].sentence


@pytest.mark.parametrize("part", ["spec", "key", "after"])
def test_what_is_not_a_result_of_schema_1_is_named(store, part):
    path = next(path for path in store.root.glob("runs/*/result.json"))
    content = json.loads(path.read_text())
    del content[part]
    path.write_text(json.dumps(content))
    results, problems = store.results()
    assert len(results) == 7
    assert [problem.path for problem in problems] == [path]
    with pytest.raises(ShrinkbenchError, match="result"):
        store.read(path.parent.name)


def test_a_migrated_run_reads_as_it_was_written(store):
    for result in store.results()[0]:
        assert RunSpec.model_validate_json(result.spec.model_dump_json()) == result.spec
        assert result.spec.control.amount == UNPRUNED


def edit(store, change, *, key=False):
    """Change one stored result; ``key``: and store it under the key that follows."""
    path = next(iter(sorted(store.root.glob("runs/*/result.json"))))
    content = json.loads(path.read_text())
    change(content)
    if key:
        content["key"] = digest_of_fields(content["spec"])
        path.parent.rename(path.parent.with_name(content["key"]))
        path = path.parent.with_name(content["key"]) / path.name
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: c["after"].update(top1=1.2), "1.2"),
        (lambda c: c["after"].update(top1=float("nan")), "finite"),
        (lambda c: c["after"].update(top1="0.5"), "valid number"),
        (lambda c: c["after"].update(top1=True), "valid number"),
        (lambda c: c["after"].update(bonus=1), "it has no field 'bonus'"),
        (lambda c: c.update(epochs="abc"), "a field is of another kind"),
        (lambda c: c["epochs"][0].update(bonus=1), "bonus"),
        (lambda c: c.pop("spec"), "the field 'spec' is missing"),
        (lambda c: c["size"].update(parameters_kept=10**9), "more is kept than there was"),
        (lambda c: c.update(further={"cifar10.1": c["after"]}), "asks for no extra evaluation 'cifar10.1'"),
        (lambda c: c.update(status="failed", error="x"), "a run that failed has no quality"),
        (lambda c: c["budget"]["retraining"].update(multiply_adds=float("inf")), "finite"),
    ],
)
def test_the_true_reason_is_told(store, change, why):
    path = edit(store, change)
    (problem,) = store.results()[1]
    assert problem.path == path
    assert why in problem.sentence
    assert "reads version" not in problem.sentence


@pytest.mark.parametrize("part", ["spec", "method"])
def test_a_field_that_schema_1_did_not_have_is_not_dropped_in_silence(store, part):
    def change(content):
        place = content["spec"] if part == "spec" else content["spec"]["method"]
        place["bonus"] = 1

    edit(store, change, key=True)
    (problem,) = store.results()[1]
    assert "it has no field 'bonus'" in problem.sentence


@pytest.fixture
def merged(store, tmp_path):
    """Migrated results, as they are stored again."""
    merge([store.root, store.root], tmp_path / "merged")
    return ResultStore(tmp_path / "merged")


def test_a_merged_store_of_migrated_runs_is_whole(store, merged):
    assert merged.results() == store.results()
    assert merged.status() == store.status()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["spec"].update(seed=7),
        lambda c: c["spec"].update(migrated_from=None),
        lambda c: c["migrated_spec"].update(seed=7),
        lambda c: c.update(migrated_spec=None),
        lambda c: (c["spec"].update(seed=7), c["migrated_spec"].update(seed=7)),
    ],
)
def test_an_edited_run_is_refused_after_its_migration_too(merged, change):
    path = edit(merged, change)
    assert [(p.path, p.sentence) for p in merged.results()[1]] == [
        (path, "does not agree with its key: its specification was edited")
    ]


def test_a_new_run_that_says_that_it_was_migrated_is_refused(tmp_path):
    """Less is asked of old results, and anybody can write that a result is one, with the key that follows."""
    new = make_spec().model_copy(update={"migrated_from": "ab" * 32})
    _, problems = write_store(tmp_path / "posing", [make_result(new)]).results()
    assert [p.sentence for p in problems] == ["does not agree with its key: its specification was edited"]


@pytest.mark.parametrize("schema", [1, 2])
def test_a_plan_whose_keys_do_not_follow_is_refused(store, merged, schema):
    tested = store if schema == 1 else merged
    content = json.loads(tested.plan_path.read_text())
    content["runs"][0]["key"] = "0" * 64
    tested.plan_path.write_text(json.dumps(content))
    with pytest.raises(ShrinkbenchError, match="key does not follow from"):
        tested.read_plan()


@pytest.mark.parametrize("method", [[1], None, "random", {}])
def test_a_plan_that_is_no_plan_of_schema_1_is_told(store, method):
    content = json.loads(store.plan_path.read_text())
    spec = content["runs"][0]["spec"]
    spec["method"] = method
    content["runs"][0]["key"] = digest_of_fields(spec)
    store.plan_path.write_text(json.dumps(content))
    with pytest.raises(ShrinkbenchError, match="is not a plan of this version"):
        store.read_plan()
