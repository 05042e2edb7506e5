"""What a sweep is about to do, by its plan alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shrinkbench.runner.dependencies import graph_of
from shrinkbench.runner.effort import epochs_of, epochs_of_task
from shrinkbench.runner.executors.performing import file_of_task
from shrinkbench.runner.sweeping import Prepared
from shrinkbench.spec import RunSpec


@dataclass(frozen=True)
class Forecast:
    """Tasks by kind, and the epochs and training images of all together.

    Epochs are those of the recipes: early stopping takes fewer, equal computation takes more. Rounds
    whose number follows from the target are counted as if every parameter were prunable.
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


def costly_methods(runs: Sequence[RunSpec], *, most: int = 3) -> list[str]:
    """A line for each of the methods whose runs train longest, where methods differ in it."""
    epochs: Counter[str] = Counter()
    for spec in runs:
        if not spec.is_control:
            epochs[spec.method.name] += epochs_of(spec)
    if len(set(epochs.values())) < 2:
        return []
    total = sum(epochs.values())
    return [
        f"{method}: {count} epochs, {count / total:.0%} of what pruned networks train"
        for method, count in epochs.most_common(most)
    ]
