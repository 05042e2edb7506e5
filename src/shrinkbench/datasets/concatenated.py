"""Several image sources, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from shrinkbench.datasets.card import Batch, ImageSource
from shrinkbench.datasets.memory import check_count
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Normalisation


@dataclass(frozen=True)
class ConcatenatedImages:
    """An :class:`~shrinkbench.datasets.card.ImageSource` for evaluation: its images come in fixed order."""

    sources: Sequence[ImageSource]

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def subset(self, count: int) -> ConcatenatedImages:
        """``count`` images in equal shares, the first sources giving one more where it does not divide."""
        check_count(count, len(self))
        share, rest = divmod(count, len(self.sources))
        shares = [share + (number < rest) for number in range(len(self.sources))]
        return ConcatenatedImages(
            [source.subset(n) for source, n in zip(self.sources, shares, strict=True) if n]
        )

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
        """Yield every image once, source by source; shuffling is refused, since nothing trains on these."""
        if generator is not None or augment:
            raise ShrinkbenchError(
                "images for extra evaluations are not to be shuffled, augmented or trained on"
            )
        return chain.from_iterable(
            source.batches(batch_size, normalisation=normalisation, device=device, memory_format=memory_format)
            for source in self.sources
        )
