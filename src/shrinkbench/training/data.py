"""What training asks of data."""

from __future__ import annotations

from typing import Protocol

import torch

from shrinkbench.tasks import Batches


class Data(Protocol):
    """What the loop asks of data; the runner binds a dataset, its normalisation and the device to it.

    Batches are what the task takes.
    """

    def train(self, batch_size: int, *, generator: torch.Generator, augment: bool) -> Batches:
        """Shuffled training batches of one epoch."""
        ...

    def validation(self) -> Batches | None:
        """Validation batches, in a fixed order; ``None`` where no images are set aside."""
        ...

    def test(self) -> Batches:
        """Test batches; read during training only by recipes that select on the reported split."""
        ...
