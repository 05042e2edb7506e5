"""Tiny ImageNet: 200 of ImageNet's synsets at 64 x 64 pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from shrinkbench.datasets.assemble import assemble, hold_out
from shrinkbench.datasets.cache import Download
from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.encoded import FileImages
from shrinkbench.datasets.folders import class_folders, list_images, require_folder
from shrinkbench.datasets.memory import InMemoryImages
from shrinkbench.datasets.pixels import cached_pixels
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Normalisation

SHAPE = (3, 64, 64)
HOLD_OUT = 20
FOLDER = "tiny-imagenet-200"
CLASSES = 200
ARCHIVE = Download(
    "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
)


def _load(data: Path | None) -> Dataset:
    """Load the folder tiny-imagenet-200, or a folder that holds it (``None``: download)."""
    folder = ARCHIVE.unpacked("tiny-imagenet") if data is None else require_folder(data, "tiny-imagenet")
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            raise ShrinkbenchError(
                f"{folder} lacks the folder {part}/ of Tiny ImageNet; unpack the archive again"
            )
    class_names = class_folders(folder / "train")
    if len(class_names) != CLASSES:
        raise ShrinkbenchError(
            f"{folder / 'train'} has {len(class_names)} class folders where Tiny ImageNet has {CLASSES}; "
            "the copy is not the published one"
        )
    nested = (folder / "train" / class_names[0] / "images").is_dir()
    encoded = {
        "train": list_images(folder / "train", class_names, below="images" if nested else ""),
        "test": _evaluation(folder / "val", class_names),
    }
    digests = {split: images.digest for split, images in encoded.items()}
    parts = {
        split: InMemoryImages(
            cached_pixels(images, shape=SHAPE, digest=digests[split]),
            images.labels,
            augmentation="crop-flip",
            pad=8,
        )
        for split, images in encoded.items()
    }
    return assemble(
        TINY_IMAGENET,
        hold_out(parts, HOLD_OUT, folder),
        data=folder,
        digests=digests,
        class_names=class_names,
    )


def _evaluation(folder: Path, class_names: tuple[str, ...]) -> FileImages:
    """The published validation images: a list of names and synsets, or sorted into class folders."""
    annotations = folder / "val_annotations.txt"
    if not annotations.is_file():
        return list_images(folder, class_names)
    index = {name: label for label, name in enumerate(class_names)}
    names, labels = [], []
    for row, line in enumerate(annotations.read_text(encoding="utf-8").splitlines()):
        name, synset, *_ = [*line.split("\t"), "", ""]
        if synset not in index:
            raise ShrinkbenchError(
                f"row {row} of {annotations} names the class '{synset}', which is none of the 200; "
                "unpack the archive again"
            )
        names.append(f"images/{name}")
        labels.append(index[synset])
    return FileImages(root=folder, names=tuple(names), labels=torch.tensor(labels, dtype=torch.int64))


TINY_IMAGENET = DATASETS.add(
    "tiny-imagenet",
    DatasetCard(
        name="tiny-imagenet",
        description="Tiny ImageNet: 100,000 training and 10,000 published validation images of 64 x 64 pixels, "
        "200 of ImageNet's classes in the order of their synsets",
        reference="le2015tiny",
        licence="non-commercial research and education (image-net.org terms of access)",
        num_classes=CLASSES,
        image_shape=SHAPE,
        normalisation=Normalisation(mean=(0.4802, 0.4481, 0.3975), std=(0.2770, 0.2691, 0.2821)),
        splits="test: the published validation images, since those of test/ have no public labels; validation: "
        "of each class of train/, in order of name, every twentieth image (5,000); train: the other 95,000",
        augmentation="crop-flip",
        recipe="cifar-finetune",
        pretrain_recipe="cifar-train",
        load=_load,
    ),
    aliases=("tiny-imagenet-200",),
)
