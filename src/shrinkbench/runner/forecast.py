"""What a sweep is about to do, by its plan alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from shrinkbench.runner.dependencies import graph_of
from shrinkbench.runner.executors import Task
from shrinkbench.runner.executors.performing import file_of_task
from shrinkbench.runner.sweeping import Prepared
from shrinkbench.spec import RunSpec


@dataclass(frozen=True)
class Forecast:
    """Tasks by kind, and the epochs and training images of all together.

    Epochs are those of the recipes: early stopping takes fewer, equal computation and rounds whose number
    follows from the target take more.
    """

    planned: int
    tasks: Mapping[str, int]
    epochs: int
    images: int


def forecast(prepared: Prepared) -> Forecast:
    """Count the tasks that ``prepared`` would carry out; nothing is written or trained."""
    workspace = prepared.setting.workspace
    graph = graph_of(prepared.todo, lambda task: file_of_task(task, workspace.root).exists(), {})
    epochs = images = 0
    for task in graph:
        own = _epochs_of(task)
        data = task.spec.data
        epochs += own
        images += own * (data.train_images or len(workspace.dataset(data.name).train))
    return Forecast(len(prepared.runs), Counter(task.kind for task in graph), epochs, images)


def _epochs_of(task: Task) -> int:
    spec = task.spec
    if not isinstance(spec, RunSpec) or task.kind in ("control", "search"):
        return spec.recipe.epochs
    if spec.is_control:  # trained once as a task of its own
        return 0
    schedule = spec.method.schedule
    between = (schedule.rounds or 1) - 1 if schedule.train_between and not schedule.during else 0
    return spec.recipe.epochs * (between + (task.kind == "run"))
