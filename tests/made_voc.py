"""A made detection set in the layout of VOC 2007, and the classifier that detectors on it begin with."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from shrinkbench.models import build

OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>"
    "<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)


def write_image(root, name, objects, size=(96, 128)):
    """A grey image with a red square per person and a blue one per car; boxes count from 1."""
    pixels = np.full((*size, 3), 128, np.uint8)
    text = ""
    for kind, (left, top, right, bottom), difficult in objects:
        pixels[top - 1 : bottom, left - 1 : right] = (230, 20, 20) if kind == "person" else (20, 20, 230)
        text += OBJECT.format(left, top, right, bottom, name=kind, difficult=int(difficult))
    Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")


def write_voc(folder):
    """Eight images, four of which are the test split too; the first holds a difficult object."""
    root = folder / "VOCdevkit" / "VOC2007"
    for part in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (root / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = []
    for number in range(8):
        left, top = int(rng.integers(1, 60)), int(rng.integers(1, 40))
        kind = "person" if number % 2 else "car"
        objects = [(kind, (left, top, left + 50, top + 45), False)]
        if number == 0:
            objects.append(("person", (100, 70, 120, 90), True))
        names.append(f"{number:06d}")
        write_image(root, names[-1], objects)
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("\n".join(names))
    (root / "ImageSets" / "Main" / "test.txt").write_text("\n".join(names[:4]))
    return folder


def classifier():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build("torchvision/resnet18")
