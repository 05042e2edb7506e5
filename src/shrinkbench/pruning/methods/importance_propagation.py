"""NISP (Yu et al. 2018): importance of the last features, carried back by absolute weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import Coupling, Group, Slice, couple
from shrinkbench.network.derivatives import outputs_of
from shrinkbench.network.weights import layer_of
from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.structures.channels import channels
from shrinkbench.pruning.units import UnitScores

_MIXED = 0.5  # share of the spread in an edge, against independence
_DAMPED = 0.9


def rank_features(responses: Tensor) -> Tensor:
    """Infinite feature selection (Roffo et al. 2015) over the columns of ``responses`` (rows, features).

    An edge between two features is half the larger of their standard deviations (over the largest of all) and
    half 1 - |rank correlation|; a score adds up all paths that start at a feature, of any length, a path of
    length l weighing ``(0.9 / spectral radius)^l``.
    """
    values = responses.double()
    deviation = values.std(0, unbiased=False)
    deviation = deviation / deviation.max().clamp_min(1e-30)
    ranks = _ranks(values)
    centred = ranks - ranks.mean(0)
    normed = centred / centred.norm(dim=0).clamp_min(1e-30)
    edges = _MIXED * torch.maximum(deviation, deviation[:, None])
    edges = edges + (1 - _MIXED) * (1 - (normed.T @ normed).abs().clamp(max=1))
    radius = torch.linalg.eigvalsh(edges).abs().max().clamp_min(1e-30)
    identity = torch.eye(len(edges), dtype=edges.dtype, device=edges.device)
    ones = torch.ones(len(edges), 1, dtype=edges.dtype, device=edges.device)
    paths: Tensor = torch.linalg.solve(identity - _DAMPED / radius * edges, ones)
    return paths.flatten() - 1


def _ranks(values: Tensor) -> Tensor:
    """Ranks within each column, ties at their mean."""
    columns = values.T.contiguous()
    ordered = columns.sort(dim=1).values
    below = torch.searchsorted(ordered, columns)
    upto = torch.searchsorted(ordered, columns, right=True)
    return ((below + upto).double() / 2).T


def propagate(ctx: PruneContext, coupling: Coupling, last: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Importance of the units of each group: ``s_k = |W_{k+1}|' s_{k+1}``, added up over all readers.

    ``last`` are the scores of the groups that the classifier reads. Outputs of a layer whose channels belong to
    no group, or to one that nothing behind it reads, count alike.
    """
    found = {g.layer: torch.zeros(g.units, dtype=torch.float64) for g in coupling.groups}
    made, read = _slices(coupling, "produces"), _slices(coupling, "consumes")
    parameters = dict(ctx.module.named_parameters())
    for name in reversed(ctx.flow.order):
        geometry = ctx.geometry(name)
        weight = geometry.rows(parameters[name].detach()).abs().double().cpu()
        outputs, inputs = (1, 0) if geometry.transposed else (0, 1)
        behind = torch.ones(weight.shape[0], dtype=torch.float64)
        for group, piece in made.get(name, []):
            importance = found[group.layer][piece.unit.clamp_min(0)]
            if piece.dim == outputs and bool(importance.any()):
                behind = torch.where(piece.unit >= 0, importance, behind)
        for group, piece in read.get(name, []):
            if piece.dim != inputs or len(piece.unit) != weight.shape[1]:
                continue
            here = piece.unit >= 0
            if name in ctx.flow.logits and group.layer in last:
                found[group.layer] += last[group.layer]
                continue
            columns = (weight.flatten(2).sum(2) if weight.dim() > 2 else weight).T @ behind
            found[group.layer].index_add_(0, piece.unit[here], columns[here])
    return found


def _slices(coupling: Coupling, role: str) -> dict[str, list[tuple[Group, Slice]]]:
    found: dict[str, list[tuple[Group, Slice]]] = {}
    for group in coupling.groups:
        for piece in group.slices:
            if piece.role == role and piece.tensor.endswith("weight"):
                found.setdefault(piece.tensor, []).append((group, piece))
    return found


def last_responses(ctx: PruneContext, coupling: Coupling) -> dict[str, Tensor]:
    """Scores of the units that the classifier reads, from its inputs: a unit's mean over its positions."""
    readers = {
        piece.tensor: (group, piece)
        for name, pieces in _slices(coupling, "consumes").items()
        if name in ctx.flow.logits
        for group, piece in pieces
        if bool((piece.unit >= 0).all())
    }
    seen: dict[str, list[Tensor]] = {name: [] for name in readers}

    def note(name: str, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs = args[0].detach()
        if not isinstance(layer, nn.Linear):
            inputs = inputs.flatten(2).mean(2)
        seen[name].append(inputs.reshape(-1, inputs.shape[-1]).double().cpu())

    handles = [
        ctx.module.get_submodule(layer_of(name)).register_forward_pre_hook(partial(note, name))
        for name in readers
    ]
    try:
        with torch.no_grad():
            for batch in ctx.each_batch():
                outputs_of(ctx.module, {}, batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    scores = {}
    for name, (group, piece) in readers.items():
        rows = torch.cat(seen[name]) if seen[name] else torch.zeros(0, len(piece.unit), dtype=torch.float64)
        if not len(rows) or rows.shape[1] != len(piece.unit):
            continue
        if not bool(rows.isfinite().all()):
            raise ShrinkbenchError(
                f"what '{layer_of(name)}' reads is not finite; the network's weights or activations have "
                "diverged"
            )
        sums = rows.new_zeros(len(rows), group.units).index_add_(1, piece.unit, rows)
        scores[group.layer] = rank_features(sums / torch.bincount(piece.unit, minlength=group.units))
    return scores


@pruning_method(
    "nisp",
    version=2,
    structure=channels,
    allocation=layerwise,
    needs=("data",),
    batch_count=8,
    reference="yu2018nisp",
)
@decides("structure")
def importance(ctx: PruneContext) -> UnitScores:
    """Importance for the last features, ranked on data, carried back by absolute weights."""
    coupling = couple(ctx.module, ctx.example)
    found = propagate(ctx, coupling, last_responses(ctx, coupling))
    return UnitScores({name: values.float() for name, values in found.items()})
