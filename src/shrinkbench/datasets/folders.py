"""The folder layout: one folder per split, one folder per class in it, one file per image in that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch

from shrinkbench.datasets.encoded import FileImages
from shrinkbench.errors import ShrinkbenchError

T = TypeVar("T")

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

# The names under which people keep each part.
PART_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}


def require_folder(data: Path | None, name: str) -> Path:
    """``data`` as an existing folder that is not empty."""
    if data is None:
        raise ShrinkbenchError(f"the dataset {name} is not embedded; say where it lies with --data FOLDER")
    if not data.exists():
        raise ShrinkbenchError(f"the data folder {data} does not exist")
    if not data.is_dir():
        raise ShrinkbenchError(f"{data} is a file; the dataset {name} needs the folder that holds it")
    if not any(data.iterdir()):
        raise ShrinkbenchError(f"the data folder {data} is empty; put the dataset {name} there")
    return data


def find_parts(folder: Path) -> dict[str, Path]:
    """The folders of ``folder`` that hold a split: ``train``, ``validation``, ``test`` -> path.

    ``val/`` is the test split where no ``test/`` lies beside it, as in ImageNet's layout. ``Train/`` is a
    split too where folders lie in it, and a class (of vehicles) where images do.
    """
    found: dict[str, Path] = {}
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    for part, names in PART_NAMES.items():
        present = [folder / name for name in names if folder / name in inside]
        present += [p for p in inside if p not in present and p.name.lower() in names and _holds_folders(p)]
        if len(present) > 1:
            raise ShrinkbenchError(
                f"{folder} holds both {present[0].name}/ and {present[1].name}/; keep the one to be used"
            )
        if present:
            found[part] = present[0]
    return validation_as_test(found)


def validation_as_test(parts: dict[str, T]) -> dict[str, T]:
    """Call ``validation`` ``test`` where there is no ``test``: people test on what was published last.

    >>> validation_as_test({"train": 1, "validation": 2})
    {'train': 1, 'test': 2}
    """
    if "validation" in parts and "test" not in parts:
        return {"test" if part == "validation" else part: value for part, value in parts.items()}
    return parts


def _holds_folders(folder: Path) -> bool:
    return any(entry.is_dir() for entry in _entries(folder))


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted by code point; a file beside them is an error."""
    entries = _entries(folder)
    for entry in entries:
        if not entry.is_dir():
            raise ShrinkbenchError(
                f"{folder} holds the file {entry.name} beside class folders; "
                "it should hold one folder of images per class and nothing else"
            )
    if not entries:
        raise ShrinkbenchError(f"the folder {folder} is empty; it should hold one folder of images per class")
    return tuple(entry.name for entry in entries)


def list_images(folder: Path, class_names: Sequence[str], *, below: str = "") -> FileImages:
    """All images of the class folders of ``folder``, sorted by class folder and name.

    A class folder that ``class_names`` does not hold is an error, as is a file that is no image; a class
    without a folder is not. ``below`` is the folder inside each class folder that holds its images.
    """
    index = {name: label for label, name in enumerate(class_names)}
    names: list[str] = []
    labels: list[int] = []
    for class_folder in class_folders(folder):
        if class_folder not in index:
            raise ShrinkbenchError(
                f"the class folder {folder / class_folder} is one too many: "
                f"'{class_folder}' is none of the {len(index)} classes; remove or rename it"
            )
        inside = f"{class_folder}/{below}/" if below else f"{class_folder}/"
        found = _image_names(folder / inside)
        names += [inside + name for name in found]
        labels += [index[class_folder]] * len(found)
    return FileImages(root=folder, names=tuple(names), labels=torch.tensor(labels, dtype=torch.int64))


def _image_names(folder: Path) -> list[str]:
    entries = _entries(folder)
    for entry in entries:
        if entry.is_dir() or Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
            raise ShrinkbenchError(
                f"{entry.path} is not an image ({', '.join(sorted(IMAGE_SUFFIXES))}); "
                "remove it from the class folder"
            )
    if not entries:
        raise ShrinkbenchError(f"the class folder {folder} holds no image; add some, or remove it")
    return [entry.name for entry in entries]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name; a leading dot marks what belongs to the system and is no data."""
    try:
        with os.scandir(folder) as found:
            return sorted((e for e in found if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise ShrinkbenchError(f"cannot read the folder {folder}: {error.strerror}") from None
