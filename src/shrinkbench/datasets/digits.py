"""Handwritten digits, embedded in scikit-learn: 1,797 images of 8 x 8 pixels, nothing to download."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.memory import InMemoryImages
from shrinkbench.datasets.revision import content_digest, revision_of
from shrinkbench.datasets.splits import occurrence
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Normalisation


def _load(data: Path | None) -> Dataset:
    """Load the digits; ``data`` must be ``None``, since they come with scikit-learn."""
    if data is not None and not data.exists():
        raise ShrinkbenchError(f"the data folder {data} does not exist; the digits need none, leave it out")
    values, labels = _read()
    # Counts of ink from 0 to 16 become brightness from 0 to 255, halves away from zero.
    pixels = torch.from_numpy(values).reshape(-1, 1, 8, 8).mul(255 / 16).add(0.5).floor().to(torch.uint8)
    classes = torch.from_numpy(labels).to(torch.int64)
    images = InMemoryImages(pixels, classes, augmentation="crop", pad=1)
    place = occurrence(classes) % 5
    return Dataset(
        card=DIGITS,
        train=images.select((place < 3).nonzero().flatten()),
        validation=images.select((place == 3).nonzero().flatten()),
        test=images.select((place == 4).nonzero().flatten()),
        revision=revision_of(DIGITS, content_digest(pixels, classes)),
        class_names=tuple(str(digit) for digit in range(10)),
    )


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Ink counts (1797, 64) and labels, from scikit-learn's file: importing it all would take seconds."""
    spec = importlib.util.find_spec("sklearn")
    places = (spec.submodule_search_locations or ()) if spec is not None else ()
    files = [Path(place) / "datasets" / "data" / "digits.csv.gz" for place in places]
    if not files or not files[0].is_file():
        raise ShrinkbenchError("scikit-learn's file of digits is not here: pip install scikit-learn")
    table = np.loadtxt(files[0], delimiter=",")
    return table[:, :-1], table[:, -1].astype(np.int64)


DIGITS = DATASETS.add(
    "digits",
    DatasetCard(
        name="digits",
        description="scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels, 10 classes; "
        "ink counts 0..16 scaled to 0..255 as floor(255 x / 16 + 1/2)",
        reference="alpaydin1998optdigits",
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
        num_classes=10,
        image_shape=(1, 8, 8),
        normalisation=Normalisation(mean=(0.3045,), std=(0.3758,)),
        splits="each class in stored order, counted from 0: image i is train for i mod 5 in {0, 1, 2}, "
        "validation for 3, test for 4 (60/20/20)",
        augmentation="crop",
        recipe="digits-finetune",
        pretrain_recipe="digits-train",
        load=_load,
    ),
)
