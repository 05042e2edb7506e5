"""Whether images of unknown size live in memory as they are, or stream at 224 x 224 pixels."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace

from PIL import Image

from shrinkbench.datasets.assemble import SplitImages
from shrinkbench.datasets.card import DatasetCard
from shrinkbench.datasets.encoded import EncodedImages, decode
from shrinkbench.datasets.memory import InMemoryImages
from shrinkbench.datasets.pixels import cached_pixels
from shrinkbench.datasets.splits import occurrence
from shrinkbench.datasets.streamed import StreamedImages

LARGEST_IN_MEMORY = 64  # pixels a side
STREAMED_SIZE = 224


def small_size(parts: Mapping[str, EncodedImages]) -> tuple[int, int] | None:
    """Height and width where the first image of every class of every part has them, at most 64 x 64."""
    sizes = set()
    for encoded in parts.values():
        for row in (occurrence(encoded.labels) == 0).nonzero().flatten().tolist():
            sizes.add(_size(encoded, row))
            if len(sizes) > 1:
                return None
    height, width = sizes.pop()
    return (height, width) if max(height, width) <= LARGEST_IN_MEMORY else None


def _size(encoded: EncodedImages, row: int) -> tuple[int, int]:
    content = encoded.read(row)
    try:
        with Image.open(io.BytesIO(content)) as image:  # reads the header only
            return image.height, image.width
    except Exception:  # whatever it is, decode meets it again and says it in a sentence
        decoded = decode(encoded, row, channels=3)
        return decoded.height, decoded.width


def sources(
    card: DatasetCard, parts: Mapping[str, EncodedImages], class_names: tuple[str, ...]
) -> tuple[DatasetCard, dict[str, SplitImages], dict[str, str]]:
    """The card filled in for these images, the parts as image sources, and their digests.

    Images that are small and of one size are decoded to memory; of large ones every image is resized on its
    own while it streams.
    """
    size = small_size(parts)
    digests = {name: encoded.digest for name, encoded in parts.items()}
    if size is None:
        filled = replace(card, num_classes=len(class_names), image_shape=(3, STREAMED_SIZE, STREAMED_SIZE))
        return (
            filled,
            {name: StreamedImages.of(encoded, size=STREAMED_SIZE) for name, encoded in parts.items()},
            digests,
        )
    shape = (3, *size)
    filled = replace(
        card,
        num_classes=len(class_names),
        image_shape=shape,
        augmentation="crop-flip",
        recipe="cifar-finetune",
        pretrain_recipe="cifar-train",
    )
    return (
        filled,
        {
            name: InMemoryImages(
                cached_pixels(encoded, shape=shape, digest=digests[name]),
                encoded.labels,
                augmentation="crop-flip",
                pad=max(1, min(size) // 8),
            )
            for name, encoded in parts.items()
        },
        digests,
    )
