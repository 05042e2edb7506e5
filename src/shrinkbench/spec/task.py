"""What is learned, from what: the data and the weights before pruning, as values."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shrinkbench.spec.recipe import Recipe
from shrinkbench.spec.value import Value


class Normalisation(Value):
    """Per-channel affine map ``(x - mean) / std`` of pixels scaled to [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET_NORMALISATION = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class DataSpec(Value):
    """A dataset as a run sees it: ``revision`` is a digest of its content, subsets are the first images."""

    name: str
    revision: str
    normalisation: Normalisation
    train_images: int | None = Field(default=None, ge=1)
    validation_images: int | None = Field(default=None, ge=1)
    test_images: int | None = Field(default=None, ge=1)


class ExtraSpec(Value):
    """A further evaluation split, read only when a run is measured; ``revision`` is a digest of its content."""

    name: str
    revision: str


class WeightsSpec(Value):
    """Where the weights before pruning come from.

    ``kind`` is ``pretrain`` (trained here by ``recipe`` from the run's seed), ``random`` (initialised from
    the seed, not trained) or ``file`` (``digest`` is the SHA-256 of the file, wherever it came from).
    """

    kind: Literal["pretrain", "random", "file"]
    name: str
    digest: str | None = None
    recipe: Recipe | None = None
