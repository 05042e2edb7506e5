"""What a task is to training and evaluation, and the tasks by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from shrinkbench.errors import InputError, ShrinkbenchError, of_input, said_by
from shrinkbench.registry import Registry
from shrinkbench.sources import bare_reference, split_reference
from shrinkbench.spec import CLASSIFICATION, Objective, Recipe
from shrinkbench.spec.measures import Quality

Batch = Any  # one task's own: the data that is trained on yields what the task takes
Batches = Iterable[Batch]


class Task(Protocol):
    """What is learned: how a batch becomes a loss, and a network's outputs a quality.

    ``objective`` is the same as a value: the metrics of every :class:`Quality`, their directions and bounds.
    """

    @property
    def objective(self) -> Objective:
        """The task as a value."""
        ...

    def training_batches(self, batches: Batches) -> Iterator[Batch]:
        """The batches of one epoch as they are trained on."""
        ...

    def loss(self, module: nn.Module, batch: Batch, recipe: Recipe) -> tuple[Tensor, int]:
        """The mean loss over the examples of ``batch``, with its graph, and how many there are."""
        ...

    def evaluate(self, module: nn.Module, batches: Batches, *, precision: str) -> Quality:
        """The metrics over all examples of ``batches``; modes of ``module`` are restored."""
        ...


TASKS: Registry[Callable[[Objective], Task]] = Registry("task")
"""What makes a task of an objective, by the objective's name."""


def task_of(objective: Objective) -> Task:
    """The task that ``objective`` describes; refused where its code is not what was planned with."""
    with of_input():
        found = TASKS.source(objective.name)
    if found != objective.source:
        raise InputError(
            f"the code of the task '{objective.name}' is not what it was when the run was planned; give the "
            "sweep again, so that the run is planned anew"
        )
    return TASKS.get(objective.name)(objective)


def objective_of(name: str) -> Objective:
    """The objective of the task ``name``, as part of a run's key.

    Raises ``ShrinkbenchError`` for a task whose objective follows from its data.
    """
    task = TASKS.get(name)(_ASKING)
    if task.objective is _ASKING:
        raise ShrinkbenchError(
            f"the metrics of the task '{name}' follow from its data, and a sweep cannot plan them; leave task "
            "out for classification, or name a task of your own as FILE.py:NAME"
        )
    named = bare_reference(name) if split_reference(name) else task.objective.name
    return task.objective.model_copy(update={"name": named, "source": TASKS.source(name)})


def objective_for(name: str | None) -> Objective:
    """:func:`objective_of` the task that is named, and classification where none is."""
    return CLASSIFICATION if name is None else objective_of(name)


_ASKING = Objective(name="asking", loss="", metrics=CLASSIFICATION.metrics, headline="top1")


@TASKS.take_objects
def _maker_of(name: str, found: object) -> Callable[[Objective], Task]:
    """A task as it is, or what a class or function of no arguments returns."""
    with said_by(f"'{name}'"):
        task: Any = found() if callable(found) else found
    if not all(hasattr(task, part) for part in ("objective", "training_batches", "loss", "evaluate")):
        raise ShrinkbenchError(
            f"'{name}' is no task; let it be a shrinkbench.tasks.Supervised, or a class that has objective, "
            "training_batches, loss and evaluate"
        )
    return lambda objective: task
