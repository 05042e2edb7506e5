"""What may be looked at of a network without data: its weights, their layout and how they are connected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from shrinkbench.network.dataflow import Flow, Geometry
from shrinkbench.network.inputs import Inputs

Batches = Iterable[Any]
"""As :func:`shrinkbench.network.inputs.split_batch` takes them: (inputs, targets), or dictionaries."""
Loss = Callable[[Any, Any], Tensor]
"""Of outputs and targets; torch's own losses are of the logits."""


class NetworkView(Protocol):
    """A network at one moment: ``weights`` are the prunable ones by name, detached."""

    module: nn.Module

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The prunable weights."""

    @property
    def example(self) -> Inputs:
        """What the network takes."""

    @property
    def flow(self) -> Flow:
        """How data flows between the weighted layers."""

    def geometry(self, name: str) -> Geometry:
        """How the tensor of weight ``name`` is laid out."""
