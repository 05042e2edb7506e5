"""CIFAR-10-C and ImageNet-C: the test images under corruptions of five severities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from shrinkbench.datasets.cache import Download
from shrinkbench.datasets.card import Batch, ExtraCard, ExtraImages, ImageSource
from shrinkbench.datasets.cifar10_1 import check_pixels, read_labels
from shrinkbench.datasets.concatenated import ConcatenatedImages
from shrinkbench.datasets.content import contents_of
from shrinkbench.datasets.folders import require_folder
from shrinkbench.datasets.imagenet import list_synsets
from shrinkbench.datasets.labels import check_labels
from shrinkbench.datasets.memory import InMemoryImages
from shrinkbench.datasets.pixels import map_pixels
from shrinkbench.datasets.revision import combined_digest
from shrinkbench.datasets.streamed import StreamedImages
from shrinkbench.errors import ShrinkbenchError

SEVERITIES = (1, 2, 3, 4, 5)
# Group of each corruption; the first fifteen are the benchmark, the last four its validation set.
BENCHMARK = {
    "gaussian_noise": "noise",
    "shot_noise": "noise",
    "impulse_noise": "noise",
    "defocus_blur": "blur",
    "glass_blur": "blur",
    "motion_blur": "blur",
    "zoom_blur": "blur",
    "snow": "weather",
    "frost": "weather",
    "fog": "weather",
    "brightness": "weather",
    "contrast": "digital",
    "elastic_transform": "digital",
    "pixelate": "digital",
    "jpeg_compression": "digital",
}
EXTRA = dict.fromkeys(("speckle_noise", "gaussian_blur", "spatter", "saturate"), "extra")
GROUPS = BENCHMARK | EXTRA

CIFAR10_C_ARCHIVE = Download(
    "https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
    "c72763e101c723b7c507b96205f7e938912a5d587376173b825850cf3cb876a7",
)


@dataclass(frozen=True)
class Corrupted:
    """Which corruptions, at which severities."""

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]


def parse_corruption(text: str) -> Corrupted:
    """``""`` is the benchmark (15 corruptions x 5 severities), ``fog`` all severities, ``fog/3`` one.

    >>> parse_corruption("fog/3")
    Corrupted(corruptions=('fog',), severities=(3,))
    """
    if not text:
        return Corrupted(tuple(BENCHMARK), SEVERITIES)
    name, _, severity = text.partition("/")
    if name not in GROUPS:
        raise ShrinkbenchError(f"unknown corruption '{name}'; choose one of {', '.join(GROUPS)}")
    if severity and severity not in map(str, SEVERITIES):
        raise ShrinkbenchError(f"the severity '{severity}' of {name} must be 1, 2, 3, 4 or 5")
    return Corrupted((name,), (int(severity),) if severity else SEVERITIES)


@dataclass(frozen=True)
class _MappedImages:
    """Images that are mapped from a file of the user's: ``check`` refuses it where it has changed since."""

    images: InMemoryImages
    check: Callable[[], None]

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, count: int) -> _MappedImages:
        return replace(self, images=self.images.subset(count))

    def batches(self, batch_size: int, **how: Any) -> Iterator[Batch]:
        self.check()
        yield from self.images.batches(batch_size, **how)
        self.check()  # whoever wrote into it meanwhile wrote into the images


def load_cifar10_c(card: ExtraCard, wanted: Corrupted, data: Path | None) -> ExtraImages:
    """Load CIFAR-10-C's .npy files (``None``: download 2.9 GB); each holds five severities in a row."""
    folder = CIFAR10_C_ARCHIVE.unpacked("cifar10-c") if data is None else require_folder(data, card.name)
    folder = folder / "CIFAR-10-C" if (folder / "CIFAR-10-C").is_dir() else folder
    files = [folder / f"{name}.npy" for name in wanted.corruptions]
    for path in (folder / "labels.npy", *files):
        if not path.is_file():
            raise ShrinkbenchError(f"{path} is missing; unpack {CIFAR10_C_ARCHIVE.url} there")
    contents = contents_of(folder, ["labels.npy", *(path.name for path in files)])
    labels = read_labels(contents.read(0), folder / "labels.npy")
    check_labels(labels, 10, folder / "labels.npy")
    per_severity = len(labels) // len(SEVERITIES)
    sources: list[ImageSource] = []
    for row, path in enumerate(files, start=1):
        pixels = map_pixels(path)
        check_pixels(pixels, labels, path)
        for severity in wanted.severities:
            rows = slice((severity - 1) * per_severity, severity * per_severity)
            images = InMemoryImages(pixels[rows].permute(0, 3, 1, 2), labels[rows])
            sources.append(_MappedImages(images, partial(contents.check, row)))
    revision = combined_digest([card.name, *map(contents.digest, range(len(files) + 1))])
    return ExtraImages(card=card, images=ConcatenatedImages(sources), revision=revision)


def load_imagenet_c(card: ExtraCard, wanted: Corrupted, data: Path | None) -> ExtraImages:
    """Load ImageNet-C's folders CORRUPTION/SEVERITY/SYNSET, with or without the groups above them.

    Its images are 224 x 224 already: they are cut to the centre and not resized.
    """
    if data is None:
        raise ShrinkbenchError(
            "ImageNet-C (about 75 GB) is not downloaded for you: fetch its archives from "
            "https://zenodo.org/records/2235448, unpack them into one folder, and pass it with --data"
        )
    root = require_folder(data, card.name)
    sources: list[ImageSource] = []
    digests = []
    for name in wanted.corruptions:
        folder = root / GROUPS[name] / name if (root / GROUPS[name] / name).is_dir() else root / name
        for severity in wanted.severities:
            if not (folder / str(severity)).is_dir():
                raise ShrinkbenchError(
                    f"the folder {folder / str(severity)} is missing; unpack ImageNet-C there"
                )
            images = list_synsets(folder / str(severity))
            sources.append(StreamedImages.of(images, resize=None))
            digests.append(images.digest)
    return ExtraImages(
        card=card, images=ConcatenatedImages(sources), revision=combined_digest([card.name, *digests])
    )
