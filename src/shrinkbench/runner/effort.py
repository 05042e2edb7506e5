"""How long the runs of a plan train, said before anything starts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from shrinkbench.pruning.schedules.schedule import SCHEDULES
from shrinkbench.runner.executors import Task
from shrinkbench.spec import Compression, Recipe, RunSpec, Speedup

NOTABLE = 5.0
"""A method whose runs train for more than this many times the median is pointed out."""


COPYING = 0.02
"""The run of a control takes over what a task of its own has trained: in epochs."""


def epochs_of(spec: RunSpec) -> int:
    """Epochs that the run itself trains for at most: its search, the rounds with training, and the last.

    Early stopping may end it sooner, training of equal computation takes longer; pretraining is shared and not
    counted.
    """
    schedule = spec.method.schedule
    trained = _rounds_of(spec) if schedule.train_between and not schedule.during else 1
    search = spec.search.epochs if spec.search is not None and not spec.is_control else 0
    return search + trained * spec.recipe.epochs


def _rounds_of(spec: RunSpec) -> int:
    """Rounds of pruning; where the target decides how many, what it takes if all is prunable."""
    schedule = spec.method.schedule
    ratio = spec.amount.ratio if isinstance(spec.amount, Compression | Speedup) else None
    if schedule.rounds is not None or ratio is None:
        return schedule.rounds or 1
    return len(SCHEDULES.get(schedule.name).steps(ratio))


def epochs_of_task(task: Task) -> int:
    """Epochs that one task of a sweep trains for by its recipes; what other tasks train is not counted."""
    spec = task.spec
    if not isinstance(spec, RunSpec) or task.kind in ("control", "search"):
        return spec.recipe.epochs
    if spec.is_control:  # trained once as a task of its own
        return 0
    schedule = spec.method.schedule
    between = _rounds_of(spec) - 1 if schedule.train_between and not schedule.during else 0
    return spec.recipe.epochs * (between + (task.kind == "run"))


def is_copy(task: Task) -> bool:
    """Whether the task takes over what the training of a control has stored."""
    return task.kind == "run" and isinstance(task.spec, RunSpec) and task.spec.is_control


def expected_work(task: Task) -> float:
    """What one task takes beside the others of its sweep, in epochs; all but a control's copy do more."""
    return COPYING if is_copy(task) else 1 + epochs_of_task(task)


def _recipes(spec: RunSpec) -> str:
    return spec.recipe.name if spec.search is None else f"{spec.search.name}, then {spec.recipe.name}"


def say_effort(runs: Sequence[RunSpec]) -> list[str]:
    """A sentence for each method that trains by another recipe than most, or for much longer."""
    pruned = [spec for spec in runs if not spec.is_control]
    if not pruned:
        return []
    median = statistics.median(map(epochs_of, pruned))
    sentences: dict[str, None] = {}
    for name, spec in _longest(pruned).items():
        epochs = epochs_of(spec)
        why = _why(spec, _pretraining(spec))
        much = epochs > NOTABLE * median
        if why or much:
            compared = f", {epochs / median:.3g} times the median of the runs to do" if much and median else ""
            hint = "; a shorter one: --set pretrain.epochs=N" if much and why else ""
            trains = f"each run of {name} trains for up to {epochs} epochs by '{_recipes(spec)}'"
            sentences[f"{trains}{why}{compared}{hint}"] = None
    return list(sentences)


def _longest(runs: Iterable[RunSpec]) -> Mapping[str, RunSpec]:
    """Of each method the run that trains longest."""
    found: dict[str, RunSpec] = {}
    for spec in runs:
        known = found.setdefault(spec.method.name, spec)
        if epochs_of(spec) > epochs_of(known):
            found[spec.method.name] = spec
    return found


def _pretraining(spec: RunSpec) -> Recipe | None:
    return spec.task.weights.recipe


def _why(spec: RunSpec, pretraining: Recipe | None) -> str:
    """Why a method does not train by the fine-tuning recipe, where it does not."""
    method = spec.method
    if method.finetuning.recipe == "pretraining":
        return ", the recipe of pretraining, as it trains the weights anew"
    trains_first = method.start == "initialisation" and not method.schedule.train_after
    if trains_first and (pretraining is None or spec.recipe == pretraining) and spec.recipe.epochs:
        return ", the recipe of pretraining, as it prunes before or while the network is first trained"
    return ""
