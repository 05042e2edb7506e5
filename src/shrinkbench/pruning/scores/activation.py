"""Scores of what a network computes on data."""

from __future__ import annotations

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.observation import Maps, Product
from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.structures.single import filters
from shrinkbench.pruning.units import Scores

_HRANK_IMAGES = 128


@pruning_method(
    "layerwise_activation", allocation=layerwise, needs=("data",), batch_count=4, reference="blalock2020state"
)
@pruning_method(
    "global_activation", kind="activation", needs=("data",), batch_count=4, reference="blalock2020state"
)
def activation(ctx: PruneContext) -> Scores:
    """``|w|`` times the mean absolute input that it multiplies, over images and positions; a bias counts 1."""
    sums: dict[str, Tensor] = {}
    rows: dict[str, int] = {}

    def visit(product: Product) -> None:
        name = product.parameter
        positions = product.output[:, 0].numel()
        channels = product.column_sums(torch.abs)
        sums[name] = sums[name] + channels if name in sums else channels
        rows[name] = rows.get(name, 0) + positions

    ctx.observe(visit)
    return {
        name: w.abs() * ctx.per_column(name, sums[name] / rows[name]) if name in sums else w.abs()
        for name, w in ctx.weights.items()
    }


@pruning_method(
    "apoz",
    kind="activation",
    structure=filters,
    allocation=layerwise,
    needs=("data",),
    batch_count=4,
    reference="hu2016network",
)
def apoz(ctx: PruneContext) -> Scores:
    """One minus the average percentage of zeros of a filter's map, after its activation function."""
    zeros: dict[str, Tensor] = {}
    entries: dict[str, int] = {}

    def visit(maps: Maps) -> None:
        rows = (maps.values == 0).flatten(2) if maps.values.ndim > 2 else (maps.values == 0).unsqueeze(-1)
        count = rows.sum((0, 2))
        zeros[maps.parameter] = zeros.get(maps.parameter, torch.zeros_like(count)) + count
        entries[maps.parameter] = entries.get(maps.parameter, 0) + rows[:, 0].numel()

    ctx.observe_maps(visit)
    if not any(bool(count.any()) for count in zeros.values()):
        raise ShrinkbenchError(
            "APoZ counts zeros after ReLU, and no layer of this network puts any out; choose a network with "
            "ReLU or another method"
        )
    return {
        name: ctx.per_row(name, 1 - zeros[name] / entries[name]) if name in zeros else w.abs() * 0 + 1
        for name, w in ctx.weights.items()
    }


@pruning_method(
    "hrank",
    kind="activation",
    structure=filters,
    allocation=layerwise,
    needs=("data",),
    batch_count=2,
    reference="lin2020hrank",
)
def hrank(ctx: PruneContext) -> Scores:
    """Mean rank of a filter's map as a matrix (height x width), over up to 128 images."""
    flat = next((name for name, w in ctx.weights.items() if w.ndim == 2), None)
    if flat is not None:
        raise ShrinkbenchError(
            f"HRank ranks two-dimensional maps, and '{flat}' is a linear layer that has none; choose a network "
            "of convolutions or another method"
        )
    ranks: dict[str, Tensor] = {}
    images: dict[str, int] = {}

    def visit(maps: Maps) -> None:
        seen = images.get(maps.parameter, 0)
        values = maps.values[: max(_HRANK_IMAGES - seen, 0)].float()
        if values.ndim == 4 and len(values):
            rank = torch.linalg.matrix_rank(values).sum(0)
            ranks[maps.parameter] = ranks.get(maps.parameter, torch.zeros_like(rank)) + rank
            images[maps.parameter] = seen + len(values)

    ctx.observe_maps(visit)
    missing = [name for name, w in ctx.weights.items() if name not in ranks and w.ndim > 1]
    if missing:
        raise ShrinkbenchError(
            f"'{missing[0]}' produces no two-dimensional map that could be ranked; choose another method"
        )
    return {
        name: ctx.per_row(name, ranks[name] / images[name]) if name in ranks else w.abs()
        for name, w in ctx.weights.items()
    }
