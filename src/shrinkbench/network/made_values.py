"""Copies of a network with other values, by which a wrong cut of its channels shows.

A gate may be open for positive scales alone, for negative ones, or for those that the network has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from shrinkbench.network.weights import copy_of


def random_values(module: nn.Module, seed: int, gain: float) -> nn.Module:
    """A copy in double precision with nothing of the network's own values; nothing random happens in it."""
    generator = torch.Generator().manual_seed(seed)
    revealing = _still(module)
    with torch.no_grad():
        for name, parameter in revealing.named_parameters():
            if parameter.is_floating_point():
                parameter.copy_(_draw(name, parameter, generator, gain))
        for name, buffer in revealing.named_buffers():
            if _is_constant(buffer) or name.endswith(("running_mean", "running_var")):
                as_mean = "bias" if name.endswith("running_mean") else name
                buffer.copy_(_draw(as_mean, buffer.flatten(), generator, gain).view_as(buffer))
    return revealing


def other_values(module: nn.Module) -> Iterator[nn.Module]:
    """Copies with the network's own values, with negative scales, and with switches the other way."""
    yield _still(module)
    if _has_gates(module):
        yield _negated(module)
    switches = {name for name, buffer in module.named_buffers() if _is_switch(name, buffer)}
    if switches:
        switched = random_values(module, 0, 1.0)
        with torch.no_grad():
            for name, buffer in switched.named_buffers():
                if name in switches:
                    buffer.copy_(~buffer if buffer.dtype == torch.bool else buffer + 1)
        yield switched


def _negated(module: nn.Module) -> nn.Module:
    """Random values whose scales are below zero, in the reverse order, with other buffers than the given."""
    generator = torch.Generator().manual_seed(1)
    negated = random_values(module, 0, 1.0)
    with torch.no_grad():
        for parameter in negated.parameters():
            if parameter.is_floating_point() and parameter.dim() < 2:
                parameter.neg_()
        for name, buffer in negated.named_buffers():
            if not buffer.is_floating_point() or name.endswith(("running_mean", "running_var")):
                continue
            if buffer.dim() < 2 and _is_constant(buffer):
                buffer.neg_()
                continue
            finite = buffer.isfinite()
            largest = float(buffer[finite].abs().max()) if bool(finite.any()) else 0.0
            drawn = torch.empty(buffer.shape, dtype=torch.float64)
            drawn.uniform_(-0.5 * largest, 0.5 * largest, generator=generator)
            buffer.copy_(torch.where(finite, 0.5 * buffer + drawn.to(buffer.device), buffer))
    return negated


def _has_gates(module: nn.Module) -> bool:
    """Whether modules other than torch's own hold scales or numbers that may open or close something."""
    return any(
        tensor.is_floating_point() and (tensor.dim() < 2 or not isinstance(tensor, nn.Parameter))
        for child in module.modules()
        if not type(child).__module__.startswith("torch.nn.modules.")
        for tensor in (*child.parameters(recurse=False), *child.buffers(recurse=False))
    )


def _is_switch(name: str, buffer: Tensor) -> bool:
    """Whether the buffer says yes or no, or counts; of integers only a single one is safe to change."""
    if buffer.dtype == torch.bool:
        return True
    whole = not buffer.is_floating_point() and not buffer.is_complex()
    return whole and buffer.dim() == 0 and not name.endswith("num_batches_tracked")


def _is_constant(buffer: Tensor) -> bool:
    return buffer.is_floating_point() and buffer.numel() > 0 and bool((buffer == buffer.flatten()[0]).all())


def _still(module: nn.Module) -> nn.Module:
    """A copy in double precision in which nothing random happens, and all that can learn does."""
    still = copy_of(module).double()
    for parameter in still.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_()
    for child in still.modules():
        if isinstance(child, nn.modules.dropout._DropoutNd):
            child.p = 0.0
        elif isinstance(child, nn.modules.batchnorm._NormBase):
            child.momentum = 0.0  # a pass in training leaves the statistics
    return still


def _draw(name: str, like: Tensor, generator: torch.Generator, gain: float) -> Tensor:
    """Values for a parameter: matrices by fan-in (He et al. 2015), scales around one, shifts around zero."""
    values = torch.empty(like.shape, dtype=torch.float64)
    if like.dim() > 1:
        bound = gain * math.sqrt(6 / max(like[0].numel(), 1))
        return values.uniform_(-bound, bound, generator=generator)
    if name.endswith("bias"):
        return values.normal_(0, 0.3, generator=generator)
    return values.uniform_(0.5, 1.5, generator=generator)
