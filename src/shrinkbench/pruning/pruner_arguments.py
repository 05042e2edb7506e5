"""What a Pruner is given, checked: steps, a method that one training can carry out, and batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Inputs
from shrinkbench.network.view import Batches
from shrinkbench.pruning.masking import look_ahead
from shrinkbench.pruning.method import PruningMethod
from shrinkbench.seeds import stream
from shrinkbench.training.hook import Hook


def steps_of_epoch(method: PruningMethod, total: int, per_epoch: int | None) -> int:
    """Steps between two ends of an epoch: those given, or all where ``method`` asks for no epochs."""
    if isinstance(total, bool) or not isinstance(total, int) or total < 1:
        raise ShrinkbenchError(f"total_steps = {total!r}; give the number of optimizer steps, at least 1")
    schedule = method.schedule
    if per_epoch is None:
        hook: Any = getattr(schedule.during, "func", schedule.during)
        if hook is not None and hook.after_epoch is not Hook.after_epoch and not schedule.decided_last:
            raise ShrinkbenchError(
                f"'{method.name}' acts after every epoch (schedule {schedule.name}); give steps_per_epoch="
            )
        return total
    if isinstance(per_epoch, bool) or not isinstance(per_epoch, int) or per_epoch < 1 or total % per_epoch:
        raise ShrinkbenchError(
            f"total_steps = {total} are no whole number of epochs of {per_epoch!r} steps; give a multiple"
        )
    return per_epoch


def check_method(method: PruningMethod, rewound: Mapping[str, Tensor] | None) -> None:
    """Refuse what one training in somebody else's loop cannot carry out."""
    schedule, mode = method.schedule, method.finetuning
    several = schedule.during is None and schedule.rounds != 1
    if several and method.like is not None:
        raise ShrinkbenchError(
            f"'{method.name}' keeps of every layer what '{method.like.name}' ends with, which one training "
            "cannot know; compare them in a sweep"
        )
    if mode.weights in ("reinitialised", "scratch"):
        raise ShrinkbenchError(
            f"'{method.name}' trains new weights after pruning (fine-tuning {mode.name}), which a Pruner does "
            "not draw; a sweep carries it out"
        )
    if mode.weights == "rewound" and rewound is None:
        raise ShrinkbenchError(
            f"'{method.name}' goes back to the weights after epoch {mode.epoch} of the training before "
            f"(fine-tuning {mode.name}) and trains from there after each round; give their state dict as "
            "rewound="
        )


def source_of(
    batches: Batches | Callable[[torch.Generator], Batches] | None, count: int, seed: int
) -> tuple[Callable[[torch.Generator], Batches] | None, Inputs | None]:
    """A function that draws batches, and the inputs of the first."""
    if batches is None:
        return None, None
    if callable(batches):
        first = batches(torch.Generator().manual_seed(stream(seed, "scoring-batch", 0)))
        return batches, look_ahead(first)[1]
    kept = list(islice(batches, max(count, 1))) if iter(batches) is batches else batches
    return (lambda _: kept), look_ahead(kept)[1]
