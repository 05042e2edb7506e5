"""Images as they lie on disk, encoded: where they are, which class they have, and how one is decoded."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from shrinkbench.datasets.content import Contents, contents_of
from shrinkbench.errors import ShrinkbenchError


class EncodedImages(Protocol):
    """The images of one part of a dataset, not decoded."""

    @property
    def labels(self) -> Tensor:
        """Labels, int64 of shape (N,)."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what tells this content from any other."""
        ...

    def read(self, row: int) -> bytes:
        """The encoded image."""
        ...

    def where(self, row: int) -> str:
        """The place of the image in words: a path, or a file and a row."""
        ...


@dataclass(frozen=True, kw_only=True)
class FileImages:
    """One file per image: ``names`` are paths below ``root``.

    Every file is hashed before the first is read, and one that has changed since is refused.
    """

    root: Path
    names: tuple[str, ...]
    labels: Tensor = field(repr=False)

    @cached_property
    def _contents(self) -> Contents:
        return contents_of(self.root, self.names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the name, label and SHA-256 of every image, in order."""
        total = hashlib.sha256()
        for row, (name, label) in enumerate(zip(self.names, self.labels.tolist(), strict=True)):
            total.update(f"{name}\0{label}\0{self._contents.digest(row)}\n".encode())
        return total.hexdigest()

    def read(self, row: int) -> bytes:
        """The bytes of the file."""
        return self._contents.read(row)

    def where(self, row: int) -> str:
        """The path of the file."""
        return str(self.root / self.names[row])


# Pillow would clip deep grey values at 255, so that all but the darkest turn white. Of 16 bits white is 65535.
_SIXTEEN = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_DEEP = frozenset({"I", "F"})


def decode(encoded: EncodedImages, row: int, *, channels: int) -> Image.Image:
    """Decode one image to RGB (3 channels) or grey (1); the error names the one that does not decode."""
    content = encoded.read(row)
    mode = "RGB" if channels == 3 else "L"
    try:
        image: Image.Image = Image.open(io.BytesIO(content))
        image.load()
        refuse_deep(image, encoded.where(row))
        image = to_eight_bits(image)
        return image if image.mode == mode else image.convert(mode)
    except ShrinkbenchError:
        raise
    except Exception as error:  # a damaged file makes Pillow's parsers raise whatever they stumble over
        reason = "unknown or damaged format" if isinstance(error, UnidentifiedImageError) else error
        raise ShrinkbenchError(
            f"the image {encoded.where(row)} does not decode ({reason}); replace or remove it"
        ) from None


def refuse_deep(image: Image.Image, where: str) -> None:
    """Refuse grey images of 32 bits, and of values that are no integers."""
    if image.mode in _DEEP:
        raise ShrinkbenchError(
            f"the image {where} has 32 bits per pixel (mode {image.mode}), and which values are black "
            "and white is not known; scale all images to 8 bits and save them again"
        )


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits by 65535 / 255, rounded; other images as they are."""
    if image.mode not in _SIXTEEN:
        return image
    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def pixels_of(image: Image.Image) -> np.ndarray:
    """uint8 pixels of shape (H, W, C)."""
    pixels = np.array(image, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
