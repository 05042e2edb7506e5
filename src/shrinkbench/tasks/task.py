"""What a task is to training and evaluation, and the tasks by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from shrinkbench.registry import Registry
from shrinkbench.spec import Objective, Recipe
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
    """The task that ``objective`` describes."""
    return TASKS.get(objective.name)(objective)
