"""Digests that say which content a result was computed on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from shrinkbench.datasets.card import DatasetCard
from shrinkbench.datasets.content import contents_of
from shrinkbench.files import sha256_of

LARGE_FILE = 64 << 20  # bytes; hashing takes longer than finding the digest again


def bytes_of(tensor: Tensor) -> bytes:
    """Its values in order, however they lie in memory.

    >>> bytes_of(torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).t())
    b'\\x01\\x03\\x02\\x04'
    """
    # contiguous() leaves the strides of dimensions of size 1 alone, and what has such is not viewed as bytes.
    plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def content_digest(*tensors: Tensor) -> str:
    """SHA-256 (hex) over the shapes, types and bytes of ``tensors``, in row-major order."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        total.update(bytes_of(tensor))
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; that of a large file is remembered until the file changes."""
    if path.stat().st_size < LARGE_FILE:
        return sha256_of(path)
    return contents_of(path.parent, [path.name]).digest(0)


def revision_of(card: DatasetCard, *digests: str) -> str:
    """SHA-256 (hex) over the content's digests and the rule that cuts it into splits."""
    return combined_digest((card.name, card.splits, *digests))


def combined_digest(digests: Iterable[str]) -> str:
    """SHA-256 (hex) over several digests, in order."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
