"""Decoded images of one size, kept in the cache: decoded once, then mapped into memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
import torch
from torch import Tensor

from shrinkbench.datasets.cache import cached_arrays
from shrinkbench.datasets.encoded import EncodedImages
from shrinkbench.datasets.streamed import decoded_batches
from shrinkbench.errors import ShrinkbenchError

DECODING_BATCH = 256


def cached_pixels(encoded: EncodedImages, *, shape: tuple[int, int, int], digest: str) -> Tensor:
    """All images of ``encoded`` as uint8 (N, C, H, W), channels_last; each must have ``shape`` (C, H, W).

    They are decoded once and mapped from the cache afterwards, under ``digest``, the shape and the version of
    the decoder.
    """
    channels, height, width = shape
    count = len(encoded.labels)

    def fill(folder: Path) -> None:
        pixels = np.lib.format.open_memmap(
            folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=(count, height, width, channels)
        )
        batches = decoded_batches(encoded, torch.arange(count), DECODING_BATCH, channels=channels, shape=shape)
        for start, batch in zip(range(0, count, DECODING_BATCH), batches, strict=True):
            pixels[start : start + len(batch)] = batch.numpy()
        pixels.flush()

    size = "x".join(str(side) for side in shape)
    folder = cached_arrays(f"arrays/{digest}-{size}-pillow{PIL.__version__}", fill)
    return map_pixels(folder / "pixels.npy").permute(0, 3, 1, 2)


def map_pixels(path: Path) -> Tensor:
    """A uint8 array in a .npy file, mapped and not read; changes to the tensor never reach the file."""
    return _as_pixels(path, path, mmap_mode="c")


def read_pixels(content: bytes, path: Path) -> Tensor:
    """A uint8 array from the bytes of the .npy file ``path``."""
    return _as_pixels(io.BytesIO(content), path)


def _as_pixels(source: Path | io.BytesIO, path: Path, *, mmap_mode: Literal["c"] | None = None) -> Tensor:
    try:
        array = np.load(source, mmap_mode=mmap_mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ShrinkbenchError(f"the file {path} is damaged ({error}); remove it, or fetch it again") from None
    if array.dtype != np.uint8:
        raise ShrinkbenchError(f"the file {path} holds {array.dtype} values, not the uint8 pixels expected")
    return torch.from_numpy(array)
