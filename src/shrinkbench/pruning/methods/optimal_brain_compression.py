"""Optimal Brain Compression (Frantar and Alistarh 2022): the optimal surgeon of every row of every layer.

For a layer with inputs X the squared error of its outputs is a sum over rows of its weights, all with the
Hessian ``H = 2 X X'``. Of a row, one weight after another goes: the one of the least ``w^2 / [H^-1]_ww``, after
which the others make up for it and H^-1 loses its row and column. How many go of which row follows from all
these losses together.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.methods.wanda_sparsegpt import Columns, layer_by_layer, one_per_layer

_DAMPING = 0.01  # of the mean diagonal of the Hessian
_MEMORY = 1 << 23  # numbers of inverse Hessians that are held at a time


def trace(weights: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor]:
    """In which order the weights of each row go, and the loss of each removal, half its saliency.

    Of (rows, columns) and (columns, columns) in double precision.
    """
    w = weights.clone()
    inverse = torch.linalg.inv(hessian).expand(len(w), *hessian.shape).clone()
    gone = torch.zeros_like(w, dtype=torch.bool)
    row = torch.arange(len(w), device=w.device)
    orders, losses = [], []
    for _ in range(w.shape[1]):
        diagonal = inverse.diagonal(dim1=1, dim2=2)
        saliency = (w.square() / diagonal).masked_fill(gone, torch.inf)
        place = saliency.argmin(1)
        orders.append(place)
        losses.append(saliency[row, place] / 2)
        pivot = diagonal[row, place].clone().unsqueeze(1)
        column = inverse[row, :, place].clone()
        w -= column * (w[row, place].unsqueeze(1) / pivot)
        inverse -= column.unsqueeze(2) * (column / pivot).unsqueeze(1)
        gone[row, place] = True
        w.masked_fill_(gone, 0)
        inverse[row, place, place] = 1  # was zero, as its row and column are
    return torch.stack(orders, 1), torch.stack(losses, 1)


def counts_of_rows(losses: Tensor, count: int) -> Tensor:
    """How many weights go of each row when ``count`` go in all, always the one of the least next loss."""
    reached = losses.cummax(1).values  # what comes cheaper after a dear one goes along with it
    chosen = reached.reshape(-1).argsort(stable=True)[:count]
    return torch.bincount(chosen // losses.shape[1], minlength=len(losses))


def compensated(weights: Tensor, keep: Tensor, hessian: Tensor) -> Tensor:
    """The rows of least squared error with zeros where nothing is kept: ``H_kk change_k = H_kr w_r``."""
    stays = keep.to(weights)
    pull = ((weights * ~keep) @ hessian) * stays
    system = hessian * stays.unsqueeze(1) * stays.unsqueeze(2)
    system.diagonal(dim1=1, dim2=2).add_(1 - stays)
    change: Tensor = torch.linalg.solve(system, pull)
    return weights * stays + change


def _layer(ctx: PruneContext, name: str, count: int, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    columns = Columns(ctx, name)
    hessians = columns.hessian(values).double()
    diagonal = hessians.diagonal(dim1=1, dim2=2)
    dead = diagonal == 0  # inputs that are always zero
    diagonal[dead] = 1
    diagonal += _DAMPING * diagonal.mean(1, keepdim=True)
    weights = columns.matrices(ctx.weights[name]).double()
    weights.masked_fill_(columns.matrices(ctx.removed(name)) | dead.unsqueeze(1), 0)  # they go first
    groups, rows, width = weights.shape
    step = max(_MEMORY // width**2, 1)
    pieces = [(g, slice(i, i + step)) for g in range(groups) for i in range(0, rows, step)]
    traced = [trace(weights[g, piece], hessians[g]) for g, piece in pieces]
    orders, losses = (torch.cat(parts) for parts in zip(*traced, strict=True))
    counts = counts_of_rows(losses, weights.numel() - count)
    early = torch.arange(width, device=orders.device) < counts.unsqueeze(1)
    keep = torch.ones_like(orders, dtype=torch.bool).scatter_(1, orders, ~early).reshape(weights.shape)
    for g, piece in pieces:
        weights[g, piece] = compensated(weights[g, piece], keep[g, piece], hessians[g])
    return columns.restore(keep), columns.restore(weights.to(ctx.weights[name]))


@pruning_method(
    "obc",
    kind="curvature",
    allocation=layerwise,
    needs=("data",),
    batch_count=2,
    reference="frantar2022optimal",
)
@decides("allocation")
def obc(ctx: PruneContext) -> Masks:
    """``w^2 / [H^-1]_ww`` of each layer's squared error, exactly, weight by weight; the rest of a row makes up.

    Layer after layer, each on the inputs that pruned layers give, the same fraction of every layer; the paper
    solves for a budget over layers and works on inputs of the whole network. Damping is 1 % of the mean
    diagonal. The work grows with outputs x (inputs x kernel)^3 of a layer.
    """
    if ctx.structure.pattern:
        raise ShrinkbenchError(
            f"'obc' removes single weights in the order of their losses, not '{ctx.structure.name}'; choose "
            "the structure weights, or sparsegpt"
        )
    return layer_by_layer(ctx, _layer, one_per_layer)
