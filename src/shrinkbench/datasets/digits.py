"""Handwritten digits, embedded in scikit-learn: 1,797 images of 8 x 8 pixels, nothing to download."""

from __future__ import annotations

from pathlib import Path

import torch

from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.memory import InMemoryImages
from shrinkbench.datasets.revision import content_digest, revision_of
from shrinkbench.datasets.splits import occurrence
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Normalisation


def load(data: Path | None) -> Dataset:
    """Load the digits; ``data`` must be ``None``, since they come with scikit-learn."""
    if data is not None and not data.exists():
        raise ShrinkbenchError(f"the data folder {data} does not exist; the digits need none, leave it out")
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
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
        load=load,
    ),
)
