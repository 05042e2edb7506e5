"""What a dataset's name means, exactly, and how its images reach a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from shrinkbench.registry import Registry
from shrinkbench.spec import Normalisation

AS_THEY_ARE = Normalisation(mean=(), std=())  # inputs that are not normalised
Batch = tuple[Tensor, Tensor]  # images float32 (N, C, H, W), normalised; labels int64 (N,)


class ImageSource(Protocol):
    """The images of one split, behind one interface whether they lie in memory or on disk."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def batches(
        self,
        batch_size: int,
        *,
        normalisation: Normalisation,
        generator: torch.Generator | None = None,
        augment: bool = False,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Iterator[Batch]:
        """Yield every image once, in shuffled order exactly when ``generator`` is given.

        The last batch may be short. ``augment`` needs a generator, which also drives the augmentation.
        """
        ...

    def subset(self, count: int) -> ImageSource:
        """The first ``count`` images, classes balanced as far as the fixed order of the source has them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A loaded dataset: three disjoint splits and a digest of the content they were cut from.

    ``example`` is what goes in for one example, (1, ...), in the form of a batch, where that is no tensor of
    floating numbers of the card's ``image_shape``.
    """

    card: DatasetCard
    train: ImageSource
    validation: ImageSource
    test: ImageSource
    revision: str
    class_names: tuple[str, ...]
    example: Any = None


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """The definition of one dataset; ``name`` and ``load`` are enough for one of your own.

    ``load(data)`` reads it from the folder or file ``data`` (``None``: embedded, or the cache); ``splits``
    states the fixed rule by which train, validation and test are cut. ``num_classes`` and ``image_shape`` are
    ``None`` where the data decide (an image folder). ``task`` is learned where nobody names another; by default
    classification.
    """

    name: str
    description: str = ""
    reference: str = ""
    licence: str = "that of the data"
    num_classes: int | None = None
    image_shape: tuple[int, ...] | None = None
    normalisation: Normalisation = AS_THEY_ARE
    splits: str = "as they are loaded"
    augmentation: Literal["none", "crop-flip", "crop", "resized-crop-flip"] = "none"
    recipe: str = "small-finetune"
    pretrain_recipe: str = "small-train"
    task: str | None = None
    load: Callable[[Path | None], Dataset]


DATASETS: Registry[DatasetCard] = Registry("dataset", of=DatasetCard)


@dataclass(frozen=True, kw_only=True)
class ExtraImages:
    """A loaded extra evaluation: images that are never trained or selected on, and a digest of them."""

    card: ExtraCard
    images: ImageSource
    revision: str


@dataclass(frozen=True, kw_only=True)
class ExtraCard:
    """An evaluation beside the test split: other images with the classes of ``dataset``.

    ``load(data)`` reads it from the folder ``data`` (``None``: the cache, or a download).
    """

    name: str
    dataset: str
    description: str
    reference: str
    licence: str
    load: Callable[[Path | None], ExtraImages]
