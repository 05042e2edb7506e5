"""What a method does is in its value: constants that are changed, and code that is another, are told."""

from dataclasses import replace

import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, pruning_method, resolve
from shrinkbench.pruning.method import SCORES
from shrinkbench.pruning.methods.sparse_structure_selection import ScaledBranches
from shrinkbench.pruning.schedules.dynamic import Rigged, SparseEvolution
from shrinkbench.pruning.schedules.gradual import Gradual


@pytest.mark.parametrize(
    ("method", "hook"),
    [
        ("rigl", Rigged),
        ("sparse_evolutionary_training", SparseEvolution),
        ("gradual_magnitude", Gradual),
        ("movement", Gradual),
        ("sparse_structure_selection", ScaledBranches),
    ],
)
def test_other_constants_of_a_schedule_are_another_method(method, hook, monkeypatch):
    planned = METHODS.get(method).spec
    assert planned.schedule.parameters
    for name, value in hook.CONSTANTS.items():
        monkeypatch.setattr(hook, "CONSTANTS", {**hook.CONSTANTS, name: value / 2})
        assert METHODS.get(method).spec != planned
        with pytest.raises(ShrinkbenchError, match="its schedule differs"):
            resolve(planned)
        monkeypatch.undo()
    assert resolve(planned).spec == planned


def test_the_axis_that_differs_is_named_whatever_it_is_called():
    planned = METHODS.get("global_magnitude[structure=filters]").spec
    other = planned.model_copy(update={"schedule": later(planned.schedule)})
    with pytest.raises(ShrinkbenchError, match="its schedule differs"):
        resolve(other)
    with pytest.raises(ShrinkbenchError, match="its structure and schedule differ"):
        resolve(other.model_copy(update={"changed": (), "base": "global_magnitude"}))


def later(axis):
    return axis.model_copy(update={"version": axis.version + 1})


def test_a_version_is_said_once(monkeypatch):
    for registry in (METHODS, SCORES):  # forget it afterwards
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_spellings", dict(registry._spellings))

    def versioned_size(ctx):
        """Size."""
        return {name: w.abs() for name, w in ctx.weights.items()}

    pruning_method("versioned_one", version=3)(versioned_size)
    assert METHODS.get("versioned_one").spec.score.version == 3
    with pytest.raises(ShrinkbenchError, match="of version 4, and was 3"):
        pruning_method("versioned_two", version=4)(versioned_size)
    assert replace(METHODS.get("versioned_one"), version=5).spec.score.version == 5
