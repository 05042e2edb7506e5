"""A target by multiply-adds: the largest network within which it is met."""

from __future__ import annotations

from collections.abc import Callable

from shrinkbench.errors import CannotMeetTargetError
from shrinkbench.metrics import measure_size
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks


def meet_speedup(
    asked: float, masks_at: Callable[[int], Masks], low: int, high: int, ctx: PruneContext
) -> Masks:
    """The masks of the largest level, a number of weights from ``low`` to ``high``, that is fast enough.

    Fast enough: original / kept multiply-adds is ``asked`` at least, and one level more misses it.
    Raises ``CannotMeetTargetError``, which names the largest speedup in reach.
    """
    low = require_speedup(asked, masks_at, low, high, ctx)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _speedup(masks_at(middle), ctx) >= asked else (low, middle - 1)
    return masks_at(low)


def require_speedup(
    asked: float, masks_at: Callable[[int], Masks], low: int, high: int, ctx: PruneContext
) -> int:
    """The lowest level that layers allow; raises ``CannotMeetTargetError`` where that is not fast enough."""

    def allowed(level: int) -> bool:
        try:
            masks_at(level)
        except CannotMeetTargetError:  # layers have to keep more than that
            return False
        return True

    if not allowed(low):
        bottom, top = low, high
        while top - bottom > 1:
            middle = (bottom + top) // 2
            bottom, top = (bottom, middle) if allowed(middle) else (middle, top)
        low = top
    largest = _speedup(masks_at(low), ctx)
    if largest < asked:
        raise CannotMeetTargetError.at_most(
            f"speedup {asked:g} cannot be met: multiply-adds of what has to stay are 1/{largest:.4g} of all",
            largest,
        )
    return low


def _speedup(masks: Masks, ctx: PruneContext) -> float:
    return measure_size(ctx.module, ctx.example, masks).theoretical_speedup
