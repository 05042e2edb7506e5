"""ImageNet (ILSVRC2012): 1,000 synsets, in folders train/ and val/ with one folder per synset."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from shrinkbench.datasets.assemble import SplitImages, assemble, hold_out
from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.encoded import FileImages
from shrinkbench.datasets.folders import find_parts, list_images, require_folder
from shrinkbench.datasets.streamed import StreamedImages
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import IMAGENET_NORMALISATION

HOLD_OUT = 100


@cache
def synsets() -> tuple[str, ...]:
    """The WordNet ids of the 1,000 classes in the order of their labels, which is that of the ids.

    >>> len(synsets()), synsets()[0], synsets()[999]
    (1000, 'n01440764', 'n15075141')
    """
    return tuple((files(__package__) / "imagenet_synsets.txt").read_text(encoding="ascii").split())


def _load(data: Path | None) -> Dataset:
    """Load the folder ``data``; a label is the place of the folder's synset among the 1,000, present or not."""
    if data is None:
        raise ShrinkbenchError(
            "ImageNet cannot be downloaded without an account: get ILSVRC2012 from image-net.org, sort its "
            "images into train/ and val/ with one folder per synset, and pass the folder with --data"
        )
    folder = require_folder(data, "imagenet")
    encoded = {part: list_synsets(place) for part, place in imagenet_parts(folder).items()}
    parts: dict[str, SplitImages] = {name: StreamedImages.of(images) for name, images in encoded.items()}
    return assemble(
        IMAGENET,
        hold_out(parts, HOLD_OUT, folder),
        data=folder,
        digests={name: images.digest for name, images in encoded.items()},
        class_names=synsets(),
    )


def imagenet_parts(folder: Path) -> dict[str, Path]:
    """The folders of the splits; a folder of synsets by itself is the published validation split."""
    return find_parts(folder) or {"test": folder}


def list_synsets(folder: Path) -> FileImages:
    """The images of a folder of synsets, labelled by the synset's place among the 1,000."""
    if any(path.suffix.lower() in (".jpeg", ".jpg") for path in folder.glob("ILSVRC2012_*")):
        raise ShrinkbenchError(
            f"{folder} holds images that are not sorted: move each into a folder named by its synset, "
            "as the script valprep.sh of the PyTorch examples does"
        )
    return list_images(folder, synsets())


IMAGENET = DATASETS.add(
    "imagenet",
    DatasetCard(
        name="imagenet",
        description="ImageNet (ILSVRC2012): 1,281,167 training and 50,000 published validation images, "
        "1,000 classes; evaluated at the central 224 x 224 pixels after resizing the shorter side to 256",
        reference="russakovsky2015imagenet",
        licence="non-commercial research and education (image-net.org terms of access)",
        num_classes=1000,
        image_shape=(3, 224, 224),
        normalisation=IMAGENET_NORMALISATION,
        splits="test: the published validation images (val/), whose labels are public; validation: of each "
        "class of train/, in order of name, every hundredth image; train: the others",
        augmentation="resized-crop-flip",
        recipe="imagenet-finetune",
        pretrain_recipe="imagenet-train",
        load=_load,
    ),
    aliases=("ilsvrc2012", "imagenet-1k"),
)
