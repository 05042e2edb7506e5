"""Images with boxes in the folder layout of PASCAL VOC 2007.

``VOC2007/ImageSets/Main/SPLIT.txt`` names the images, ``JPEGImages/NAME.jpg`` holds them and
``Annotations/NAME.xml`` their objects. Coordinates count from 1 in the files and from 0 here; objects marked
difficult are kept apart, because they neither train nor count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclass(frozen=True)
class Objects:
    """Boxes (n, 4): left, top, right, bottom in pixels; labels from 1, 0 is background; difficult or not."""

    boxes: Tensor
    labels: Tensor
    difficult: Tensor

    def easy(self) -> Objects:
        """Those that are not difficult."""
        keep = ~self.difficult
        return Objects(self.boxes[keep], self.labels[keep], self.difficult[keep])


@dataclass(frozen=True)
class DetectionImages:
    """One split; images are read when they are asked for, as (3, H, W) in [0, 1]."""

    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Objects]:
        name = self.names[index]
        path = self.root / "JPEGImages" / f"{name}.jpg"
        try:
            with Image.open(path) as opened:
                pixels = np.asarray(opened.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise ShrinkbenchError(f"the image {path} cannot be read ({error}); unpack VOC2007 again") from None
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        return image, read_objects(self.root / "Annotations" / f"{name}.xml")

    def __iter__(self) -> Iterator[tuple[Tensor, Objects]]:
        return (self[index] for index in range(len(self)))


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


def read_objects(annotation: Path) -> Objects:
    """The objects of one annotation file; there is at least one."""
    boxes, labels, difficult = [], [], []
    try:
        for found in ElementTree.parse(annotation).getroot().iter("object"):  # noqa: S314 - a local file
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
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise ShrinkbenchError(
            f"the annotation {annotation} cannot be read ({error}); unpack VOC2007 again"
        ) from None
    if not boxes:
        raise ShrinkbenchError(f"{annotation} names no object; unpack VOC2007 again")
    tensor = torch.tensor(boxes, dtype=torch.float32)
    if bool((tensor[:, 2:] <= tensor[:, :2]).any()):
        raise ShrinkbenchError(f"{annotation} has a box without area; unpack VOC2007 again")
    return Objects(tensor, torch.tensor(labels), torch.tensor(difficult))


_CORNERS = ("xmin", "ymin", "xmax", "ymax")
