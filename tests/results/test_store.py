"""The store: whole files or none, damaged ones named, plans of several experiments side by side."""

import json
import multiprocessing
import time

import pytest
from made_results import make_result, make_results, make_spec, write_store

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.store import ResultStore, existing_store, read_result
from shrinkbench.spec import ExperimentSpec


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "made", make_results(pairs=[("cifar10", "resnet20")], methods=["random"]))


def test_what_is_written_is_read(tmp_path):
    store = ResultStore(tmp_path)
    result = make_result(make_spec())
    assert not store.has(result.key)
    path = store.write(result)
    assert path == tmp_path / "runs" / result.key / "result.json"
    assert store.has(result.key)
    assert store.read(result.key) == result
    assert store.results() == ([result], [])
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]  # no temporary file stays


def test_status_counts_planned_runs(store):
    assert store.status().as_dict() == {"total": 18, "done": 18, "failed": 0, "missing": 0}
    keys = [run.key for run in store.read_plan().runs]
    for key in keys[:2]:
        store.result_path(key).unlink()
    store.write(make_result(store.read_plan().runs[1].spec, failed="out of memory"))
    store.write(make_result(make_spec(seed=99)))  # not planned
    assert store.status().as_dict() == {"total": 18, "done": 16, "failed": 1, "missing": 1}


def test_status_without_a_plan_counts_what_is_there(tmp_path):
    store = ResultStore(tmp_path)
    store.write(make_result(make_spec()))
    assert store.status().as_dict() == {"total": 1, "done": 1, "failed": 0, "missing": 0}


DAMAGES = {
    "half": (lambda text: text[: len(text) // 2], "not whole JSON"),
    "empty": (lambda text: "", "is empty"),
    "foreign": (lambda text: '{"accuracy": 0.9}', "not a shrinkbench result"),
    "list": (lambda text: "[1, 2]", "not a shrinkbench result"),
    "schema": (
        lambda text: json.dumps(json.loads(text) | {"schema_version": 3, "new": 1}),
        "schema version 3; this shrinkbench reads versions 1 and 2",
    ),
    "field": (lambda text: json.dumps(json.loads(text) | {"status": "lost"}), "status"),
    "extra": (lambda text: json.dumps(json.loads(text) | {"accuracy": 1}), "accuracy"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_nothing_else_is_lost(store, damage):
    change, sentence = DAMAGES[damage]
    before, _ = store.results()
    victim = store.result_path(before[3].key)
    victim.write_text(change(victim.read_text()))
    results, problems = store.results()
    assert results == [r for r in before if r.key != before[3].key]
    assert [p.path for p in problems] == [victim]
    assert sentence in problems[0].sentence
    assert store.status().missing == 1
    with pytest.raises(ShrinkbenchError, match=before[3].key):
        store.read(before[3].key)


def test_bytes_that_are_no_text_are_a_problem(store):
    victim = next(store.root.glob("runs/*/result.json"))
    victim.write_bytes(b"\xff\xfe\x00garbage")
    assert len(store.results()[1]) == 1


def test_a_result_in_another_runs_folder_is_a_problem(store):
    results, _ = store.results()
    store.run_dir(results[0].key).rename(store.run_dir("0" * 64))
    kept, problems = store.results()
    assert len(kept) == 17
    assert "another key" in problems[0].sentence


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(ShrinkbenchError, match="choose a folder that can be written"):
        ResultStore(blocker).write(make_result(make_spec()))


def test_a_file_cut_short_is_no_result(store):
    key = store.results()[0][0].key
    path = store.result_path(key)
    path.write_bytes(path.read_bytes()[:200])
    assert not store.has(key)  # so that the same sweep runs it again
    assert store.status().missing == 1


def _write_often(root, count):
    store = ResultStore(root)
    for _ in range(count):
        store.write(make_result(make_spec()))


def test_readers_never_see_a_part_of_a_file(tmp_path):
    writers = [multiprocessing.Process(target=_write_often, args=(tmp_path, 40)) for _ in range(2)]
    for writer in writers:
        writer.start()
    store, seen = ResultStore(tmp_path), 0
    while any(w.is_alive() for w in writers):
        results, problems = store.results()
        assert problems == []
        seen += len(results)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert store.results()[0] == [make_result(make_spec())]


def test_plans_of_other_experiments_are_kept(store):
    plan = store.read_plan()
    more = ExperimentSpec(name="more", dataset="cifar10", model="resnet20", method="random", compression=64)
    store.write_plan(more, [make_spec(method="random", compression=64.0), plan.runs[0].spec])
    both = store.read_plan()
    assert both.name == plan.name
    assert [e.name for e in both.experiments] == ["made", "more"]
    assert len(both.runs) == 19
    assert store.status().missing == 1
    store.write_plan(plan.experiments[0], [plan.runs[0].spec])  # the edited grid replaces its own runs only
    assert {run.key for run in store.read_plan().runs} == {
        plan.runs[0].key,
        make_spec(method="random", compression=64.0).key,
    }


UNREADABLE = {
    "extra field": lambda fields: fields.update(more=1),
    "extra field of a run": lambda fields: fields["runs"][0]["spec"].update(more=1),
    "wrong key": lambda fields: fields["runs"][0].update(key="0" * 64),
    "doubled run": lambda fields: fields["runs"].append(fields["runs"][0]),
    "doubled experiment": lambda fields: fields["experiments"].append(fields["experiments"][0]),
    "other version": lambda fields: fields.update(schema_version=3),
}


@pytest.mark.parametrize("damage", UNREADABLE)
def test_a_plan_that_cannot_be_read_is_refused_and_never_replaced(store, damage):
    plan = store.read_plan()
    fields = json.loads(store.plan_path.read_bytes())
    UNREADABLE[damage](fields)
    store.plan_path.write_text(json.dumps(fields))
    before = store.plan_path.read_bytes()
    for runs in ([run.spec for run in plan.runs], [plan.runs[0].spec]):
        with pytest.raises(ShrinkbenchError, match="move it away to plan anew"):
            store.write_plan(plan.experiments[0], runs)
        assert store.plan_path.read_bytes() == before


def test_a_plan_that_is_there_already_is_not_written_anew(store):
    plan, stat = store.read_plan(), store.plan_path.stat()
    assert store.write_plan(plan.experiments[0], [run.spec for run in plan.runs]) == plan
    assert store.plan_path.stat() == stat


def test_no_plan_and_a_broken_plan_are_told(tmp_path):
    with pytest.raises(ShrinkbenchError, match=r"holds no plan\.json"):
        ResultStore(tmp_path).read_plan()
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ShrinkbenchError, match="move it away to plan anew"):
        ResultStore(tmp_path).read_plan()
    with pytest.raises(ShrinkbenchError, match="not a folder"):
        existing_store(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShrinkbenchError, match="no results"):
        existing_store(tmp_path / "empty")


@pytest.mark.slow
def test_two_thousand_results_are_read_within_seconds(tmp_path):
    store = ResultStore(tmp_path)
    for seed in range(2000):
        result = make_result(make_spec(seed=seed))
        path = store.result_path(result.key)
        path.parent.mkdir(parents=True)
        path.write_text(result.model_dump_json())
    start = time.perf_counter()
    results, problems = store.results()
    assert (len(results), problems) == (2000, [])
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("place", "gone"),
    [("after", "top1"), ("after", "top5"), ("after", "loss"), ("before", "top1"), ("validation", "top1")],
)
def test_a_result_without_a_metric_of_its_task_is_refused_and_named(tmp_path, place, gone):
    """Whoever reads it finds it out: nothing later has to live with half a result."""
    results = make_results(pairs=[("cifar10", "resnet20")], methods=["random"], seeds=(0,))
    quality = getattr(results[2], place)
    left = {name: value for name, value in quality.metrics.items() if name != gone}
    results[2] = results[2].model_copy(update={place: quality.model_copy(update={"metrics": left})})
    found, (problem,) = write_store(tmp_path / "made", results).results()
    assert len(found) == len(results) - 1
    assert problem.path.parent.name == results[2].key
    assert problem.sentence == (
        f"is not a valid result: {place} was measured without '{gone}', a metric of its task"
    )


def test_a_problem_is_one_line_whatever_it_echoes(store):
    (path, *_) = store.root.glob("runs/*/result.json")
    fields = json.loads(path.read_text())
    fields["spec"]["method"]["a\nb" + "x" * 400] = 1
    path.write_text(json.dumps(fields))
    problem = read_result(path)
    assert "\n" not in problem.sentence
    assert len(problem.sentence) < 300
