"""The measured speedup of what masks leave, once it is cut out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from torch import nn

from shrinkbench.errors import LeftWholeWarning
from shrinkbench.metrics.latency import Conditions, time_forward
from shrinkbench.network.weights import copy_of
from shrinkbench.pruning.masks import Masks
from shrinkbench.surgery.shrinking import shrink


def measure_cut(
    module: nn.Module,
    input_shape: Sequence[int],
    conditions: Conditions,
    *,
    rounds: int = 5,
    seconds_per_round: float = 0.1,
) -> Callable[[Masks], float]:
    """A measure for :func:`~shrinkbench.pruning.speedup.prune_to_speedup`: dense over small wall time.

    Both are medians of interleaved rounds under ``conditions`` on this machine: another one, or another load,
    gives other masks.
    """

    def measure(masks: Masks) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeftWholeWarning)
            small = shrink(module, masks, input_shape)
        times = time_forward(
            {"dense": copy_of(module), "small": small},
            input_shape,
            conditions,
            rounds=rounds,
            seconds_per_round=seconds_per_round,
        )
        return times["dense"].seconds / times["small"].seconds

    return measure
