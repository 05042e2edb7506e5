"""Datasets: one file per source, one card each; importing this package reads no data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shrinkbench.datasets import (
    cifar,
    digits,
    huggingface,
    imagefolder,
    imagenet,
    mnist,
    own,
    places365,
    text,
    tiny_imagenet,
    token_files,
    voc2007,
)
from shrinkbench.datasets.card import DATASETS, Batch, Dataset, DatasetCard, ExtraCard, ExtraImages, ImageSource
from shrinkbench.datasets.extra import EXTRAS, load_extra
from shrinkbench.datasets.memory import InMemoryImages

__all__ = [
    "DATASETS",
    "EXTRAS",
    "Batch",
    "Dataset",
    "DatasetCard",
    "ExtraCard",
    "ExtraImages",
    "ImageSource",
    "InMemoryImages",
    "load_dataset",
    "load_extra",
]

# Imported to register their cards.
del (
    cifar,
    digits,
    huggingface,
    imagefolder,
    imagenet,
    mnist,
    own,
    places365,
    text,
    tiny_imagenet,
    token_files,
    voc2007,
)


def load_dataset(name: str, data: Path | str | None = None) -> Dataset:
    """Load the dataset called ``name`` from the folder or file ``data`` (``None``: embedded, or the cache).

    >>> digits = load_dataset("digits")
    >>> len(digits.train), len(digits.validation), len(digits.test)
    (1085, 357, 355)
    """
    card = DATASETS.get(name)
    loaded = card.load(
        None if data is None else Path(data).expanduser()
    )  # which may know more than the card, such as the size of its images
    return replace(loaded, card=replace(loaded.card, name=card.name))  # and may borrow another's loader
