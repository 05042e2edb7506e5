"""What a sweep is about to do, by its plan alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from shrinkbench.runner.dependencies import graph_of
from shrinkbench.runner.effort import epochs_of_task
from shrinkbench.runner.executors.performing import file_of_task
from shrinkbench.runner.sweeping import Prepared


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
        own = epochs_of_task(task)
        data = task.spec.data
        epochs += own
        images += own * (data.train_images or len(workspace.dataset(data.name).train))
    return Forecast(len(prepared.runs), Counter(task.kind for task in graph), epochs, images)
