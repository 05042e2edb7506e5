"""Pruning to a speedup: the largest network by a method that is so many times as fast as the whole one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.metrics import measure_size
from shrinkbench.network.view import Batches
from shrinkbench.pruning.amounts import check_factor
from shrinkbench.pruning.masking import look_ahead
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import METHODS, PruningMethod
from shrinkbench.pruning.rounds import prune

Measure = Callable[[Masks], float]


def prune_to_speedup(
    module: nn.Module,
    method: str | PruningMethod,
    speedup: float,
    *,
    batches: Batches | None = None,
    input_shape: Sequence[int] | None = None,
    measure: Measure | None = None,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> Masks:
    """Masks of the network with the most parameters, by ``method``, that is ``speedup`` times as fast.

    The compression is searched by bisection over how many parameters stay, each tried with the same draws and
    data, until no step between the last that meets the speedup and the last that misses it is left.
    ``measure`` tells the speedup under masks; by default the theoretical one, original / new multiply-adds.
    Give :func:`shrinkbench.surgery.latency.measure_cut` for wall time. ``settings`` are those of
    :func:`~shrinkbench.pruning.prune`. Raises ``ShrinkbenchError`` where the method cannot reach the speedup,
    which names the largest.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 2))
    >>> masks = prune_to_speedup(net, "channel_l1", 2, input_shape=(3, 8, 8))
    >>> measure_size(net, (3, 8, 8), masks).theoretical_speedup >= 2
    True
    """
    check_factor("speedup", speedup)
    chosen = METHODS.get(method) if isinstance(method, str) else method
    if chosen.amount is not None:
        raise ShrinkbenchError(
            f"'{chosen.name}' prunes {chosen.amount.label} by its name, so that no speedup can be asked of it; "
            "choose another method"
        )
    if batches is not None:
        batches = list(islice(batches, chosen.batch_count))
        input_shape = input_shape or look_ahead(batches)[1]
    if input_shape is None:
        raise ShrinkbenchError("a speedup is counted over a forward pass; pass batches= or input_shape=")
    shape = tuple(input_shape)
    generator = generator or torch.Generator().manual_seed(0)
    start = generator.get_state()
    total = sum(p.numel() for p in module.parameters())

    def attempt(kept: int) -> tuple[Masks, float]:
        generator.set_state(start)
        masks = prune(
            module,
            chosen,
            compression=total / kept,
            batches=batches,
            input_shape=shape,
            generator=generator,
            **settings,
        )
        if measure is not None:
            return masks, measure(masks)
        return masks, measure_size(module, shape, masks).theoretical_speedup

    return _search(attempt, total, speedup, chosen.name)


def _search(attempt: Callable[[int], tuple[Masks, float]], total: int, speedup: float, method: str) -> Masks:
    """The masks of the largest number of parameters that reach ``speedup``."""
    missed, kept, largest = total, max(round(total / speedup), 1), 1.0
    while True:  # fewer and fewer parameters, down to the fewest that the method can keep
        try:
            met, reached = attempt(kept)
        except CannotMeetTargetError as error:
            if error.least is None or not error.least > kept or error.least >= missed:
                raise _out_of_reach(method, speedup, largest) from None
            kept = error.least
            continue
        if reached >= speedup:
            break
        if kept <= 1 or kept >= missed:
            raise _out_of_reach(method, speedup, max(largest, reached))
        missed, largest, kept = kept, max(largest, reached), max(kept // 2, 1)
    while missed - kept > 1:
        middle = (missed + kept) // 2
        masks, reached = attempt(middle)
        if reached < speedup:
            missed = middle
        else:
            met, kept = masks, middle
    return met


def _out_of_reach(method: str, speedup: float, largest: float) -> ShrinkbenchError:
    return ShrinkbenchError(
        f"'{method}' cannot make this network {speedup:g} times as fast: the most that was reached is "
        f"{largest:.4g}; ask for less, or for a method of another structure"
    )
