"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32 x 32 pixels, in any form in which people keep them."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shrinkbench.datasets.assemble import assemble, hold_out
from shrinkbench.datasets.cache import Download, cached_arrays
from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.encoded import EncodedImages
from shrinkbench.datasets.folders import class_folders, find_parts, list_images, require_folder
from shrinkbench.datasets.memory import InMemoryImages
from shrinkbench.datasets.parquet import class_names_of, find_parquet, open_parquet
from shrinkbench.datasets.pixels import cached_pixels, map_pixels
from shrinkbench.datasets.revision import combined_digest
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Normalisation

SHAPE = (3, 32, 32)
HOLD_OUT = 10  # one training image in ten is validation: 5,000 of the 50,000


@dataclass(frozen=True, kw_only=True)
class Original:
    """The classes, and the form in which the authors publish the data: a tar archive of pickled batches.

    ``members`` maps the name of each batch to its MD5, which is checked before anything is unpickled.
    """

    class_names: tuple[str, ...]
    archive: Download
    folder: str
    members: Mapping[str, Mapping[str, str]]  # split -> name -> MD5
    label_key: str


@dataclass(frozen=True)
class _Part:
    """Pixels uint8 (N, C, H, W) and labels of one split, with a digest of where they came from."""

    pixels: Tensor
    labels: Tensor
    digest: str


def load_cifar(name: str, data: Path | None) -> Dataset:
    """Load from Parquet files, class folders or the authors' batches in ``data`` (``None``: download)."""
    original = ORIGINALS[name]
    if data is None:
        data = original.archive.fetched(name)
    elif not data.is_file():
        require_folder(data, name)
    parts = (
        _from_batches(data, original, name)
        or _from_parquet(data, original.class_names, name)
        or _from_folders(data, original.class_names)
    )
    if not parts:
        raise ShrinkbenchError(
            f"{data} holds no {name}: it should hold train.parquet and test.parquet, or {original.folder}/, "
            "or train/ and test/ with one folder of images per class"
        )
    return assemble(
        DATASETS.get(name),
        hold_out(
            {
                split: InMemoryImages(part.pixels, part.labels, augmentation="crop-flip", pad=4)
                for split, part in parts.items()
            },
            HOLD_OUT,
            data,
        ),
        data=data,
        digests={split: part.digest for split, part in parts.items()},
        class_names=original.class_names,
    )


def _decode(encoded: EncodedImages, digest: str) -> _Part:
    return _Part(cached_pixels(encoded, shape=SHAPE, digest=digest), encoded.labels, digest)


def _from_parquet(data: Path, class_names: tuple[str, ...], name: str) -> dict[str, _Part]:
    parts = {}
    for split, files in find_parquet(data, name).items():
        found = class_names_of(files)
        if found != class_names and found != tuple(map(str, range(len(class_names)))):
            raise ShrinkbenchError(
                f"{files[0]} does not hold {name}: it has the classes {_few(found)}, not {_few(class_names)}"
            )
        encoded = open_parquet(files, class_names)
        parts[split] = _decode(encoded, encoded.digest)
    return parts


def _from_folders(data: Path, class_names: tuple[str, ...]) -> dict[str, _Part]:
    parts = {}
    for split, folder in find_parts(data).items():
        missing = sorted(set(class_names) - set(class_folders(folder)))
        encoded = list_images(folder, class_names)
        if missing:
            raise ShrinkbenchError(f"{folder} lacks the class folder {missing[0]}; the copy is not complete")
        parts[split] = _decode(encoded, encoded.digest)
    return parts


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")


def _from_batches(data: Path, original: Original, name: str) -> dict[str, _Part]:
    read = _reader(data, original, name)
    if read is None:
        return {}
    parts = {}
    for split, members in original.members.items():
        digest = combined_digest(members.values())
        folder = cached_arrays(f"arrays/{name}-{split}-{digest}", partial(_unpickle, read, members, original))
        labels = torch.from_numpy(np.load(folder / "labels.npy"))
        parts[split] = _Part(map_pixels(folder / "pixels.npy").permute(0, 3, 1, 2), labels, digest)
    return parts


def _reader(data: Path, original: Original, name: str) -> Callable[[str], bytes] | None:
    """How to read a batch by name, from the folder of batches or the archive, whose checksums are right."""
    checksums = {member: md5 for members in original.members.values() for member, md5 in members.items()}
    for folder in (data, data / original.folder):
        if (folder / next(iter(checksums))).is_file():
            for member, md5 in checksums.items():
                _check(folder / member, "md5", md5, name)
            return lambda member: (folder / member).read_bytes()
    archive_name = original.archive.url.rsplit("/", 1)[-1]
    archive = data if data.is_file() and data.name == archive_name else data / archive_name
    if not archive.is_file():
        return None
    _check(archive, "sha256", original.archive.sha256, name)

    def read(member: str) -> bytes:
        with tarfile.open(archive) as tarred:
            stream = tarred.extractfile(f"{original.folder}/{member}")
            return stream.read() if stream else b""

    return read


def _check(path: Path, algorithm: str, expected: str, name: str) -> None:
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, algorithm).hexdigest()
    except OSError as error:
        raise ShrinkbenchError(
            f"cannot read {path} of {name} ({error.strerror}); fetch the data again"
        ) from None
    if found != expected:
        raise ShrinkbenchError(
            f"{path} is damaged or not the published file of {name}: its {algorithm.upper()} is "
            f"{found[:16]}..., not {expected[:16]}...; fetch the data again"
        )


def _unpickle(
    read: Callable[[str], bytes], members: Mapping[str, str], original: Original, folder: Path
) -> None:
    batches = []
    for member, md5 in members.items():
        content = read(member)
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:  # they were right a moment ago: what is unpickled are these bytes and no others
            raise ShrinkbenchError(f"{member} changed while it was read (MD5 {found}, not {md5}); start again")
        batches.append(pickle.loads(content, encoding="latin1"))  # noqa: S301 - the authors' own file
    pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, *SHAPE).transpose(0, 2, 3, 1)
    labels = np.concatenate([batch[original.label_key] for batch in batches])
    np.save(folder / "pixels.npy", np.ascontiguousarray(pixels))
    np.save(folder / "labels.npy", labels.astype(np.int64))


SPLITS = (
    "validation: of each class of the published training images, in stored order, every tenth (5,000 in all); "
    "train: the other 45,000; test: the published 10,000 test images"
)

CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""

ORIGINALS = {
    "cifar10": Original(
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        archive=Download(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
        folder="cifar-10-batches-py",
        members={
            "train": {
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            },
            "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
        },
        label_key="labels",
    ),
    "cifar100": Original(
        class_names=tuple(CIFAR100_CLASSES.split()),
        archive=Download(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        ),
        folder="cifar-100-python",
        members={
            "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
            "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        },
        label_key="fine_labels",
    ),
}

DATASETS.add(
    "cifar10",
    DatasetCard(
        name="cifar10",
        description="CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels, 10 classes",
        reference="krizhevsky2009cifar",
        licence="none stated by its authors; made public for research",
        num_classes=10,
        image_shape=SHAPE,
        normalisation=Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
        splits=SPLITS,
        augmentation="crop-flip",
        recipe="cifar-finetune",
        pretrain_recipe="cifar-train",
        load=partial(load_cifar, "cifar10"),
    ),
)

DATASETS.add(
    "cifar100",
    DatasetCard(
        name="cifar100",
        description="CIFAR-100: 50,000 training and 10,000 test images of 32 x 32 pixels, 100 fine classes",
        reference="krizhevsky2009cifar",
        licence="none stated by its authors; made public for research",
        num_classes=100,
        image_shape=SHAPE,
        normalisation=Normalisation(mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
        splits=SPLITS,
        augmentation="crop-flip",
        recipe="cifar-finetune",
        pretrain_recipe="cifar-train",
        load=partial(load_cifar, "cifar100"),
    ),
)
