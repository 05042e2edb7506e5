"""Quality of a network on one split."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError, one_line, said_of
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.spec.measures import Quality
from shrinkbench.tasks import Batches, Classification, Task
from shrinkbench.tasks.batches import Splits, by_code_of, placed, split_for
from shrinkbench.training.shares import shares_of
from shrinkbench.training.team import ALONE, Team

CLASSIFY = Classification()


def evaluate(
    module: nn.Module,
    batches: Batches,
    *,
    precision: str = "float32",
    task: Task = CLASSIFY,
    team: Team = ALONE,
) -> Quality:
    """The metrics of ``task`` over all examples of ``batches``.

    Without a task these are top-1, top-5 (fractions of images) and mean cross-entropy (nats), and batches are
    pairs of inputs and labels. Anything but a classifier is refused then. The network is evaluated in
    evaluation mode; modes are restored. The processes of a ``team`` take each example once where the metrics
    of the task are means over examples (``task.averages``); else every one of them takes all.
    """
    if team.size == 1 or not getattr(task, "averages", False):
        return _evaluated(task, module, batches, precision)
    found: Quality | ShrinkbenchError | None = None
    try:
        own = _unless_empty(shares_of(batches, team))
        found = None if own is None else _evaluated(task, module, own, precision)
    except ShrinkbenchError as error:  # the others are told, who would wait for ever
        found = error
    parts = team.gather(found)
    for part in parts:
        if isinstance(part, ShrinkbenchError):
            raise part
    return _together([part for part in parts if isinstance(part, Quality)])


def require_runs(module: nn.Module, batches: Batches, *, task: Task, network: str, dataset: str) -> None:
    """Raise ``ShrinkbenchError`` where ``network`` does not run on the first of ``batches`` of ``dataset``.

    Tasks whose batches are not known to be inputs and targets tell it themselves.
    """
    if not isinstance(task, Classification | Splits):
        return
    for batch in islice(batches, 1):
        try:
            with evaluation_mode(module), torch.inference_mode():
                placed(split_for(task, batch), module).inputs.call(module)
        except (ShrinkbenchError, OSError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            said = one_line(said_of(error), 130)
            raise ShrinkbenchError(
                f"the network '{network}' does not run on what '{dataset}' holds ({said}); name data that its "
                "forward pass takes"
            ) from error


def _evaluated(task: Task, module: nn.Module, batches: Batches, precision: str) -> Quality:
    """What the task measures; tasks are anybody's code."""
    whose = f"the evaluation of task '{task.objective.name}'"
    with by_code_of(whose, task):
        found: object = task.evaluate(module, batches, precision=precision)
    if not isinstance(found, Quality):
        raise ShrinkbenchError(
            f"{whose} gives a value of type {type(found).__name__}; return "
            "shrinkbench.spec.measures.Quality(metrics=..., examples=...)"
        )
    return found


def _unless_empty(batches: Iterator[Any]) -> Iterator[Any] | None:
    first = next(batches, None)
    return None if first is None else chain([first], batches)


def _together(parts: list[Quality]) -> Quality:
    """The mean over the examples of all parts."""
    examples = sum(part.examples for part in parts)
    if not examples:
        raise ShrinkbenchError("there are no examples to evaluate on; give a split with at least one")
    metrics = {
        name: sum(part.metrics[name] * part.examples for part in parts) / examples for name in parts[0].metrics
    }
    return Quality(metrics=metrics, examples=examples)
