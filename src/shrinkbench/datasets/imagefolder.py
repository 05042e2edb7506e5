"""Any folder of images: train/ and val/ (or test/) with one folder per class, or the class folders alone."""

from __future__ import annotations

from pathlib import Path

from shrinkbench.datasets.assemble import assemble, cut_tenths, hold_out
from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.folders import class_folders, find_parts, list_images, require_folder
from shrinkbench.datasets.sized import sources
from shrinkbench.spec import IMAGENET_NORMALISATION

HOLD_OUT = 10


def _load(data: Path | None) -> Dataset:
    """Load the folder ``data``; the classes are the folders of the training part, sorted by name."""
    folder = require_folder(data, "imagefolder")
    places = find_parts(folder) or {"train": folder}
    class_names = class_folders(places.get("train") or next(iter(places.values())))
    encoded = {part: list_images(place, class_names) for part, place in places.items()}
    card, parts, digests = sources(IMAGEFOLDER, encoded, class_names)
    splits = (
        cut_tenths(parts["train"], folder) if set(parts) == {"train"} else hold_out(parts, HOLD_OUT, folder)
    )
    return assemble(card, splits, data=folder, digests=digests, class_names=class_names)


IMAGEFOLDER = DATASETS.add(
    "imagefolder",
    DatasetCard(
        name="imagefolder",
        description="any folder of images, one folder per class; small images of one size (at most 64 x 64) "
        "live in memory as they are, all others stream at 224 x 224",
        reference="",
        licence="that of the images",
        num_classes=None,
        image_shape=None,
        normalisation=IMAGENET_NORMALISATION,
        splits="train/, validation/ (or val/) and test/ as they are; val/ without test/ is test; without "
        "validation/ every tenth training image of each class, in order of name; class folders alone: of "
        "every ten images of a class the 9th is validation and the 10th test",
        augmentation="resized-crop-flip",
        recipe="imagenet-finetune",
        pretrain_recipe="imagenet-train",
        load=_load,
    ),
)
