"""A split that the data do not have: asking for its images says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from shrinkbench.datasets.card import Batch
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Normalisation


@dataclass(frozen=True)
class AbsentImages:
    """An :class:`~shrinkbench.datasets.card.ImageSource` of length 0; ``reason`` is the sentence it raises."""

    reason: str

    @property
    def labels(self) -> Tensor:
        """No labels: int64 of shape (0,)."""
        return torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return 0

    def select(self, rows: Tensor) -> AbsentImages:
        """Itself; there is nothing to choose from."""
        return self

    def subset(self, count: int) -> AbsentImages:
        """Raise, since no image can be had."""
        raise ShrinkbenchError(self.reason)

    def batches(
        self,
        batch_size: int,
        *,
        normalisation: Normalisation,
        generator: torch.Generator | None = None,
        augment: bool = False,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Iterator[Batch]:
        """Raise, since no image can be had."""
        raise ShrinkbenchError(self.reason)
