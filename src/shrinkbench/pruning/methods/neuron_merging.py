"""Data-free parameter pruning (Srinivas and Babu 2015): a unit goes where another computes nearly the same."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import Group, Slice
from shrinkbench.network.weights import layer_of
from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.methods.thinet_and_regression import alive_units, prune_by_readers
from shrinkbench.pruning.structures.channels import Reader, chained_channels


def merge_units(incoming: Tensor, outgoing: Tensor, alive: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Remove unit after unit until ``keep`` of the ``alive`` are left; returns these and the new ``outgoing``.

    The next is the j with the least ``||w_i - w_j||^2 * mean of a_j^2`` over pairs of units that are left, w
    being rows of ``incoming`` and a rows of ``outgoing``; its a_j is added to a_i. Of equals the first goes.

    >>> w, a = torch.tensor([[1.0], [5.0], [1.5]]), torch.tensor([[1.0], [1.0], [0.5]])
    >>> merge_units(w, a, torch.tensor([True, True, True]), 2)
    (tensor([0, 1]), tensor([[1.5000],
            [1.0000],
            [0.0000]]))
    """
    rows, outgoing = incoming.double(), outgoing.clone(memory_format=torch.contiguous_format)
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    distances.fill_diagonal_(torch.inf)
    left = alive.to(rows.device).clone()
    distances[~left] = torch.inf
    distances[:, ~left] = torch.inf
    nearest, to = distances.min(1)
    size = outgoing.double().square().mean(1)
    for _ in range(int(left.sum()) - keep):
        saliency = nearest * size
        gone = int(torch.where(saliency.isnan() | ~left, torch.inf, saliency).argmin())
        into = int(to[gone])
        outgoing[into] += outgoing[gone]
        outgoing[gone] = 0
        size[[gone, into]] = outgoing[[gone, into]].double().square().mean(1)
        left[gone] = False
        distances[gone] = torch.inf
        distances[:, gone] = torch.inf
        alone = (left & (to == gone)).nonzero().flatten()  # only these have another nearest now
        nearest[alone], to[alone] = distances[alone].min(1)
    return left.nonzero().flatten(), outgoing


def incoming_of(ctx: PruneContext, group: Group, values: Mapping[str, Tensor]) -> Tensor:
    """What each unit is made by: filters and biases behind their batch norm, and all else that it carries."""
    parameters = dict(ctx.module.named_parameters())
    made = [s for s in group.slices if s.role == "produces"]
    filters = next(s for s in made if s.tensor.endswith("weight"))
    scale = ctx.flow.batch_norms.get(filters.tensor)
    factor, shift = _affine(ctx, scale, len(filters.unit))
    parts, constant = [], shift
    for piece in made:
        values_now = values.get(piece.tensor, parameters[piece.tensor].detach())
        rows = _rows(values_now, piece) * factor[:, None]
        if piece is filters:
            parts.append(_by_unit(rows, piece, group.units))
        else:  # a bias and a shift are one number for what follows
            constant = constant + rows.flatten()
    parts.append(_by_unit(constant[:, None], filters, group.units))
    norm = None if scale is None else layer_of(scale)
    parts += [
        _by_unit(_rows(parameters[piece.tensor].detach(), piece), piece, group.units)
        for piece in group.slices
        if piece.role == "carries" and piece.tensor in parameters and layer_of(piece.tensor) != norm
    ]
    return torch.cat(parts, 1)


def _affine(ctx: PruneContext, scale: str | None, channels: int) -> tuple[Tensor, Tensor]:
    """Factor and shift of the batch norm behind a layer, as it evaluates; 1 and 0 without one."""
    one, nothing = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    norm = None if scale is None else ctx.module.get_submodule(layer_of(scale))
    if norm is None or getattr(norm, "running_var", None) is None or len(norm.running_var) != channels:  # type: ignore[arg-type]
        return one, nothing
    mean, variance, gain, offset = (
        getattr(norm, key).detach().double().cpu() for key in ("running_mean", "running_var", "weight", "bias")
    )
    factor = gain / (variance + float(norm.eps)).sqrt()  # type: ignore[arg-type]
    shift = offset - factor * mean
    if not bool((factor + shift).isfinite().all()):
        raise ShrinkbenchError(
            f"the batch norm '{layer_of(str(scale))}' has statistics that are not finite, so that units "
            "behind it cannot be compared; check the network"
        )
    return factor, shift


def _rows(tensor: Tensor, piece: Slice) -> Tensor:
    """One row for each position of ``piece``."""
    return tensor.movedim(piece.dim, 0).reshape(len(piece.unit), -1).double().cpu()


def _by_unit(rows: Tensor, piece: Slice, units: int) -> Tensor:
    """Rows that belong to a unit, side by side."""
    here = piece.unit >= 0
    return rows[here][piece.unit[here].argsort(stable=True)].reshape(units, -1)


def by_merging(
    ctx: PruneContext, reader: Reader, keep: int, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The units that stay, and the reader's weights with those of the others added."""
    weight = ctx.weights[reader.weight]
    kernel = weight[0, 0].numel() if weight.dim() > 2 else 1
    order = reader.unit.repeat_interleave(kernel).argsort(stable=True).to(weight.device)
    flat = values.get(reader.weight, weight).flatten(1)
    outgoing = flat[:, order].reshape(len(flat), reader.units, -1).transpose(0, 1).flatten(1)
    assert reader.group is not None  # noqa: S101  inputs that nothing produces are sampled by published widths alone
    incoming = incoming_of(ctx, reader.group, values).to(weight.device)
    kept, merged = merge_units(incoming, outgoing, alive_units(ctx, reader), keep)
    new = torch.empty_like(flat)
    new[:, order] = merged.reshape(reader.units, len(flat), -1).transpose(0, 1).flatten(1).to(flat.dtype)
    return kept, new.reshape(weight.shape)


@pruning_method(
    "data_free_merging", structure=chained_channels, allocation=layerwise, reference="srinivas2015data"
)
@decides("structure", "allocation")
def nearly_the_same(ctx: PruneContext) -> Masks:
    """``||w_i - w_j||^2 * mean of a_j^2``: the least unit j goes, and what read j reads i in its place."""
    return prune_by_readers(ctx, by_merging)
