"""Hugging Face image classification in Parquet or Arrow: a column of encoded images, a column of labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shrinkbench.datasets.arrow_files import ArrowFile, find_saved
from shrinkbench.datasets.cache import cached_arrays
from shrinkbench.datasets.folders import validation_as_test
from shrinkbench.datasets.revision import combined_digest, file_digest
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import parse_json

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
PART_PREFIXES = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
ROWS_AT_ONCE = 1000
MOST_CLASSES = 1 << 20
"""What is numbered beyond, such as prices or times, is no class, and has no list of names."""


@dataclass(frozen=True)
class ParquetImages:
    """The rows of one split, over one or more files in order.

    The encoded images are laid end to end in the cache, so that any row can be read by itself: Parquet stores
    compressed groups of rows and has no such access.
    """

    files: tuple[Path, ...]
    digest: str
    class_names: tuple[str, ...]

    @cached_property
    def _folder(self) -> Path:
        return cached_arrays(f"rows/{self.digest}", self._unpack)

    @cached_property
    def _ends(self) -> np.ndarray:
        ends: np.ndarray = np.load(self._folder / "ends.npy")
        return ends

    @cached_property
    def _firsts(self) -> np.ndarray:
        firsts: np.ndarray = np.load(self._folder / "firsts.npy")
        return firsts

    @cached_property
    def labels(self) -> Tensor:
        """Labels, int64 of shape (N,)."""
        return torch.from_numpy(np.load(self._folder / "labels.npy"))

    def read(self, row: int) -> bytes:
        """The encoded image of a row, counted over all files."""
        start = int(self._ends[row - 1]) if row else 0
        with (self._folder / "images.bin").open("rb") as stream:
            stream.seek(start)
            return stream.read(int(self._ends[row]) - start)

    def where(self, row: int) -> str:
        """The file and the row in it, counted from 0."""
        number = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return place(self.files[number], row - int(self._firsts[number]))

    def _unpack(self, folder: Path) -> None:
        labels: list[int] = []
        ends: list[int] = []
        firsts: list[int] = []
        with (folder / "images.bin").open("wb") as stream:
            for file in self.files:
                firsts.append(len(labels))
                for row, (content, label) in enumerate(_rows(file)):
                    labels.append(self._label(label, file, row))
                    stream.write(_content(content, file, row))
                    ends.append(stream.tell())
        if not labels:
            raise ShrinkbenchError(f"{self.files[0]} holds no rows; replace it")
        if self.digest != digest_of_parquet(self.files, self.class_names):
            raise ShrinkbenchError(
                f"{self.files[0]} or a file beside it changed while it was read; start again when it is whole"
            )
        for name, values in (("labels", labels), ("ends", ends), ("firsts", firsts)):
            np.save(folder / f"{name}.npy", np.array(values, dtype=np.int64))

    def _label(self, label: object, file: Path, row: int) -> int:
        if isinstance(label, str) and label in self.class_names:
            return self.class_names.index(label)
        if not isinstance(label, int | str):
            raise ShrinkbenchError(
                f"the label {label!r} {place(file, row)} is no class; give whole numbers from 0, or texts, and "
                "remove rows without a label"
            )
        if isinstance(label, str) or not 0 <= label < len(self.class_names):
            raise ShrinkbenchError(
                f"the label {label!r} {place(file, row)} is out of range: "
                f"there are {len(self.class_names)} classes, numbered from 0; mend or remove the row"
            )
        return label


def place(file: Path, row: int) -> str:
    """A row in words."""
    return f"in row {row} of {file}"


def find_parquet(data: Path, name: str) -> dict[str, tuple[Path, ...]]:
    """Files by split: ``train``, ``validation``, ``test`` -> Parquet files in order of their names, or Arrow's.

    ``data`` is one file, or a folder (searched with all below it); the beginning of a file's name, as in
    ``train-00000-of-00002.parquet``, says which split it belongs to. Validation is test where there is none.
    A folder of ``save_to_disk`` says it itself.
    """
    if data.is_file():
        return validation_as_test({_part_of(data) or "train": (data,)})
    found: dict[str, tuple[Path, ...]] = {}
    saved = find_saved(data)
    for split, streams in saved.items():
        part = _part_of(Path(split)) or ("train" if len(saved) == 1 else None)
        if part is None or part in found:
            raise ShrinkbenchError(
                f"the split '{split}' of {name} in {data} is none of train, validation and test, each once; "
                "name a folder that holds these"
            )
        found[part] = streams
    if found:
        return validation_as_test(found)
    files = sorted(data.rglob("*.parquet"))
    for file in files:
        part = _part_of(file) or ("train" if len(files) == 1 else None)
        if part is None:
            raise ShrinkbenchError(
                f"{file} could belong to any split of {name}: begin its name with train, validation or test"
            )
        found[part] = (*found.get(part, ()), file)
    return validation_as_test(found)


def _part_of(file: Path) -> str | None:
    for part, prefixes in PART_PREFIXES.items():
        if file.stem.lower().startswith(prefixes):
            return part
    return None


def open_parquet(files: Sequence[Path], class_names: tuple[str, ...]) -> ParquetImages:
    """The rows of ``files`` as encoded images; nothing is read but the bytes for the digest."""
    return ParquetImages(tuple(files), digest_of_parquet(files, class_names), class_names)


def digest_of_parquet(files: Sequence[Path], class_names: tuple[str, ...]) -> str:
    """SHA-256 (hex) over the bytes of ``files`` and the names by which their labels are read."""
    return combined_digest([*map(file_digest, files), "\n".join(class_names)])


def class_names_of(files: Sequence[Path]) -> tuple[str, ...]:
    """Names of the classes, as the metadata of the files say them.

    They are sought in Hugging Face's description of the features, then in the key ``class_names`` (names with
    commas between), then in the labels: sorted texts, or numbers from 0 to the largest.
    """
    schema = _open(files[0]).schema_arrow
    metadata = schema.metadata or {}
    column = _column(schema.names, LABEL_COLUMNS, files[0], "labels")
    names = _names_in(metadata.get(b"huggingface"), column)
    if names:
        return names
    if b"class_names" in metadata:
        return tuple(metadata[b"class_names"].decode(errors="replace").split(","))
    found = {label for file in files for label in _labels(file)} - {None}
    texts = {label for label in found if isinstance(label, str)}
    if texts:
        return tuple(sorted(texts))
    largest = max((label for label in found if isinstance(label, int)), default=-1)
    if largest >= MOST_CLASSES:
        raise ShrinkbenchError(
            f"{files[0]} or a file beside it holds the label {largest:,}, which is no number of a class; "
            "number the classes from 0, or give their names as texts"
        )
    return tuple(str(number) for number in range(largest + 1))


def _names_in(described: bytes | None, column: str) -> tuple[str, ...]:
    """Names of classes in Hugging Face's description of ``column``; none where it does not say any."""
    try:
        names = parse_json(described or b"")["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _labels(file: Path) -> set[Any]:
    import pyarrow as pa

    opened = _open(file)
    column = _column(opened.schema_arrow.names, LABEL_COLUMNS, file, "labels")
    try:
        return {
            label if isinstance(label, int | str) else None
            for label in opened.read(columns=[column])[column].to_pylist()
        }
    except (pa.ArrowException, OSError) as error:
        raise _damage_error(file, error) from None


def _rows(file: Path) -> Iterator[tuple[Any, Any]]:
    """Pairs of image cell and label cell."""
    import pyarrow as pa

    opened = _open(file)
    names = opened.schema_arrow.names
    image = _column(names, IMAGE_COLUMNS, file, "images")
    label = _column(names, LABEL_COLUMNS, file, "labels")
    try:
        for batch in opened.iter_batches(ROWS_AT_ONCE, columns=[image, label]):
            yield from zip(batch[image].to_pylist(), batch[label].to_pylist(), strict=True)
    except (pa.ArrowException, OSError) as error:
        raise _damage_error(file, error) from None


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return ArrowFile(file) if file.suffix == ".arrow" else pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise _damage_error(file, error) from None


def _damage_error(file: Path, error: Exception) -> ShrinkbenchError:
    reason = str(error).splitlines()[0].rstrip(".")
    kind = "Arrow" if file.suffix == ".arrow" else "Parquet"
    return ShrinkbenchError(f"the {kind} file {file} is truncated or damaged ({reason}); fetch it again")


def _column(names: Sequence[str], wanted: Sequence[str], file: Path, what: str) -> str:
    found = [name for name in wanted if name in names]
    if not found:
        raise ShrinkbenchError(
            f"{file} has no column of {what}: it has {', '.join(names)}, "
            f"and one must be called {' or '.join(wanted)}"
        )
    return found[0]


def _content(cell: object, file: Path, row: int) -> bytes:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes) or not content:
        raise ShrinkbenchError(f"there is no encoded image {place(file, row)}; mend or remove the row")
    return content
