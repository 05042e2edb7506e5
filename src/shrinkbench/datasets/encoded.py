"""Images as they lie on disk, encoded: where they are, which class they have, and how one is decoded."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

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
    """One file per image: ``names`` are paths below ``root``."""

    root: Path
    names: tuple[str, ...]
    labels: Tensor = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 over the name, label and size in bytes of every image.

        The bytes themselves are left out: reading ImageNet once takes many minutes.
        """
        total = hashlib.sha256()
        for name, label in zip(self.names, self.labels.tolist(), strict=True):
            try:
                size = (self.root / name).stat().st_size
            except OSError as error:
                raise _unreadable(self.root / name, error) from None
            total.update(f"{name}\0{label}\0{size}\n".encode())
        return total.hexdigest()

    @property
    def content_digest(self) -> str:
        """SHA-256 over the label and bytes of every image, for datasets that are read whole anyway."""
        total = hashlib.sha256()
        for row, label in enumerate(self.labels.tolist()):
            content = self.read(row)
            total.update(f"{label} {len(content)}\n".encode())
            total.update(content)
        return total.hexdigest()

    def read(self, row: int) -> bytes:
        """The bytes of the file."""
        path = self.root / self.names[row]
        try:
            return path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from None

    def where(self, row: int) -> str:
        """The path of the file."""
        return str(self.root / self.names[row])


def _unreadable(path: Path, error: OSError) -> ShrinkbenchError:
    return ShrinkbenchError(f"cannot read the image {path} ({error.strerror}); put it back")


def decode(encoded: EncodedImages, row: int, *, channels: int) -> Image.Image:
    """Decode one image to RGB (3 channels) or grey (1); the error names the one that does not decode."""
    content = encoded.read(row)
    mode = "RGB" if channels == 3 else "L"
    try:
        image: Image.Image = Image.open(io.BytesIO(content))
        image.load()
        return image if image.mode == mode else image.convert(mode)
    except Exception as error:  # a damaged file makes Pillow's parsers raise whatever they stumble over
        reason = "unknown or damaged format" if isinstance(error, UnidentifiedImageError) else error
        raise ShrinkbenchError(
            f"the image {encoded.where(row)} does not decode ({reason}); replace or remove it"
        ) from None


def pixels_of(image: Image.Image) -> np.ndarray:
    """uint8 pixels of shape (H, W, C)."""
    pixels = np.array(image, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
