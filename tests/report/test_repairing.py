"""The loop of ``checklist --fix``: what it asks for, when it stops, and what it refuses."""

import pytest
from made_results import FINETUNE, make_result, make_spec

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report import repairing
from shrinkbench.report.gaps import Repair
from shrinkbench.report.repairing import expect, expected_as_json, say_expected
from shrinkbench.spec import ExperimentSpec

RUN = make_spec()
GRID = ExperimentSpec(name="grid", dataset="digits", model="digits-cnn", method="random", compression=2)


def test_the_expected_time_is_that_of_finished_runs_of_the_task_and_recipe():
    """Controls are left out of the mean: several methods store one that is trained once."""
    long = FINETUNE.model_copy(update={"name": "long"})

    def lasting(seconds, **spec):
        result = make_result(make_spec(**spec))
        provenance = result.provenance.model_copy(update={"seconds": seconds})
        return result.model_copy(update={"provenance": provenance})

    results = [lasting(10.0, seed=0), lasting(20.0, seed=1), lasting(1000.0, compression=1)]
    results.append(lasting(1000.0, model="resnet56"))
    missing = [make_spec(seed=seed) for seed in (2, 3, 4)] + [make_spec(recipe=long)]
    known, unknown = expect(missing, results)
    assert (len(known.points), known.seconds, known.finished) == (3, 45.0, 2)
    assert (len(unknown.points), unknown.seconds, unknown.finished) == (1, None, 0)
    told = say_expected((known, unknown))
    where = "3 runs on cifar10 / resnet20, trained by cifar-finetune"
    assert told[0].startswith(f"{where}: about 45 seconds by the mean")
    assert "2 finished runs of this task and recipe" in told[0]
    assert any("trained by long: time unknown" in line for line in told)
    assert told[-1] == "In all about 45 seconds, one run after another; 1 run of unknown time."
    found = expected_as_json((known, unknown))
    assert [run["key"] for run in found["runs"]] == [spec.key for spec in missing]
    assert [run["seconds"] for run in found["runs"]] == [15.0, 15.0, 15.0, None]
    assert (found["seconds"], found["unknown"]) == (45.0, 1)


def test_nothing_missing_takes_no_time():
    assert expect((), [make_result(make_spec())]) == ()
    assert say_expected(()) == []


class Store:
    """As much of a store as the loop uses."""

    root = "out"

    def __init__(self):
        self.asked = []

    def read_plan(self):
        return None

    def results(self):
        return (), ()

    def ask_again(self, key):
        self.asked.append(key)


@pytest.fixture
def repair(monkeypatch):
    """Repair a store of which ``rounds`` are found missing, one after another: (store, swept, told, notes)."""

    def call(*rounds):
        left = iter(rounds)
        store, swept, told = Store(), [], []
        monkeypatch.setattr(repairing, "plan_repair", lambda plan, results, **options: next(left))
        notes = repairing.repair(
            store, resolve=None, sweep=swept.append, define=None, on_round=lambda m: told.append(m.runs)
        )
        return store, swept, told, notes

    return call


def test_rounds_go_on_until_nothing_is_missing(repair):
    done = Repair((), (), (), notes=("no run mends it",))
    store, swept, told, notes = repair(
        Repair((GRID,), (RUN,) * 3, ("a",), ("k",)), Repair((GRID, GRID), (RUN,), ("b",)), done
    )
    assert (len(swept), told, notes, store.asked) == (3, [3, 1], ("no run mends it",), ["k"])


def test_a_round_that_changes_nothing_ends_it(repair):
    same = Repair((GRID,), (RUN,) * 3, ("a",))
    with pytest.raises(ShrinkbenchError, match=r"^3 runs are still missing after they were run"):
        repair(same, same)


def test_the_number_of_rounds_is_bounded(repair):
    told = repair(*(Repair((GRID,), (RUN,) * n, ()) for n in range(1, 100)))[2]
    assert len(told) == repairing.MOST_ROUNDS
