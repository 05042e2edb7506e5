"""PASCAL VOC 2007, read as single-label classification."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import torch

from shrinkbench.datasets.assemble import SplitImages, assemble
from shrinkbench.datasets.cache import Download
from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.encoded import FileImages
from shrinkbench.datasets.folders import require_folder
from shrinkbench.datasets.streamed import StreamedImages
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import IMAGENET_NORMALISATION

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
LISTS = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}
ADDRESS = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/"
ARCHIVES = (
    Download(
        f"{ADDRESS}VOCtrainval_06-Nov-2007.tar",
        "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
    ),
    Download(
        f"{ADDRESS}VOCtest_06-Nov-2007.tar",
        "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
    ),
)


def _load(data: Path | None) -> Dataset:
    """Load VOC2007/ or a folder around it; train/val and test may lie in one tree or, downloaded, in two."""
    places = (
        [archive.unpacked("voc2007") for archive in ARCHIVES]
        if data is None
        else [require_folder(data, "voc2007")]
    )
    encoded: dict[str, FileImages] = {}
    for root in map(_root, places):
        for split, list_name in LISTS.items():
            if (root / "ImageSets" / "Main" / list_name).is_file():
                encoded[split] = _read_split(root, root / "ImageSets" / "Main" / list_name)
    if not encoded:
        raise ShrinkbenchError(
            f"{places[0]} holds none of ImageSets/Main/train.txt, val.txt and test.txt; unpack VOC2007 again"
        )
    parts: dict[str, SplitImages] = {split: StreamedImages.of(images) for split, images in encoded.items()}
    return assemble(
        VOC2007,
        parts,
        data=places[0],
        digests={split: images.digest for split, images in encoded.items()},
        class_names=CLASSES,
    )


def _root(folder: Path) -> Path:
    for root in (folder, folder / "VOC2007", folder / "VOCdevkit" / "VOC2007"):
        if (root / "ImageSets" / "Main").is_dir():
            return root
    raise ShrinkbenchError(f"{folder} holds no VOC2007/ImageSets/Main; unpack the archives of VOC2007 there")


def _read_split(root: Path, names: Path) -> FileImages:
    identifiers = names.read_text(encoding="utf-8").split()
    if not identifiers:
        raise ShrinkbenchError(f"{names} names no image; unpack VOC2007 again")
    return FileImages(
        root=root / "JPEGImages",
        names=tuple(f"{identifier}.jpg" for identifier in identifiers),
        labels=torch.tensor([largest_object(root / "Annotations" / f"{i}.xml") for i in identifiers]),
    )


def largest_object(annotation: Path) -> int:
    """The class of the object with the largest box; one marked difficult counts only beside no other."""
    try:
        objects = ElementTree.parse(annotation).getroot().iter("object")  # noqa: S314 - a local file
        ranked = [(_text(o, "difficult", "0") != "1", _area(o), _text(o, "name")) for o in objects]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise ShrinkbenchError(
            f"the annotation {annotation} cannot be read ({error}); unpack VOC2007 again"
        ) from None
    if not ranked:
        raise ShrinkbenchError(f"the annotation {annotation} names no object; unpack VOC2007 again")
    name = max(ranked, key=lambda entry: entry[:2])[2]
    if name not in CLASSES:
        raise ShrinkbenchError(f"the annotation {annotation} names the class '{name}', which is none of the 20")
    return CLASSES.index(name)


def _text(element: ElementTree.Element, tag: str, default: str = "") -> str:
    return (element.findtext(tag) or default).strip()


def _area(element: ElementTree.Element) -> float:
    left, top, right, bottom = (
        float(_text(element, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    return (right - left) * (bottom - top)


VOC2007 = DATASETS.add(
    "voc2007",
    DatasetCard(
        name="voc2007",
        description="PASCAL VOC 2007 as single-label classification: 9,963 images, each with the class of its "
        "largest object (one marked difficult counts only beside no other); not the multi-label task "
        "whose mean average precision papers report",
        reference="everingham2010pascal",
        licence="the Flickr terms of use of the images",
        num_classes=20,
        image_shape=(3, 224, 224),
        normalisation=IMAGENET_NORMALISATION,
        splits="as published: train (2,501 images), val as validation (2,510), test (4,952)",
        augmentation="resized-crop-flip",
        recipe="imagenet-finetune",
        pretrain_recipe="imagenet-train",
        load=_load,
    ),
)
