"""Figures of a network that a library supplies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Example
from shrinkbench.network.probe import trace


def count(build: Callable[[], nn.Module], example: Example) -> tuple[int, int]:
    """Return (parameters, multiply-adds of one image) of what ``build`` returns.

    The network is built on the meta device; one that makes tensors of its own there is built in memory.
    """
    try:
        with torch.device("meta"):
            module = build()
        traced = trace(module, example)
    except (NotImplementedError, RuntimeError, ShrinkbenchError):
        module = build()
        traced = trace(module, example)
    return sum(p.numel() for p in module.parameters()), traced.multiply_adds
