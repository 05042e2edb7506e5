"""What a task is beside its names: which of several are one, and over how much a claim over tasks is made."""

from __future__ import annotations

from collections.abc import Collection

from shrinkbench.spec import TaskSpec


def place_of(task: TaskSpec) -> object:
    """What a task is apart from its initial weights: equal for one dataset under two names.

    A dataset is known by the digest of its content, by its name where there is none.
    """
    data = task.data.model_copy(update={"name": ""}) if task.data.revision else task.data
    return task.objective, data, task.model


def dataset_of(task: TaskSpec) -> str:
    """One content, whatever it is called and however many of its images are read."""
    return task.data.revision or task.data.name


def pair_of(task: TaskSpec) -> tuple[str, str]:
    """A dataset by its content and a network by its name, whatever the subset and the version."""
    return dataset_of(task), task.model.name


def breadth(tasks: Collection[TaskSpec]) -> str:
    """On how many datasets and networks tasks are, in words: subsets and versions are none of their own."""
    datasets, networks = (len({pair[n] for pair in map(pair_of, tasks)}) for n in (0, 1))
    return f"{datasets} dataset{'s' * (datasets != 1)} and {networks} network{'s' * (networks != 1)}"
