"""The check that two networks compute the same: random inputs, double precision, nothing that hides."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.probe import evaluation_mode, first_tensor
from shrinkbench.pruning.masks import Masks


def revealing_copy(masked: nn.Module, masks: Masks) -> nn.Module:
    """A copy in which no matrix is zero throughout and no layer scale tiny: either would hide a difference.

    Freshly built transformers start with a classifier of zeros, ConvNeXt with scales of 1e-6.
    """
    revealing = copy.deepcopy(masked)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in revealing.named_parameters():
            hides = parameter.dim() > 1 and bool((parameter == parameter.flatten()[0]).all())
            if hides and float(parameter.abs().max()) < 1e-3 and (name not in masks or bool(masks[name].any())):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    masks.apply(revealing)
    return revealing


def probe_inputs(module: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """Two random inputs on the network's device and in its precision, always the same.

    The second is ten times as large: what rectifiers cut off for one of them shows for the other.
    """
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    inputs = torch.randn((2, *input_shape), generator=torch.Generator().manual_seed(0))
    inputs[1] *= 10
    return inputs.to(device=like.device, dtype=like.dtype)


def forward(module: nn.Module, inputs: Tensor) -> Tensor:
    """Outputs in evaluation mode, without gradients."""
    with evaluation_mode(module), torch.no_grad():
        return first_tensor(module(inputs))


def outputs_of(module: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """Outputs for two random inputs in double precision, where the device has it."""
    inputs = probe_inputs(module, input_shape)
    try:
        return forward(copy.deepcopy(module).double(), inputs.double())
    except (RuntimeError, TypeError):  # no doubles on this device, or a cast inside the network
        return forward(module, inputs)


def equal_up_to_rounding(expected: Tensor, found: Tensor) -> bool:
    """Equal up to rounding, relative to the largest output."""
    if expected.shape != found.shape:
        return False
    tolerance = 1e-9 if expected.dtype == torch.float64 else 1e-3 if expected.dtype != torch.float32 else 1e-4
    scale = float(expected.abs().max().clamp_min(1e-12))
    return float((expected - found).abs().max()) <= tolerance * scale


def largest_difference(module: nn.Module, other: nn.Module, input_shape: Sequence[int]) -> float:
    """Largest difference of two networks' outputs for random inputs, relative to the largest output."""
    expected, found = outputs_of(module, input_shape), outputs_of(other, input_shape)
    if expected.shape != found.shape:
        raise ShrinkbenchError(
            f"the networks' outputs have shapes {tuple(expected.shape)} and {tuple(found.shape)}; "
            "compare networks with the same classes"
        )
    return float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-12))
