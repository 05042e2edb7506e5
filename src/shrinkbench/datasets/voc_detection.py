"""Images with boxes in the folder layout of PASCAL VOC 2007.

``VOC2007/ImageSets/Main/SPLIT.txt`` names the images, ``JPEGImages/NAME.jpg`` holds them and
``Annotations/NAME.xml`` their objects. Coordinates count from 1 in the files and from 0 here; objects marked
difficult are kept apart, because they neither train nor count.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from shrinkbench.datasets.content import Contents, contents_of
from shrinkbench.datasets.encoded import refuse_deep, to_eight_bits
from shrinkbench.datasets.voc2007 import CLASSES
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import IMAGENET_NORMALISATION, DataSpec
from shrinkbench.spec.value import digest_of_fields
from shrinkbench.tasks import Objects

Pictured = list[tuple[Tensor, Objects]]


@dataclass(frozen=True)
class DetectionImages:
    """One split; images are read when they are asked for, as (3, H, W) in [0, 1].

    Every file is hashed before the first is read, and one that has changed since is refused.
    """

    root: Path
    names: tuple[str, ...]

    @cached_property
    def _contents(self) -> Contents:
        pictures = [f"JPEGImages/{name}.jpg" for name in self.names]
        return contents_of(self.root, [*pictures, *(f"Annotations/{name}.xml" for name in self.names)])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the name and the SHA-256 of every image and its objects, in order."""
        total = hashlib.sha256()
        for row, name in enumerate(self.names):
            image, objects = (self._contents.digest(row + part) for part in (0, len(self.names)))
            total.update(f"{name}\0{image}\0{objects}\n".encode())
        return total.hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Objects]:
        path, annotation = (self.root / self._contents.names[index + part] for part in (0, len(self.names)))
        try:
            with Image.open(io.BytesIO(self._contents.read(index))) as opened:
                refuse_deep(opened, str(path))
                pixels = np.asarray(to_eight_bits(opened).convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise ShrinkbenchError(f"the image {path} cannot be read ({error}); unpack VOC2007 again") from None
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        return image, parse_objects(self._contents.read(index + len(self.names)), annotation)

    def __iter__(self) -> Iterator[tuple[Tensor, Objects]]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True, kw_only=True)
class DetectionData:
    """The splits of one task. ``sides`` are those that the detector scales images to."""

    train_images: DetectionImages
    test_images: DetectionImages
    validation_images: DetectionImages | None = None
    sides: tuple[int, int] = (600, 1000)

    @property
    def spec(self) -> DataSpec:
        """The data as a value; its revision is a digest of which image is in which split, and of all files."""
        splits = {"train": self.train_images, "validation": self.validation_images, "test": self.test_images}
        return DataSpec(
            name="voc2007-detection",
            revision=digest_of_fields({split: images and images.digest for split, images in splits.items()}),
            normalisation=IMAGENET_NORMALISATION,
            sides=self.sides,
        )

    def train(self, batch_size: int, *, generator: torch.Generator, augment: bool) -> Iterator[Pictured]:
        """Shuffled batches of one epoch, half of the images mirrored if ``augment``.

        Objects marked difficult do not take part; images without others are left out.
        """
        images = self.train_images
        order = torch.randperm(len(images), generator=generator).tolist()
        mirrored = ((torch.rand(len(images), generator=generator) < 0.5) & augment).tolist()
        empty = True
        for start in range(0, len(order), batch_size):
            batch = [_prepare(*images[i], mirror=mirrored[i]) for i in order[start : start + batch_size]]
            batch = [(image, objects) for image, objects in batch if len(objects.labels)]
            if batch:
                empty = False
                yield batch
        if empty:
            raise ShrinkbenchError("no image has an object that is not difficult; give other images")

    def validation(self) -> Iterator[Pictured] | None:
        """One image at a time, in the order of the split."""
        return None if self.validation_images is None else ([pair] for pair in self.validation_images)

    def test(self) -> Iterator[Pictured]:
        """One image at a time, in the order of the split."""
        return ([pair] for pair in self.test_images)


def _prepare(image: Tensor, objects: Objects, *, mirror: bool) -> tuple[Tensor, Objects]:
    objects = objects.easy()
    if not mirror:
        return image, objects
    boxes = objects.boxes.clone()
    boxes[:, [0, 2]] = image.shape[2] - objects.boxes[:, [2, 0]]
    return image.flip(2), Objects(boxes, objects.labels, objects.difficult)


def read_voc(folder: Path, split: str) -> DetectionImages:
    """The images of ``split`` (``trainval``, ``test``) under ``folder``, which is or holds VOC2007."""
    candidates = (folder, folder / "VOC2007", folder / "VOCdevkit" / "VOC2007")
    root = next((c for c in candidates if (c / "ImageSets" / "Main").is_dir()), None)
    if root is None:
        raise ShrinkbenchError(
            f"{folder} holds no VOC2007/ImageSets/Main; download VOCtrainval_06-Nov-2007.tar and "
            "VOCtest_06-Nov-2007.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2007/ and unpack both there"
        )
    listed = root / "ImageSets" / "Main" / f"{split}.txt"
    try:
        names = tuple(listed.read_text(encoding="utf-8").split())
    except OSError:
        known = ", ".join(sorted(p.stem for p in listed.parent.glob("*.txt"))) or "none"
        raise ShrinkbenchError(f"there is no split '{split}' in {listed.parent}; it has: {known}") from None
    if not names:
        raise ShrinkbenchError(f"{listed} names no image; unpack VOC2007 again")
    return DetectionImages(root, names)


def parse_objects(content: bytes, annotation: Path) -> Objects:
    """The objects in ``content``, which was read from ``annotation``; there is at least one."""
    boxes, labels, difficult = [], [], []
    try:
        for found in ElementTree.fromstring(content).iter("object"):  # noqa: S314 - a local file
            name = (found.findtext("name") or "").strip()
            if name not in CLASSES:
                raise ShrinkbenchError(
                    f"{annotation} names the class '{name}', which is none of the 20 of VOC2007"
                )
            box = found.find("bndbox")
            corners = [float((box.findtext(k) if box is not None else None) or "") for k in _CORNERS]
            boxes.append([corner - 1 for corner in corners])
            labels.append(CLASSES.index(name) + 1)
            difficult.append((found.findtext("difficult") or "0").strip() == "1")
    except (ElementTree.ParseError, ValueError) as error:
        raise ShrinkbenchError(
            f"the annotation {annotation} cannot be read ({error}); unpack VOC2007 again"
        ) from None
    if not boxes:
        raise ShrinkbenchError(f"{annotation} names no object; unpack VOC2007 again")
    tensor = torch.tensor(boxes, dtype=torch.float32)
    if not bool(tensor.isfinite().all() & (tensor[:, 2:] > tensor[:, :2]).all()):
        raise ShrinkbenchError(f"{annotation} has a box without area, or of no numbers; unpack VOC2007 again")
    return Objects(tensor, torch.tensor(labels), torch.tensor(difficult))


_CORNERS = ("xmin", "ymin", "xmax", "ymax")
