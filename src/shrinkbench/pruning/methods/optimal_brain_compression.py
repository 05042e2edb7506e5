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
_MEMORY = 1 << 23  # numbers that are held for rows at a time


def trace(weights: Tensor, hessian: Tensor, most: int, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """In which order the first ``most`` weights of each row go, and the loss of each, half its saliency.

    Of (rows, columns) and (columns, columns) in double precision. What has gone ``before`` goes first, at a
    loss of -1. The inverse that is left after some removals is the first one less ``u u'`` for each: these u
    are kept, a column at a time.
    """
    w, row = weights.clone(), torch.arange(len(weights), device=weights.device)
    inverse = torch.linalg.inv(hessian)
    diagonal = inverse.diagonal().expand(w.shape).clone()
    factors = w.new_zeros(*w.shape, most)
    gone = torch.zeros_like(w, dtype=torch.bool)
    before = gone.clone() if before is None else before
    orders, losses = [], []
    for number in range(most):
        saliency = (w.square() / diagonal).masked_fill(before, -2)
        place = saliency.masked_fill(gone, torch.inf).argmin(1)
        pivot = diagonal[row, place].unsqueeze(1)
        own = factors[row, place, :number].unsqueeze(2)
        column = inverse[place] - torch.bmm(factors[:, :, :number], own).squeeze(2)
        orders.append(place)
        losses.append(saliency[row, place] / 2)
        w -= column * (w[row, place].unsqueeze(1) / pivot)
        factors[:, :, number] = column / pivot.sqrt()
        diagonal -= factors[:, :, number].square()
        gone[row, place] = True
        w.masked_fill_(gone, 0)
        diagonal.masked_fill_(gone, 1)
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


def _pieces(weights: Tensor, held: int) -> list[tuple[int, slice]]:
    """Rows of each group, as many at a time as fit the memory with ``held`` numbers for each weight."""
    groups, rows, width = weights.shape
    step = max(_MEMORY // (width * held), 1)
    return [(g, slice(i, i + step)) for g in range(groups) for i in range(0, rows, step)]


def _kept(weights: Tensor, hessians: Tensor, count: int, before: Tensor) -> Tensor:
    """What stays when ``count`` weights go, those gone ``before`` first.

    Rows are followed as far as the one that loses most.
    """
    groups, rows, width = weights.shape
    most = min(width, -(-5 * count // (4 * groups * rows)) + 16)
    while True:
        pieces = _pieces(weights, most)
        traced = [trace(weights[g, piece], hessians[g], most, before[g, piece]) for g, piece in pieces]
        orders, losses = (torch.cat(parts) for parts in zip(*traced, strict=True))
        counts = counts_of_rows(losses, count)
        if most == width or int(counts.max()) < most:
            break
        most = min(width, 2 * most)
    gone = torch.arange(most, device=orders.device) < counts.unsqueeze(1)
    keep = torch.ones_like(weights, dtype=torch.bool).reshape(-1, width)
    return keep.scatter_(1, orders, ~gone).reshape(weights.shape)


def _layer(ctx: PruneContext, name: str, count: int, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    columns = Columns(ctx, name)
    hessians = columns.hessian(values).double()
    diagonal = hessians.diagonal(dim1=1, dim2=2)
    dead = diagonal == 0  # inputs that are always zero
    diagonal[dead] = 1
    diagonal += _DAMPING * diagonal.mean(1, keepdim=True)
    weights = columns.matrices(ctx.weights[name]).double()
    before = columns.matrices(ctx.removed(name))
    weights.masked_fill_(before | dead.unsqueeze(1), 0)  # they go first
    keep = _kept(weights, hessians, weights.numel() - count, before)
    for g, piece in _pieces(weights, weights.shape[2]):
        weights[g, piece] = compensated(weights[g, piece], keep[g, piece], hessians[g])
    return columns.restore(keep), columns.restore(weights.to(ctx.weights[name]))


@pruning_method(
    "obc",
    kind="curvature",
    version=2,
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
