"""Equally many weights in every row, which is what one output is computed of."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.allocations.rules import (
    Shares,
    allocation,
    keep_at_least,
    layerwise_counts,
    weight_of,
)
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.top_k import require_numbers
from shrinkbench.pruning.units import Keep, Units


@allocation("rowwise", scope="layerwise", version=2)
def rowwise(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Keep:
    """Keep the same fraction of every layer, and of every row (output) in it, one weight at least."""
    counts = rowwise_counts(units, budget, ctx)
    return {name: keep_in_rows(name, u, counts[name], ctx) for name, u in units.items()}


def rowwise_counts(
    units: Mapping[str, Units], budget: int, ctx: PruneContext, shares: Shares | None = None
) -> dict[str, int]:
    """Weights per layer: the same fraction, or ``shares``, and one for each row, as Sun et al. 2024 round."""
    units = {name: keep_at_least(u, _rows(name, u, ctx)) for name, u in units.items()}
    return layerwise_counts(units, budget, ctx, "one weight of every row stays", shares)


def _rows(name: str, units: Units, ctx: PruneContext) -> int:
    single = units.single and units.scores.dim() > 1 and units.scores.shape == ctx.weights[name].shape
    return len(ctx.geometry(name).rows(units.scores)) if single else 1


def keep_in_rows(name: str, units: Units, count: int, ctx: PruneContext) -> Tensor:
    """The best ``count`` weights of a layer, equally many in each row; the first rows get what is left over.

    Rows of which earlier rounds have left fewer keep these, and the others make up for it.
    """
    if not units.single or units.scores.shape != weight_of(name, ctx, "rowwise").shape:
        raise ShrinkbenchError("allocation 'rowwise' ranks single weights; use it with structure 'weights'")
    require_numbers(name, units.scores)
    geometry = ctx.geometry(name)
    rows = geometry.rows(units.scores)
    flat = rows.reshape(len(rows), -1) if rows.ndim > 1 else rows.reshape(1, -1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    if units.first is not None:
        first = geometry.rows(units.first).reshape(flat.shape).to(torch.int8)
        order = order.gather(1, first.gather(1, order).argsort(dim=1, descending=True, stable=True))
    per_row = _level((flat > -math.inf).sum(1), count)
    within = torch.arange(flat.shape[1], device=flat.device) < per_row.unsqueeze(1)
    keep = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, within)
    return geometry.restore(keep.reshape(rows.shape)).contiguous()


def _level(most: Tensor, count: int) -> Tensor:
    """``count`` split evenly over rows that take ``most`` each; the first of those with room take the rest.

    >>> _level(torch.tensor([4, 1, 4]), 8), _level(torch.tensor([4, 4, 4]), 8)
    (tensor([4, 1, 3]), tensor([3, 3, 2]))
    """
    low, high = 0, int(most.max()) if most.numel() else 0
    while low < high:  # the highest level whose sum fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(most.clamp(max=middle).sum()) <= count else (low, middle - 1)
    found = most.clamp(max=low)
    room = (most > low).nonzero().squeeze(1)
    found[room[: max(count - int(found.sum()), 0)]] += 1
    return found
