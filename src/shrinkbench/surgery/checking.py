"""The check that two networks compute the same: random inputs, double precision, nothing that hides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Example, Inputs
from shrinkbench.network.probe import evaluation_mode, floating_leaves
from shrinkbench.network.weights import copy_of
from shrinkbench.pruning.masks import Masks

_FAR = 1e6  # times the middle value


def revealing_copy(masked: nn.Module, masks: Masks) -> nn.Module:
    """A copy in which no matrix and no scale is zero throughout or tiny: either would hide a difference.

    Freshly built transformers start with a classifier of zeros, ConvNeXt with scales of 1e-6, gated branches
    with a gate of zero. Shifts (biases) stay: without one, a channel that lost its filter is gone.
    """
    revealing = copy_of(masked)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in revealing.named_parameters():
            if name.endswith("bias") or not parameter.numel() or not parameter.is_floating_point():
                continue
            hides = bool((parameter == parameter.flatten()[0]).all()) and float(parameter.abs().max()) < 1e-3
            if hides and (name not in masks or bool(masks[name].any())):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    masks.apply(revealing)
    return revealing


def probe_inputs(module: nn.Module, example: Example) -> Inputs:
    """Two random inputs on the network's device and in its precision, always the same.

    The second is ten times as large: what rectifiers cut off for one of them shows for the other.
    """
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    return Inputs.of(example).drawn(2, seed=0, scale=10).to(like.device, like.dtype)


def forward(module: nn.Module, inputs: Inputs) -> list[Tensor]:
    """Every floating output in evaluation mode, without gradients."""
    with evaluation_mode(module), torch.no_grad():
        return floating_leaves(inputs.call(module))


def outputs_in_double(module: nn.Module, example: Example) -> list[Tensor]:
    """Outputs for two random inputs in double precision, where the device has it."""
    inputs = probe_inputs(module, example)
    try:
        return forward(copy_of(module).double(), inputs.to(inputs.device, torch.float64))
    except (RuntimeError, TypeError):  # no doubles on this device, or a cast inside the network
        return forward(module, inputs)


def equal_up_to_rounding(expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Equal up to rounding, each output relative to its largest value."""
    if [leaf.shape for leaf in expected] != [leaf.shape for leaf in found]:
        return False
    tolerances = {torch.float64: 1e-9, torch.float32: 1e-4}
    return all(
        difference(one, other) <= tolerances.get(one.dtype, 1e-3)
        for one, other in zip(expected, found, strict=True)
    )


def require_numbers(outputs: Sequence[Tensor]) -> None:
    """Refuse outputs of a network that hold NaN, to which nothing is equal."""
    if any(bool(leaf.isnan().any()) for leaf in outputs):
        raise ShrinkbenchError(
            "the network's own outputs hold NaN for random inputs, so that nothing can be compared with them; "
            "look at its weights, or let it take inputs of any size and sign"
        )


def difference(expected: Tensor, found: Tensor) -> float:
    """Largest difference, relative to the largest expected value; whole numbers are equal or not at all.

    Values far above the others, as those that stand in masked places, are compared apart: beside them every
    other difference would be nothing. Infinity equals itself, NaN nothing.
    """
    if expected.is_complex() and found.is_complex():
        return difference(torch.view_as_real(expected), torch.view_as_real(found))
    finite = expected.isfinite()
    if not torch.equal(expected[~finite], found[~finite]) or not bool(found[finite].isfinite().all()):
        return math.inf
    if not expected.is_floating_point():
        return 0.0 if torch.equal(expected, found) else math.inf
    sizes, apart = expected[finite].abs(), (expected - found)[finite].abs()
    if not sizes.numel():
        return 0.0
    seen = sizes[sizes > 0]
    far = sizes > _FAR * seen.double().median() if seen.numel() else sizes > 0
    parts = [(apart[which], sizes[which]) for which in (far, ~far) if bool(which.any())]
    return max(float(gap.max() / size.max().clamp_min(1e-12)) for gap, size in parts)


def largest_difference(module: nn.Module, other: nn.Module, example: Example) -> float:
    """Largest difference of two networks' outputs for random inputs, relative to the largest value of each."""
    expected, found = outputs_in_double(module, example), outputs_in_double(other, example)
    if [leaf.shape for leaf in expected] != [leaf.shape for leaf in found]:
        shapes = " and ".join(str([tuple(leaf.shape) for leaf in leaves]) for leaves in (expected, found))
        raise ShrinkbenchError(
            f"the networks' outputs have shapes {shapes}; compare networks with the same classes"
        )
    return max((difference(one, two) for one, two in zip(expected, found, strict=True)), default=0.0)
