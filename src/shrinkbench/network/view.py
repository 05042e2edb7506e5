"""What may be looked at of a network without data: its weights, their layout and how they are connected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from torch import Tensor, nn

from shrinkbench.network.dataflow import Flow, Geometry

Batches = Iterable[tuple[Tensor, Tensor]]
"""Inputs and labels."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""Of outputs and labels."""


class NetworkView(Protocol):
    """A network at one moment: ``weights`` are the prunable ones by name, detached."""

    module: nn.Module

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The prunable weights."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without batch dimension."""

    @property
    def flow(self) -> Flow:
        """How data flows between the weighted layers."""

    def geometry(self, name: str) -> Geometry:
        """How the tensor of weight ``name`` is laid out."""
