"""Images too large for memory: decoded, cut and resized by workers, normalised a batch at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from shrinkbench.datasets.card import Batch
from shrinkbench.datasets.encoded import EncodedImages, decode, pixels_of
from shrinkbench.datasets.memory import affine, check_count, check_pass, normalise_pixels
from shrinkbench.datasets.splits import balanced_order
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.libraries import torchvision
from shrinkbench.spec import Normalisation

Transform = Callable[[Image.Image], Image.Image]

# Below this many images the workers cost more to start than they save.
FEWEST_IMAGES_FOR_WORKERS = 512


@dataclass(frozen=True)
class _Damage:
    """What is wrong with an image, carried from a worker as a value: an exception would lose its sentence."""

    sentence: str
    kind: type[ShrinkbenchError]


class _Decoded(TorchDataset[Tensor | _Damage]):
    """uint8 pixels (H, W, C) of ``encoded`` at ``rows``; image i is transformed under the seed ``seeds[i]``."""

    def __init__(
        self,
        encoded: EncodedImages,
        rows: Tensor,
        *,
        channels: int,
        transform: Transform | None,
        seeds: Tensor | None,
        shape: tuple[int, int, int] | None,
    ) -> None:
        self.encoded, self.rows, self.channels = encoded, rows, channels
        self.transform, self.seeds, self.shape = transform, seeds, shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor | _Damage:
        row = int(self.rows[index])
        try:
            image = decode(self.encoded, row, channels=self.channels)
        except ShrinkbenchError as error:
            return _Damage(str(error), type(error))
        if self.transform is None:
            pass
        elif self.seeds is None:
            image = self.transform(image)
        else:
            # torchvision's transforms draw from the global generator only; it is put back afterwards.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(int(self.seeds[index]))
                image = self.transform(image)
        pixels = torch.from_numpy(pixels_of(image))
        if self.shape is not None and pixels.shape[:2] != self.shape[1:]:
            height, width = self.shape[1:]
            return _Damage(
                f"the image {self.encoded.where(row)} has {pixels.shape[1]} x {pixels.shape[0]} pixels, "
                f"not {width} x {height} like the rest; resize or remove it",
                ShrinkbenchError,
            )
        return pixels


def _collate(images: Sequence[Tensor | _Damage]) -> Tensor | _Damage:
    """Stack to (B, H, W, C), or the first damage."""
    stack: list[Tensor] = []
    for image in images:
        if isinstance(image, _Damage):
            return image
        stack.append(image)
    return torch.stack(stack)


def decoded_batches(
    encoded: EncodedImages,
    rows: Tensor,
    batch_size: int,
    *,
    channels: int = 3,
    transform: Transform | None = None,
    seeds: Tensor | None = None,
    shape: tuple[int, int, int] | None = None,
    workers: int | None = None,
    pin_memory: bool = False,
) -> Iterator[Tensor]:
    """Decode ``rows`` in order and yield uint8 batches (B, H, W, C).

    Without a ``transform`` that makes them alike, the images must have one ``shape`` (C, H, W). What an image
    becomes depends on its own seed alone, not on the number of workers nor on global random state, which is
    left as it was.
    """
    images = _Decoded(encoded, rows, channels=channels, transform=transform, seeds=seeds, shape=shape)
    loader = DataLoader(
        images,
        batch_size=batch_size,
        num_workers=_workers(len(rows), batch_size) if workers is None else workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, _Damage):
            raise batch.kind(batch.sentence)
        yield batch


def _workers(count: int, batch_size: int) -> int:
    """As many workers as torch has threads, or none for few images, one thread or inside a daemon."""
    threads = torch.get_num_threads()
    if threads == 1 or count < FEWEST_IMAGES_FOR_WORKERS or multiprocessing.current_process().daemon:
        return 0
    return min(threads, -(-count // batch_size))


@dataclass(frozen=True, kw_only=True)
class StreamedImages:
    """An :class:`~shrinkbench.datasets.card.ImageSource` over encoded images of any size.

    Training images (``augment=True``) are torchvision's ``RandomResizedCrop(size)`` and
    ``RandomHorizontalFlip``; all others are resized to ``resize`` on the shorter side (``None``: left as they
    are) and cut to the central ``size`` x ``size`` pixels. ``rows`` are the images of this split.
    """

    encoded: EncodedImages
    rows: Tensor
    size: int = 224
    resize: int | None = 256
    channels: int = 3
    workers: int | None = None

    @classmethod
    def of(cls, encoded: EncodedImages, *, size: int = 224, resize: int | None = 256) -> StreamedImages:
        """All images of ``encoded``."""
        return cls(encoded=encoded, rows=torch.arange(len(encoded.labels)), size=size, resize=resize)

    @property
    def labels(self) -> Tensor:
        """Labels, int64 of shape (N,)."""
        return self.encoded.labels[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Tensor) -> StreamedImages:
        """The images at ``rows`` (int64, any order) as a source of its own."""
        return replace(self, rows=self.rows[rows])

    def subset(self, count: int) -> StreamedImages:
        """The first ``count`` images of the order that takes one image of each class in turn."""
        check_count(count, len(self))
        return self.select(balanced_order(self.labels)[:count])

    def batches(
        self,
        batch_size: int,
        *,
        normalisation: Normalisation,
        generator: torch.Generator | None = None,
        augment: bool = False,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Iterator[Batch]:
        """Yield every image once; see :meth:`~shrinkbench.datasets.card.ImageSource.batches`.

        The order and one seed per image are drawn here, before the first batch.
        """
        check_pass(batch_size, generator=generator, augment=augment)
        rows, seeds = self.rows, None
        if generator is not None:
            shuffled = torch.randperm(len(self), generator=generator, device=generator.device)
            rows = rows[shuffled.cpu()]
            if augment:
                seeds = torch.randint(2**62, (len(self),), generator=generator, device=generator.device).cpu()
        return self._pass(rows, seeds, batch_size, normalisation, torch.device(device), memory_format)

    def _pass(
        self,
        rows: Tensor,
        seeds: Tensor | None,
        batch_size: int,
        normalisation: Normalisation,
        device: torch.device,
        memory_format: torch.memory_format,
    ) -> Iterator[Batch]:
        mean, std = affine(normalisation, width=self.size, channels=self.channels, device=device)
        labels = self.encoded.labels[rows].to(device)
        decoded = decoded_batches(
            self.encoded,
            rows,
            batch_size,
            channels=self.channels,
            transform=self._evaluation() if seeds is None else self._augmentation(),
            seeds=seeds,
            workers=self.workers,
            pin_memory=device.type == "cuda",
        )
        for start, pixels in zip(range(0, len(rows), batch_size), decoded, strict=True):
            images = normalise_pixels(pixels.to(device, non_blocking=True), mean, std)
            yield images.contiguous(memory_format=memory_format), labels[start : start + batch_size]

    def _evaluation(self) -> Transform:
        v2 = _transforms()
        steps = [v2.CenterCrop(self.size)]
        transform: Transform = v2.Compose(steps if self.resize is None else [v2.Resize(self.resize), *steps])
        return transform

    def _augmentation(self) -> Transform:
        v2 = _transforms()
        transform: Transform = v2.Compose([v2.RandomResizedCrop(self.size), v2.RandomHorizontalFlip()])
        return transform


def _transforms() -> ModuleType:
    """torchvision's transforms, imported late since they take seconds."""
    torchvision()
    return import_module("torchvision.transforms.v2")
