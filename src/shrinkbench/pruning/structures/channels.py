"""Structures whose pruned units contribute nothing at all, so that surgery can take them out.

``channels`` are the groups of :mod:`shrinkbench.network.coupling`: filters with their batch norm and all that
reads them. ``branches`` are residual branches with the batch norms inside them. Masks of both cover
parameters that are not prunable on their own (scales, shifts, biases); what they remove counts towards the
compression.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shrinkbench.errors import LeftWholeWarning, ShrinkbenchError
from shrinkbench.network.coupling import Coupling, Group, couple
from shrinkbench.network.view import NetworkView
from shrinkbench.network.weights import layer_of, weight_parameters
from shrinkbench.pruning.structures.channel_masks import masks_of_units
from shrinkbench.pruning.units import STRUCTURES, Grouping, Scores, Structure, Units


def unit_scores(group: Group, scores: Mapping[str, Tensor]) -> Tensor:
    """Mean score of the weights that produce each unit; ``-inf`` where all of them are gone already."""
    return _means(*_sums(group, scores))


def _means(sums: Tensor, counts: Tensor, alive: Tensor) -> Tensor:
    return (sums / counts.clamp_min(1)).float().masked_fill((counts > 0) & (alive == 0), -math.inf)


def unit_sums(group: Group, tensors: Mapping[str, Tensor]) -> Tensor:
    """Sum over the weights that produce each unit."""
    return _sums(group, tensors)[0].float()


def _sums(group: Group, scores: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Per unit: the sum over its producing weights, how many there are, and how many are left."""
    sums, counts, alive = (torch.zeros(group.units, dtype=torch.float64) for _ in range(3))
    for piece in group.slices:
        if piece.role != "produces" or piece.tensor not in scores:
            continue
        here = piece.unit >= 0
        rows = scores[piece.tensor].detach().movedim(piece.dim, 0).flatten(1).cpu()[here]
        gone = rows == -math.inf
        of_unit = piece.unit[here]
        sums.index_add_(0, of_unit, rows.masked_fill(gone, 0).double().sum(1))
        counts.index_add_(0, of_unit, torch.full((len(rows),), float(rows.shape[1]), dtype=torch.float64))
        alive.index_add_(0, of_unit, (~gone).double().sum(1))
    return sums, counts, alive


def weights_per_unit(group: Group, parameters: Mapping[str, Tensor]) -> int | Tensor:
    """Parameters that leave with each unit, crossings of two units in one weight counted for both."""
    sizes = torch.zeros(group.units, dtype=torch.int64)
    for piece in group.slices:
        if piece.tensor in parameters:
            like = parameters[piece.tensor]
            here = piece.unit[piece.unit >= 0]
            sizes.index_add_(0, here, torch.full_like(here, like.numel() // like.shape[piece.dim]))
    return int(sizes[0]) if bool((sizes == sizes[0]).all()) else sizes


def held_by(ctx: NetworkView, group: Group) -> list[str]:
    """Weights of grouped convolutions within the group that are not to be pruned."""
    stay = weight_parameters(ctx.module).keys() - ctx.weights.keys()
    return [s.tensor for s in group.slices if s.role == "carries" and s.tensor in stay]


def prunable_groups(ctx: NetworkView, coupling: Coupling) -> list[tuple[Group, list[str]]]:
    """Groups that can lose units and whose producing weights are all prunable, with these weights.

    Filters of a grouped convolution leave with its inputs, so that its weights have to be prunable too.
    """
    found = []
    for group in coupling.free:
        if group.kind == "projected heads":  # units of the structure 'heads'
            continue
        weights = [s.tensor for s in group.slices if s.role == "produces" and s.tensor.endswith("weight")]
        if weights and not held_by(ctx, group) and all(name in ctx.weights for name in weights):
            found.append((group, weights))
    return found


def _name_held(ctx: NetworkView, coupling: Coupling) -> None:
    """Warn of groups that stay whole for a grouped convolution whose weights stay."""
    for group in coupling.free:
        held = held_by(ctx, group)
        if held and any(s.role == "produces" and s.tensor in ctx.weights for s in group.slices):
            warnings.warn(
                f"left whole: the channels of '{group.layer}', which would take filters of the grouped "
                f"convolution '{layer_of(held[0])}' along, whose weights stay",
                LeftWholeWarning,
                stacklevel=2,
            )


def _channels(ctx: NetworkView, scores: Scores) -> Grouping:
    coupling = couple(ctx.module, ctx.example)
    parameters = dict(ctx.module.named_parameters())
    units: dict[str, Units] = {}
    _name_held(ctx, coupling)
    for group, weights in prunable_groups(ctx, coupling):
        sums, counts, alive = _sums(group, {name: scores[name] for name in weights})
        size = weights_per_unit(group, parameters)
        units[group.layer] = Units(_means(sums, counts, alive), size, least=1, scored=counts.float())
    if not units:
        reasons = "; ".join(
            f"'{g.layer}': {g.refused_because}" for g in coupling.groups[:3] if g.refused_because
        )
        reasons = reasons or "; ".join(coupling.notes) or "none of its layers has any"
        raise ShrinkbenchError(
            f"no channels of this network can be removed ({reasons}); choose another structure"
        )

    def expand(keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(masks_of_units(ctx.module, coupling, keep))

    return Grouping(units, expand)


channels = STRUCTURES.add(
    "channels",
    Structure(
        "channels",
        "channels, neurons and heads with their batch norm and all that reads them; one at least stays in each",
        _channels,
        overlapping=True,
        unit="channel",
        version=4,
    ),
)


@dataclass(frozen=True)
class Reader:
    """A weight and the unit of each of its inputs.

    The units are those of the ``group`` of channels that it alone reads, and leave with it; without a group
    they are the inputs themselves, which others go on reading.
    """

    weight: str
    unit: Tensor
    group: Group | None = None

    @property
    def key(self) -> str:
        """The group's layer, or the weight."""
        return self.weight if self.group is None else self.group.layer

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.unit) if self.group is None else self.group.units


def readers(ctx: NetworkView, coupling: Coupling) -> list[Reader]:
    """The groups that one prunable layer produces and one reads, in the order in which the readers run."""
    found: dict[str, Reader] = {}
    for group, weights in prunable_groups(ctx, coupling):
        reading = [s for s in group.slices if s.role == "consumes"]
        alone = len(reading) == 1 and len(weights) == 1 and group.kind == "channels"
        if alone and reading[0].tensor in ctx.weights and bool((reading[0].unit >= 0).all()):
            found[reading[0].tensor] = Reader(reading[0].tensor, reading[0].unit, group)
    order = list(ctx.flow.order)
    return sorted(found.values(), key=lambda reader: order.index(reader.weight))


def _chain(ctx: NetworkView, scores: Scores) -> Grouping:
    inside = {reader.key for reader in readers(ctx, couple(ctx.module, ctx.example))}
    whole = _channels(ctx, scores)
    units = {layer: found for layer, found in whole.units.items() if layer in inside}
    if not units:
        raise ShrinkbenchError(
            "no channels of this network are produced by one layer and read by one; choose a method of "
            "structure 'channels'"
        )
    return Grouping(units, whole.expand)


chained_channels = STRUCTURES.add(
    "chained-channels",
    Structure(
        "chained-channels",
        "channels that one layer produces and one layer reads; residual streams stay whole",
        _chain,
        overlapping=True,
        unit="channel",
        version=4,
    ),
)


def branch_parameters(ctx: NetworkView) -> dict[str, tuple[str, ...]]:
    """Residual branches that can leave whole: first weight -> all parameters of the branch.

    To its weights belong their biases, the batch norms behind them, and one in front that feeds the branch
    alone.
    """
    parameters = dict(ctx.module.named_parameters())
    feeding = couple(ctx.module, ctx.example).feeding_norm
    found: dict[str, tuple[str, ...]] = {}
    for branch in ctx.flow.branches:
        if not branch <= ctx.weights.keys():
            continue
        layers = {layer_of(name) for name in branch}
        norms = (ctx.flow.batch_norms[name] for name in branch & ctx.flow.batch_norms.keys())
        layers |= {layer_of(name) for name in norms}
        layers |= {feeding[layer] for layer in layers & feeding.keys()}
        members = tuple(name for name in parameters if layer_of(name) in layers)
        found[next(name for name in members if name in branch)] = members
    return found


def _branches(ctx: NetworkView, scores: Scores) -> Grouping:
    members = branch_parameters(ctx)
    if not members:
        raise ShrinkbenchError(
            "this network has no residual branches that could be removed whole; choose a residual network or "
            "another structure"
        )
    parameters = dict(ctx.module.named_parameters())
    units: dict[str, Units] = {}
    for first, names in members.items():
        weights = [name for name in names if name in ctx.weights]
        mean = _mean(scores[name] for name in weights).reshape(1)
        units[first] = Units(mean, _count(names, parameters), scored=_count(weights, parameters))

    def expand(keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: torch.full_like(parameters[name], bool(stays), dtype=torch.bool)
            for first, stays in keep.items()
            for name in members[first]
        }

    # What leaves with a branch is partly not prunable on its own, so removals are counted, not added up.
    return Grouping(units, expand)


def _mean(scores: Iterable[Tensor]) -> Tensor:
    flat = torch.cat([s.detach().reshape(-1).float().cpu() for s in scores])
    gone = flat == -math.inf
    return flat.new_tensor(-math.inf) if bool(gone.all()) else flat.masked_fill(gone, 0).mean()


def _count(names: Iterable[str], parameters: Mapping[str, nn.Parameter]) -> int:
    return sum(parameters[name].numel() for name in names)


branches = STRUCTURES.add(
    "branches",
    Structure(
        "branches",
        "residual branches with the batch norms inside them; what runs beside them stays",
        _branches,
        overlapping=True,
        one_per_layer=True,
        unit="branch",
    ),
    aliases=("residual-blocks",),
)
