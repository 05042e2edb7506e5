"""Pruning to a measured speedup: the largest network that is so many times as fast, once cut out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, LeftWholeWarning, ShrinkbenchError
from shrinkbench.metrics.latency import Conditions, time_forward
from shrinkbench.network.inputs import Example
from shrinkbench.network.view import Batches
from shrinkbench.network.weights import copy_of
from shrinkbench.pruning import METHODS, PruningMethod, prune
from shrinkbench.pruning.masks import Masks
from shrinkbench.surgery.shrinking import shrink

Measure = Callable[[Masks], float]


def prune_to_latency(
    module: nn.Module,
    method: str | PruningMethod,
    speedup: float,
    *,
    input_shape: Example,
    conditions: Conditions | None = None,
    measure: Measure | None = None,
    batches: Batches | None = None,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> Masks:
    """Masks of the network with the most parameters, by ``method``, that is ``speedup`` times as fast.

    ``speedup`` is dense over physically small wall time under ``conditions``, medians of interleaved rounds on
    this machine: another one, or another load, gives other masks. The compression is searched by bisection over
    how many parameters stay, to a hundredth of all, each tried with the same draws and data. ``measure`` takes
    the place of the clock; ``settings`` are those of :func:`~shrinkbench.pruning.prune`. Raises
    ``ShrinkbenchError`` where the method cannot reach the speedup, which names the largest that was reached.
    """
    if not speedup > 1 or speedup == float("inf"):
        raise ShrinkbenchError(
            f"latency speedup {speedup!r} is not a finite number above 1 (dense / small time)"
        )
    chosen = METHODS.get(method) if isinstance(method, str) else method
    if chosen.amount is not None:
        raise ShrinkbenchError(
            f"'{chosen.name}' prunes {chosen.amount.label} by its name, so that no speedup can be asked of it; "
            "choose another method"
        )
    if batches is not None:
        batches = list(islice(batches, chosen.batch_count))
    generator = generator or torch.Generator().manual_seed(0)
    start = generator.get_state()
    total = sum(p.numel() for p in module.parameters())
    clock = measure or _clock(module, input_shape, conditions or Conditions())

    def attempt(kept: int) -> tuple[Masks, float]:
        generator.set_state(start)
        masks = prune(
            module,
            chosen,
            compression=total / kept,
            batches=batches,
            input_shape=input_shape,
            generator=generator,
            **settings,
        )
        return masks, clock(masks)

    return _search(attempt, total, speedup, chosen.name)


def _clock(module: nn.Module, input_shape: Example, conditions: Conditions) -> Measure:
    def measure(masks: Masks) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeftWholeWarning)
            small = shrink(module, masks, input_shape)
        networks = {"dense": copy_of(module), "small": small}
        times = time_forward(networks, input_shape, conditions, seconds_per_round=0.1)
        return times["dense"].median / times["small"].median

    return measure


def _search(attempt: Callable[[int], tuple[Masks, float]], total: int, speedup: float, method: str) -> Masks:
    """The masks of the largest number of parameters found to reach ``speedup``."""
    missed, kept, largest = total, max(round(total / speedup), 1), 1.0
    while True:  # fewer and fewer parameters, down to the fewest that the method can keep
        try:
            met, reached = attempt(kept)
        except CannotMeetTargetError as error:
            if not kept < error.least < missed:
                raise _out_of_reach(method, speedup, largest) from None
            kept = error.least
            continue
        if reached >= speedup:
            break
        missed, largest = kept, max(largest, reached)
        if kept <= 1:
            raise _out_of_reach(method, speedup, largest)
        kept //= 2
    while missed - kept > max(total // 100, 1):
        middle = (missed + kept) // 2
        masks, reached = attempt(middle)
        if reached < speedup:
            missed = middle
        else:
            met, kept = masks, middle
    return met


def _out_of_reach(method: str, speedup: float, largest: float) -> ShrinkbenchError:
    return ShrinkbenchError(
        f"'{method}' cannot make this network {speedup:g} times as fast: the most that was measured is "
        f"{largest:.4g}; ask for less, or for a method of another structure"
    )
