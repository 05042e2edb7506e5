"""Parameters and multiply-adds of a network that a library supplies, counted without its weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count(build: Callable[[], nn.Module], input_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return (parameters, multiply-adds of one image) of what ``build`` returns.

    Multiply-adds are those of convolutions, linear layers and attention products, in evaluation mode. The
    network lives on the meta device; one that cannot (it makes tensors of its own) is built in memory.
    """
    try:
        with torch.device("meta"):
            return _count(build(), torch.empty(1, *input_shape, device="meta"))
    except (NotImplementedError, RuntimeError):
        return _count(build(), torch.zeros(1, *input_shape))


def _count(module: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    module.eval()
    # The fused attention kernels hide their products from the counter.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            module(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return sum(p.numel() for p in module.parameters()), counter.get_total_flops() // 2
