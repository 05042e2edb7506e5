"""CIFAR-10.1: about 2,000 new images collected as CIFAR-10's test images were."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from shrinkbench.datasets.cache import Download
from shrinkbench.datasets.card import ExtraCard, ExtraImages
from shrinkbench.datasets.content import contents_of
from shrinkbench.datasets.folders import require_folder
from shrinkbench.datasets.labels import check_labels
from shrinkbench.datasets.memory import InMemoryImages
from shrinkbench.datasets.pixels import read_pixels
from shrinkbench.datasets.revision import combined_digest
from shrinkbench.errors import ShrinkbenchError

CLASSES = 10
ADDRESS = "https://raw.githubusercontent.com/modestyachts/CIFAR-10.1/master/datasets/"
SHA256 = {
    "cifar10.1_v4_data.npy": "5aaedc268df8f4cffca2ac0cf9e608ae1897a8cddb630c7a850a2ea8f6558e75",
    "cifar10.1_v4_labels.npy": "1f9544300ded199539b6662364ce7fe6c2e1ea9f87408f06db4b1a6184cffb18",
    "cifar10.1_v6_data.npy": "2997188e5816f5bd545dc77771b6227828c28146049fcecf3fa10775474cacc6",
    "cifar10.1_v6_labels.npy": "ae40beda001693674edc94d925ee8268cfe68905f8f9aff800c8dcdfcd6c9448",
}


def load(card: ExtraCard, version: str, data: Path | None) -> ExtraImages:
    """Load the two .npy files of ``version`` (v4 or v6) from ``data`` (``None``: download)."""
    names = [f"cifar10.1_{version}_{what}.npy" for what in ("data", "labels")]
    if data is None:
        paths = [Download(ADDRESS + name, SHA256[name]).fetched("cifar10.1") for name in names]
    else:
        folder = require_folder(data, card.name)
        inside = folder / "datasets" if (folder / "datasets" / names[0]).is_file() else folder
        paths = [inside / name for name in names]
    for path in paths:
        if not path.is_file():
            raise ShrinkbenchError(f"{path} is missing; fetch it from {ADDRESS}{path.name}")
    contents = contents_of(paths[0].parent, [path.name for path in paths])
    pixels, labels = read_pixels(contents.read(0), paths[0]), read_labels(contents.read(1), paths[1])
    check_pixels(pixels, labels, paths[0])
    check_labels(labels, CLASSES, paths[1])
    return ExtraImages(
        card=card,
        images=InMemoryImages(pixels.permute(0, 3, 1, 2), labels),
        revision=combined_digest([card.name, contents.digest(0), contents.digest(1)]),
    )


def read_labels(content: bytes, path: Path) -> torch.Tensor:
    """Labels in the bytes of the .npy file ``path``, as int64."""
    try:
        return torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False).astype(np.int64))
    except (OSError, ValueError, EOFError) as error:
        raise ShrinkbenchError(f"the file {path} is damaged ({error}); fetch it again") from None


def check_pixels(pixels: torch.Tensor, labels: torch.Tensor, path: Path) -> None:
    """Refuse pixels that are not one image of 32 x 32 x 3 per label."""
    if tuple(pixels.shape) != (len(labels), 32, 32, 3):
        raise ShrinkbenchError(
            f"{path} has shape {tuple(pixels.shape)} where ({len(labels)}, 32, 32, 3) was expected; "
            "fetch it again"
        )
