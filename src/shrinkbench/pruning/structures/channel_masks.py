"""Masks of whole units: a pruned channel contributes nothing, wherever its weights lie."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import Coupling, Group, Slice, couple
from shrinkbench.network.inputs import Example
from shrinkbench.pruning.masks import Masks


def masks_of_units(module: nn.Module, coupling: Coupling, keep: Mapping[str, Tensor]) -> Masks:
    """Masks that keep the units ``keep[layer]`` (boolean, one per unit) of the group that ``layer`` names.

    Every parameter that a pruned unit owns is masked: its filters and their biases, scale and shift of its
    batch norm, and the input slices of the layers that read it. Groups without an entry stay whole. Raises
    ``ShrinkbenchError`` for a layer that would be emptied and for groups that have to stay whole.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    masks: dict[str, Tensor] = {}
    for layer, stays in keep.items():
        group = coupling.group_of(layer)
        _check(group, layer, stays)
        for piece in group.slices:
            if piece.tensor not in parameters:
                continue  # running statistics are no parameters
            like = parameters[piece.tensor]
            at = torch.ones(len(piece.unit), dtype=torch.bool)
            here = piece.unit >= 0
            at[here] = stays.cpu()[piece.unit[here]]
            shape = [1] * like.dim()
            shape[piece.dim] = -1
            mask = at.view(shape).expand(like.shape).to(like.device)
            masks[piece.tensor] = masks[piece.tensor] & mask if piece.tensor in masks else mask.clone()
    return Masks({name: masks[name] for name in parameters if name in masks})


def _check(group: Group, layer: str, stays: Tensor) -> None:
    if len(stays) != group.units:
        raise ShrinkbenchError(
            f"'{layer}' has {group.units} {group.kind} that can leave alone, the choice names {len(stays)}"
        )
    if group.refused_because is not None and not bool(stays.all()):
        raise ShrinkbenchError(f"the {group.kind} of '{layer}' have to stay whole: {group.refused_because}")
    if not bool(stays.any()):
        raise ShrinkbenchError(
            f"all {group.units} {group.kind} of '{layer}' would be removed; keep at least one, or prune less"
        )


def complete_masks(module: nn.Module, masks: Mapping[str, Tensor], input_shape: Example) -> Masks:
    """Extend masks of filters to the whole channels that they belong to.

    A filter mask alone leaves the shift of its batch norm and so a constant channel; what this returns
    removes the channel altogether. Channels that another branch of a residual sum still produces are left as
    they are, and so are those of layers that have no filter left.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> mask = torch.ones(4, 3, 3, 3, dtype=torch.bool)
    >>> mask[1] = False
    >>> complete_masks(net, {"0.weight": mask}, (3, 8, 8))["3.weight"].flatten(1)[0].tolist()
    [True, False, True, True]
    """
    coupling = couple(module, input_shape)
    keep: dict[str, Tensor] = {}
    for group in coupling.free:
        gone = units_without_filters(group, masks)
        if bool(gone.any()) and not bool(gone.all()):
            keep[group.layer] = ~gone
    given = masks if isinstance(masks, Masks) else Masks(masks)
    return given.intersect(masks_of_units(module, coupling, keep))


def _filters(group: Group) -> tuple[str, ...]:
    """Weights that produce the group's units."""
    return tuple(s.tensor for s in group.slices if s.role == "produces" and s.tensor.endswith("weight"))


def units_without_filters(group: Group, masks: Mapping[str, Tensor]) -> Tensor:
    """Units of which the masks leave no producing weight; those that no weight produces are not among them."""
    gone = torch.ones(group.units, dtype=torch.bool)
    produced = torch.zeros(group.units, dtype=torch.bool)
    for piece in group.slices:
        if piece.tensor in _filters(group) and piece.role == "produces":
            gone &= _per_unit(group, piece, find_masked(masks, piece))
            produced[piece.unit[piece.unit >= 0]] = True
    return gone & produced


def _per_unit(group: Group, piece: Slice, positions: Tensor) -> Tensor:
    """Per unit: whether ``positions`` holds at all of its positions in ``piece``."""
    here = piece.unit >= 0
    failing = torch.zeros(group.units, dtype=torch.bool)
    failing[piece.unit[here & ~positions]] = True
    return ~failing


def find_masked(masks: Mapping[str, Tensor], piece: Slice) -> Tensor:
    """Positions along the slice's dimension at which no weight is kept."""
    if piece.tensor not in masks:
        return torch.zeros(len(piece.unit), dtype=torch.bool)
    mask = masks[piece.tensor]
    others = [d for d in range(mask.dim()) if d != piece.dim]
    return ~(mask.any(dim=others) if others else mask).cpu()
