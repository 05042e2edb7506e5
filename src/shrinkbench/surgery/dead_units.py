"""Which coupled units do not reach the output of a masked network: what surgery may remove."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.errors import LeftWholeWarning
from shrinkbench.network.coupling import Coupling, Group, Slice
from shrinkbench.network.inputs import Example
from shrinkbench.network.watching import watching
from shrinkbench.network.weights import is_transposed_linear
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.structures.channel_masks import (
    _filters,
    _per_unit,
    find_masked,
    units_without_filters,
)
from shrinkbench.surgery.checking import forward, probe_inputs

_Conv = nn.modules.conv._ConvNd


def warn_left(message: str) -> None:
    """Tell what had to stay, and why."""
    warnings.warn(message, LeftWholeWarning, stacklevel=2)


def dead_units(masked: nn.Module, masks: Masks, coupling: Coupling, input_shape: Example) -> dict[str, Tensor]:
    """Group -> boolean tensor of its units that do not reach the output; groups without any are left out."""
    silent = _silent_inputs(masked, coupling, input_shape)
    dead: dict[str, Tensor] = {}
    for group in coupling.groups:
        unheard = _all_slices(group, "consumes", lambda s: find_masked(masks, s))
        gone = units_without_filters(group, masks)
        quiet = gone & _all_slices(group, "consumes", lambda s: silent[s.tensor])
        removable = unheard | quiet
        if not any(bool(masks[t].any()) for t in _filters(group) if t in masks):
            gone = torch.zeros_like(gone)  # layers without any weight left become constants, nothing stays
        if group.refused_because is not None:
            if bool(gone.any()):
                what = "channels" if group.kind == "channels" else "heads"
                left = f"{int(gone.sum())} pruned {what} of '{group.layer}'"
                warn_left(f"{left} stay in place: {group.refused_because}")
            continue
        constant = int((gone & ~removable).sum())
        if constant:
            warn_left(
                f"{constant} channels of '{group.layer}' have no filter left but still carry a constant (a "
                "batch-norm shift or bias) and stay; mask whole channels, or complete_masks() first"
            )
        if bool(removable.any()):
            dead[group.layer] = removable
    return dead


def _all_slices(group: Group, role: str, of: Callable[[Slice], Tensor]) -> Tensor:
    """Per unit: whether ``of`` holds at every position of the slices in ``role``; false without any."""
    slices = [s for s in group.slices if s.role == role]
    result = torch.full((group.units,), bool(slices))
    for piece in slices:
        result &= _per_unit(group, piece, of(piece))
    return result


def _silent_inputs(masked: nn.Module, coupling: Coupling, input_shape: Example) -> dict[str, Tensor]:
    """Consuming weight -> input channels that are exactly zero for random inputs."""
    layers = {
        s.tensor.rpartition(".")[0]: s.tensor for g in coupling.groups for s in g.slices if s.role == "consumes"
    }
    silent: dict[str, Tensor] = {}

    def note(tensor: str, inputs: Any, _: Any) -> None:
        x = inputs[0].detach()
        dim = 1 if isinstance(read[tensor], _Conv) else x.dim() - 1
        zero = ~(x != 0).any(dim=[d for d in range(x.dim()) if d != dim]).cpu()
        silent[tensor] = silent[tensor] & zero if tensor in silent else zero

    modules = {tensor: masked.get_submodule(path) for path, tensor in layers.items()}
    read = {
        tensor: layer
        for tensor, layer in modules.items()
        if isinstance(layer, _Conv | nn.Linear) or is_transposed_linear(layer)
    }
    with watching(read, note):
        forward(masked, probe_inputs(masked, input_shape))
    for group in coupling.groups:
        for piece in group.slices:  # attention applies its projection without calling the layer
            if piece.role == "consumes":
                silent.setdefault(piece.tensor, torch.zeros(len(piece.unit), dtype=torch.bool))
    return silent
