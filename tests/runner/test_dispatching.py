"""Laws of the order, the repetition and the ending of tasks, with an executor that only pretends."""

import itertools

import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.runner.dispatching import Dispatcher
from shrinkbench.runner.executors import Ending, Task


class Named:
    """Stands for a specification: tasks are known by kind and key."""

    class data:  # noqa: N801
        name = "data"

    model, seed = data, 0


def task(kind, key):
    return Task(kind, key, Named())


class Scripted:
    """Ends each attempt at a task as its script says; ``done`` where it says nothing."""

    def __init__(self, script=None, *, at_once=100):
        self.script = {key: iter(endings) for key, endings in (script or {}).items()}
        self.begun, self.queue, self.at_once = [], [], at_once

    def start(self, setting, *, tasks):
        raise NotImplementedError

    def submit(self, tasks):
        self.begun += [each.key for each in tasks]
        self.queue += tasks

    def completed(self, seconds):
        ended, self.queue = self.queue[: self.at_once], self.queue[self.at_once :]
        return [(each, next(self.script.get(each.key, iter(())), Ending("done"))) for each in ended]

    def drain(self):
        left, self.queue = self.queue, []
        return left

    def close(self, grace=0):
        raise NotImplementedError


def carry_out(graph, script=None, *, retries=1, stopping=lambda: "go on", executor=None):
    ended, notes = {}, []

    def note_end(each, ending):
        assert each.key not in ended, "told twice"
        ended[each.key] = ending

    executor = executor or Scripted(script)
    Dispatcher(graph, executor, retries, note_end, notes.append, stopping).carry_out()
    return ended, executor.begun, notes


PRETRAINING, CONTROL = task("pretraining", "p"), task("control", "c")
RUN, OTHER, REFERENCE = task("run", "r"), task("run", "o"), task("run", "k")
GRAPH = {
    RUN: (PRETRAINING,),
    REFERENCE: (PRETRAINING, CONTROL),
    CONTROL: (PRETRAINING,),
    PRETRAINING: (),
    OTHER: (),
}


def test_a_task_starts_when_what_it_needs_is_there():
    ended, begun, _ = carry_out(GRAPH)
    assert {key: ending.kind for key, ending in ended.items()} == dict.fromkeys("rkcpo", "done")
    assert sorted(begun) == sorted("rkcpo")
    assert begun.index("p") < begun.index("r")
    assert begun.index("p") < begun.index("c") < begun.index("k")


def test_a_run_does_not_wait_for_what_others_need():
    executor = Scripted(at_once=1)
    executor.submit([])
    _, begun, _ = carry_out({OTHER: (), RUN: (PRETRAINING,), PRETRAINING: ()}, executor=executor)
    assert set(begun[:2]) == {"o", "p"}  # both before the first has ended


def test_what_lacks_something_fails_with_its_sentence():
    ended, begun, _ = carry_out(GRAPH, {"p": [Ending("failed", "training diverged")]})
    assert sorted(begun) == ["o", "p"]
    assert ended["r"] == ended["k"] == Ending("failed", "pretraining failed: training diverged")
    assert ended["o"].kind == "done"
    ended, _, _ = carry_out(GRAPH, {"c": [Ending("failed", "out of luck")]})
    assert ended["k"] == Ending("failed", "the control failed: out of luck")
    assert ended["r"].kind == "done"


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_death_is_tried_again_and_then_a_failure(retries):
    deaths = [Ending("died", "died by SIGSEGV")] * (retries + 1)
    ended, begun, _ = carry_out(GRAPH, {"o": deaths}, retries=retries)
    assert begun.count("o") == retries + 1
    often = {0: "", 1: " twice", 3: " 4 times"}[retries]
    assert ended["o"] == Ending("failed", f"worker died by SIGSEGV{often}")
    ended, begun, _ = carry_out(GRAPH, {"o": deaths[:-1]}, retries=retries)
    assert ended["o"].kind == "done"


def test_an_environment_fails_no_run():
    full = [Ending("environment", "No space left")] * 2
    ended, begun, _ = carry_out(GRAPH, {"p": full})
    assert begun.count("p") == 2
    assert {key: ending.kind for key, ending in ended.items()} == {
        "p": "environment", "r": "environment", "c": "environment", "k": "environment", "o": "done",
    }  # fmt: skip


def test_a_sweep_gives_up_where_nothing_can_be_carried_out():
    runs = {task("run", str(i)): () for i in range(10)}
    executor = Scripted({str(i): itertools.repeat(Ending("environment", "No space left")) for i in range(10)})
    with pytest.raises(ShrinkbenchError, match=r"3 tasks in a row .* \(No space left\)"):
        carry_out(runs, executor=executor)


def test_what_cannot_be_prepared_ends_the_sweep_with_its_own_sentence():
    with pytest.raises(ShrinkbenchError, match=r"^the plug-in was edited$"):
        carry_out(GRAPH, {"p": [Ending("unprepared", "the plug-in was edited")]})


def test_what_another_holds_is_waited_for_without_counting(monkeypatch):
    monkeypatch.setattr("shrinkbench.runner.dispatching._LOOK_AGAIN", 0.0)
    monkeypatch.setattr("shrinkbench.runner.dispatching._POLL", 0.0)
    held = [Ending("held", "process 7 on elsewhere")] * 5
    ended, begun, notes = carry_out({OTHER: ()}, {"o": held}, retries=0)
    assert begun.count("o") == 6
    assert ended["o"].kind == "done"
    assert notes == ["waiting for 1 task that process 7 on elsewhere carries out"]


def test_a_task_that_stays_held_is_not_given_out_again(monkeypatch):
    monkeypatch.setattr("shrinkbench.runner.dispatching._LOOK_AGAIN", 0.0)
    monkeypatch.setattr("shrinkbench.runner.dispatching._POLL", 0.0)
    looks = iter([False, False, True])
    executor, ended = Scripted({"o": [Ending("held", "process 7 on elsewhere")]}), {}
    Dispatcher(
        {OTHER: ()},
        executor,
        0,
        ended.__setitem__,
        lambda note: None,
        lambda: "go on",
        lambda each: next(looks),
    ).carry_out()
    assert executor.begun == ["o", "o"]
    assert ended[OTHER].kind == "done"


def test_a_request_to_finish_begins_nothing_more():
    wishes = itertools.chain(["go on", "go on"], itertools.repeat("finish"))
    executor = Scripted(at_once=1)
    ended, _, _ = carry_out(
        {task("run", str(i)): () for i in range(5)}, stopping=lambda: next(wishes), executor=executor
    )
    assert 1 <= len(ended) < 5
    ended, begun, _ = carry_out(GRAPH, stopping=lambda: "stop")
    assert not ended
    assert not begun


def test_what_a_holder_has_brought_to_an_end_is_settled_without_an_attempt(monkeypatch):
    monkeypatch.setattr("shrinkbench.runner.dispatching._LOOK_AGAIN", -1.0)
    monkeypatch.setattr("shrinkbench.runner.dispatching._POLL", 0)
    ended, notes, looks = {}, [], iter([None, Ending("done", "by somebody else")])
    executor = Scripted({"o": [Ending("held", "process 7")]})
    Dispatcher(
        {OTHER: ()},
        executor,
        1,
        ended.__setitem__,
        notes.append,
        lambda: "go on",
        is_free=lambda task: False,
        find_done=lambda task: next(looks),
    ).carry_out()
    assert ended == {OTHER: Ending("done", "by somebody else")}
    assert executor.begun == ["o"]


def test_a_task_whose_process_dies_when_all_is_stored_is_done_and_neither_failed_nor_tried_again():
    ended, notes = {}, []
    executor = Scripted({"o": [Ending("died", "died by SIGKILL")]})
    Dispatcher(
        {OTHER: ()},
        executor,
        0,
        ended.__setitem__,
        notes.append,
        lambda: "go on",
        find_done=lambda task: Ending("done"),
    ).carry_out()
    assert ended == {OTHER: Ending("done")}
    assert (executor.begun, notes) == (["o"], [])
