"""MNIST and Fashion-MNIST: grey images of 28 x 28 pixels in IDX files."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shrinkbench.datasets.assemble import assemble, hold_out
from shrinkbench.datasets.cache import Download
from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.folders import require_folder
from shrinkbench.datasets.labels import check_labels
from shrinkbench.datasets.memory import InMemoryImages
from shrinkbench.datasets.revision import content_digest
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Normalisation

SHAPE = (1, 28, 28)
HOLD_OUT = 12  # one training image in twelve is validation: about 5,000 of 60,000
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class IdxFiles:
    """Class names, the address of the folder of files, and the SHA-256 of each file, gzipped."""

    class_names: tuple[str, ...]
    address: str
    sha256: dict[str, str]
    torchvision_folder: str


def load_mnist(name: str, data: Path | None) -> Dataset:
    """Load the four IDX files, gzipped or not, from ``data`` (``None``: download)."""
    original = ORIGINALS[name]
    if data is None:
        for file, sha256 in original.sha256.items():
            data = Download(f"{original.address}{file}.gz", sha256).fetched(name).parent
    folder = _folder_of_files(require_folder(data, name), original)
    parts: dict[str, InMemoryImages] = {}
    digests: dict[str, str] = {}
    for split, (images_name, labels_name) in FILES.items():
        images, labels = _read_idx(folder, images_name), _read_idx(folder, labels_name).long()
        if images.shape[1:] != SHAPE[1:] or labels.shape != images.shape[:1]:
            raise ShrinkbenchError(
                f"{folder} holds no {name}: {images_name} has shape {tuple(images.shape)} and {labels_name} "
                f"{tuple(labels.shape)}, where (N, 28, 28) and (N,) were expected"
            )
        check_labels(labels, len(original.class_names), folder / labels_name)
        parts[split] = InMemoryImages(images.unsqueeze(1), labels)
        digests[split] = content_digest(images, labels)
    return assemble(
        DATASETS.get(name),
        hold_out(parts, HOLD_OUT, folder),
        data=folder,
        digests=digests,
        class_names=original.class_names,
    )


def _folder_of_files(data: Path, original: IdxFiles) -> Path:
    """``data`` itself, or the place in it where torchvision or the authors put the files."""
    first = FILES["train"][0]
    for folder in (
        data,
        data / "raw",
        data / original.torchvision_folder / "raw",
        data / original.torchvision_folder,
    ):
        if any((folder / (first + suffix)).is_file() for suffix in ("", ".gz")):
            return folder
    raise ShrinkbenchError(f"{data} holds no {first} or {first}.gz; put the four IDX files there")


def _read_idx(folder: Path, name: str) -> Tensor:
    """An IDX file of unsigned bytes: two zeros, type 8, number of dimensions, sizes (big-endian), values."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise ShrinkbenchError(f"{folder} lacks {name} or {name}.gz; fetch it again")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise ShrinkbenchError(f"the file {path} is truncated or damaged ({error}); fetch it again") from None
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions)
    if zeros != 0 or kind != 8 or len(values) != np.prod(shape, dtype=np.int64):
        raise ShrinkbenchError(
            f"the file {path} is truncated or damaged: its header promises {tuple(shape)} bytes "
            f"and {len(values)} follow; fetch it again"
        )
    return torch.from_numpy(values.reshape(shape).copy())


ORIGINALS = {
    "mnist": IdxFiles(
        tuple(str(digit) for digit in range(10)),
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        {
            "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        "MNIST",
    ),
    "fashion-mnist": IdxFiles(
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        "FashionMNIST",
    ),
}

SPLITS = (
    "validation: of each class of the published training images, in stored order, every twelfth (about "
    "5,000); train: the others; test: the published 10,000 test images"
)

DATASETS.add(
    "mnist",
    DatasetCard(
        name="mnist",
        description="MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 grey pixels",
        reference="lecun1998gradient",
        licence="CC BY-SA 3.0",
        num_classes=10,
        image_shape=SHAPE,
        normalisation=Normalisation(mean=(0.1307,), std=(0.3081,)),
        splits=SPLITS,
        augmentation="none",
        recipe="mnist-finetune",
        pretrain_recipe="mnist-train",
        load=partial(load_mnist, "mnist"),
    ),
)

DATASETS.add(
    "fashion-mnist",
    DatasetCard(
        name="fashion-mnist",
        description="Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28 x 28 grey pixels",
        reference="xiao2017fashion",
        licence="MIT",
        num_classes=10,
        image_shape=SHAPE,
        normalisation=Normalisation(mean=(0.2860,), std=(0.3530,)),
        splits=SPLITS,
        augmentation="none",
        recipe="mnist-finetune",
        pretrain_recipe="mnist-train",
        load=partial(load_mnist, "fashion-mnist"),
    ),
)
