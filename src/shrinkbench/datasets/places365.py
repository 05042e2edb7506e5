"""Places365-Standard: photographs of 365 kinds of places."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from shrinkbench.datasets.assemble import SplitImages, assemble, hold_out
from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.folders import find_parts, list_images, require_folder
from shrinkbench.datasets.streamed import StreamedImages
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import IMAGENET_NORMALISATION

HOLD_OUT = 100


@cache
def categories() -> tuple[str, ...]:
    """Folder names of the 365 classes in the order of their labels.

    >>> len(categories()), categories()[8]
    (365, 'apartment_building-outdoor')
    """
    return tuple((files(__package__) / "places365_categories.txt").read_text(encoding="ascii").split())


def _load(data: Path | None) -> Dataset:
    """Load the folder ``data``, which holds train/ and val/ with one folder per class."""
    if data is None:
        raise ShrinkbenchError(
            "Places365 (26 GB) is not downloaded for you: fetch places365standard_easyformat.tar from "
            "places2.csail.mit.edu, unpack it, and pass its folder places365_standard with --data"
        )
    folder = require_folder(data, "places365")
    encoded = {part: list_images(place, categories()) for part, place in find_parts(folder).items()}
    if not encoded:
        raise ShrinkbenchError(f"{folder} holds neither train/ nor val/; pass the folder places365_standard")
    parts: dict[str, SplitImages] = {name: StreamedImages.of(images) for name, images in encoded.items()}
    return assemble(
        PLACES365,
        hold_out(parts, HOLD_OUT, folder),
        data=folder,
        digests={name: images.digest for name, images in encoded.items()},
        class_names=categories(),
    )


PLACES365 = DATASETS.add(
    "places365",
    DatasetCard(
        name="places365",
        description="Places365-Standard: 1.8 million training and 36,500 published validation images of 365 "
        "kinds of places; evaluated at the central 224 x 224 pixels after resizing the shorter side to 256",
        reference="zhou2017places",
        licence="CC BY (annotations); the images belong to their photographers",
        num_classes=365,
        image_shape=(3, 224, 224),
        normalisation=IMAGENET_NORMALISATION,
        splits="test: the published validation images (val/), since those of the test set have no public "
        "labels; validation: of each class of train/, in order of name, every hundredth image; train: the "
        "others",
        augmentation="resized-crop-flip",
        recipe="imagenet-finetune",
        pretrain_recipe="imagenet-train",
        load=_load,
    ),
)
