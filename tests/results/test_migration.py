"""Results of schema 1, as a released version stored them, are read, marked, and never taken for new ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.frame import to_frame
from shrinkbench.results.store import ResultStore
from shrinkbench.spec import UNPRUNED, Compression, RunSpec

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
