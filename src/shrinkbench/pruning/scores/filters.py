"""Scores of whole filters beyond their norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.structures.single import filters
from shrinkbench.pruning.units import Scores


def distances_to_all(rows: Tensor) -> Tensor:
    """Sum of Euclidean distances of each row to all rows.

    >>> distances_to_all(torch.tensor([[0.0], [1.0], [3.0]]))
    tensor([4., 3., 5.])
    """
    exact = rows.double()
    return torch.cat([torch.cdist(part, exact).sum(1) for part in exact.split(256)]).to(rows.dtype)


@pruning_method("fpgm", kind="other", structure=filters, allocation=layerwise, reference="he2019filter")
def geometric_median(ctx: PruneContext) -> Scores:
    """Sum of distances to all filters of the layer: those near the geometric median are replaceable."""
    scores = {}
    for name, w in ctx.weights.items():
        rows = ctx.geometry(name).rows(w)
        scores[name] = ctx.per_row(name, distances_to_all(rows.reshape(len(rows), -1)))
    return scores


@pruning_method("batch_norm_scale", kind="magnitude", structure=filters, reference="liu2017learning")
def batch_norm_scale(ctx: PruneContext) -> Scores:
    """Magnitude of the scale by which the batch norm behind a filter multiplies its map.

    Layers without batch norm go last. Network Slimming trains with an L1 penalty on these scales first.
    """
    scales = dict(ctx.module.named_parameters())
    behind = ctx.flow.batch_norms
    if not behind.keys() & ctx.weights.keys():
        raise ShrinkbenchError(
            "no prunable layer of this network is followed by batch norm; choose a network with batch norm or "
            "another method"
        )
    return {
        name: (
            ctx.per_row(name, scales[behind[name]].detach().abs().float())
            if name in behind
            else torch.full_like(w, math.inf)
        )
        for name, w in ctx.weights.items()
    }
