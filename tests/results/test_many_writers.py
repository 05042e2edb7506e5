"""Many writers in one folder: no plan and no finished run is lost, whoever comes last."""

import json
import math
import multiprocessing
import os

import pytest
from filelock import FileLock
from made_results import make_result, make_spec, write_store
from pydantic import ValidationError

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results import store as module
from shrinkbench.results.index import INDEX_NAME, read_index
from shrinkbench.results.locking import hold_lock
from shrinkbench.results.record import EpochRecord, Quality, RunResult
from shrinkbench.results.store import ResultStore
from shrinkbench.spec import ExperimentSpec

SPEC = make_spec()


def grid(name):
    return ExperimentSpec(name=name, dataset="cifar10", model="resnet20", method="random", compression=2)


def _plan(root, number, start):
    start.wait()
    ResultStore(root).write_plan(grid(f"grid-{number}"), [make_spec(seed=number)])


def test_twenty_plans_at_once_are_all_kept(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(20)
    writers = [context.Process(target=_plan, args=(tmp_path, n, start)) for n in range(20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    plan = ResultStore(tmp_path).read_plan()
    assert {e.name for e in plan.experiments} == {f"grid-{n}" for n in range(20)}
    assert {run.spec.seed for run in plan.runs} == set(range(20))


@pytest.mark.parametrize("content", ["", '{"schema_version": 9}', "{"])
def test_a_plan_that_cannot_be_read_is_never_replaced(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ShrinkbenchError, match=r"plan\.json is not a plan of this version.*move it away"):
        ResultStore(tmp_path).write_plan(grid("new"), [SPEC])
    assert (tmp_path / "plan.json").read_text() == content


def test_a_lock_that_does_not_come_free_is_told(tmp_path):
    told = pytest.raises(ShrinkbenchError, match="held by another process for 0 s")
    with FileLock(tmp_path / ".lock"), told, hold_lock(tmp_path, patience=0):
        pass


def test_a_failure_never_replaces_a_run_that_is_done(tmp_path):
    store, done = ResultStore(tmp_path), make_result(SPEC)
    store.write(done)
    path = store.write(make_result(SPEC, failed="no room"))
    assert path.name == "failure.json"
    assert store.read(SPEC.key) == done
    assert json.loads(path.read_text())["error"] == "no room"
    again = make_result(SPEC, accuracy=lambda spec: 0.5)
    assert store.write(again) == store.result_path(SPEC.key)
    assert store.read(SPEC.key) == again
    assert not path.exists()


def test_a_failure_is_replaced_by_whatever_comes_later(tmp_path):
    store = ResultStore(tmp_path)
    for result in (make_result(SPEC, failed="a"), make_result(SPEC, failed="b"), make_result(SPEC)):
        store.write(result)
        assert store.read(SPEC.key) == result


def _race(root, start, failed):
    store = ResultStore(root)
    for seed in range(25):
        start.wait()
        store.write(make_result(make_spec(seed=seed), failed=failed))


def test_of_a_success_and_a_failure_at_once_the_success_stays(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    writers = [context.Process(target=_race, args=(tmp_path, start, failed)) for failed in (None, "late")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert {result.status for result in ResultStore(tmp_path).results()[0]} == {"done"}


def test_a_run_asked_for_again_stands_until_the_new_one_does(tmp_path):
    store, done = ResultStore(tmp_path), make_result(SPEC)
    store.write(done)
    store.ask_again(SPEC.key)
    assert not store.has(SPEC.key)
    assert store.read(SPEC.key) == done
    store.write(make_result(SPEC, failed="not this time"))
    assert store.has(SPEC.key)
    assert store.read(SPEC.key) == done


@pytest.mark.parametrize("damage", [b"", b"{", b'{"schema_version": 3}', b"\xff"])
def test_a_damaged_result_is_told_run_again_and_set_aside(tmp_path, damage):
    store = ResultStore(tmp_path)
    path = store.write(make_result(SPEC))
    path.write_bytes(damage)
    assert not store.has(SPEC.key)
    assert [problem.path for problem in store.damaged([SPEC.key, "0" * 64])] == [path]
    store.write(make_result(SPEC))
    assert store.has(SPEC.key)
    (aside,) = path.parent.glob("result.json.damaged-*")
    assert aside.read_bytes() == damage


def test_what_the_index_knows_is_not_read(tmp_path, monkeypatch):
    store = write_store(tmp_path, [make_result(make_spec(seed=n)) for n in range(5)])
    store.write(make_result(make_spec(seed=9), failed="x"))
    monkeypatch.setattr(module, "parse_result", None)
    fresh = ResultStore(tmp_path)
    assert fresh.status().as_dict() == {"total": 5, "done": 5, "failed": 0, "missing": 0}
    assert sorted(entry.status for entry in fresh.entries()[0]) == ["done"] * 5 + ["failed"]


@pytest.mark.parametrize("index", [b"", b"\x00\n{}\n[1]\n", b'{"key": 1, "timed": 2}\n', None])
def test_a_lost_or_damaged_index_changes_nothing(tmp_path, index):
    store = write_store(tmp_path, [make_result(make_spec(seed=n)) for n in range(3)])
    before = store.status()
    (tmp_path / INDEX_NAME).unlink() if index is None else (tmp_path / INDEX_NAME).write_bytes(index)
    fresh = ResultStore(tmp_path)
    assert fresh.status() == before
    assert not read_index(tmp_path)  # who reads does not write
    fresh.extend_index()
    assert len(read_index(tmp_path)) == 3


def test_the_index_is_not_believed_about_a_changed_file(tmp_path):
    store = write_store(tmp_path, [make_result(SPEC)])
    path = store.result_path(SPEC.key)
    stat = path.stat()
    path.write_bytes(b"x" * stat.st_size)  # as long as before
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert not ResultStore(tmp_path).has(SPEC.key)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_is_stored_that_cannot_be_read(value):
    with pytest.raises(ValidationError):
        Quality(metrics={"top1": 0.5, "loss": value}, examples=1)
    with pytest.raises(ValidationError):
        EpochRecord(epoch=1, learning_rate=0.1, train_loss=value, validation={})
    with pytest.raises(ValidationError):
        EpochRecord(epoch=1, learning_rate=0.1, train_loss=0.1, validation={"loss": value})


def test_what_is_stored_reads_alike():
    result = make_result(SPEC)
    assert RunResult.model_validate_json(result.model_dump_json(), strict=True) == result
