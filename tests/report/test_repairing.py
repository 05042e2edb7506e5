"""The loop of ``checklist --fix``: what it asks for, when it stops, and what it refuses."""

import pytest
from made_results import make_spec

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report import repairing
from shrinkbench.report.gaps import Repair
from shrinkbench.spec import ExperimentSpec

RUN = make_spec()
GRID = ExperimentSpec(name="grid", dataset="digits", model="digits-cnn", method="random", compression=2)


class Store:
    """As much of a store as the loop uses."""

    root = "out"

    def __init__(self):
        self.discarded = []

    def read_plan(self):
        return None

    def results(self):
        return (), ()

    def discard(self, key):
        self.discarded.append(key)


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
    assert (len(swept), told, notes, store.discarded) == (3, [3, 1], ("no run mends it",), ["k"])


def test_a_round_that_changes_nothing_ends_it(repair):
    same = Repair((GRID,), (RUN,) * 3, ("a",))
    with pytest.raises(ShrinkbenchError, match=r"^3 runs are still missing after they were run"):
        repair(same, same)


def test_the_number_of_rounds_is_bounded(repair):
    told = repair(*(Repair((GRID,), (RUN,) * n, ()) for n in range(1, 100)))[2]
    assert len(told) == repairing.MOST_ROUNDS
