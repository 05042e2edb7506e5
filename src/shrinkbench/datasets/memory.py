"""Images that fit in memory: one uint8 tensor, shuffled, augmented and normalised a batch at a time.

The pixels are stored rows by columns by channels, so that a row of a crop is one run of bytes: a batch of
crops is then a single ``index_select`` over a view in which every run of that length is a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from shrinkbench.datasets.card import Batch
from shrinkbench.datasets.splits import balanced_order
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Normalisation

InMemoryAugmentation = Literal["none", "crop", "crop-flip"]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The random draws of one pass, one per image in the order in which the images are yielded.

    ``top`` and ``left`` are the corner of the crop in the padded image, ``flip`` whether it is mirrored; each
    has shape (N,) and is ``None`` where the augmentation has no such step.
    """

    top: Tensor | None = None
    left: Tensor | None = None
    flip: Tensor | None = None


def draw_augmentation(
    count: int, *, augmentation: InMemoryAugmentation, pad: int, generator: torch.Generator
) -> Draws:
    """Draw crops uniformly over their (2 * pad + 1)^2 positions and flips with probability 1/2."""

    def draw(choices: int) -> Tensor:
        return torch.randint(choices, (count,), generator=generator, device=generator.device)

    if augmentation == "none":
        return Draws()
    top, left = draw(2 * pad + 1), draw(2 * pad + 1)
    return Draws(top=top, left=left, flip=draw(2).bool() if augmentation == "crop-flip" else None)


def crop(pixels: Tensor, *, pad: int, top: Tensor, left: Tensor) -> Tensor:
    """Pad with zeros on every side, then cut each image back to its size from its own corner.

    ``pixels`` is uint8 of shape (N, H, W, C), contiguous; ``top`` and ``left`` int64 of shape (N,).
    """
    n, height, width, channels = pixels.shape
    padded = F.pad(pixels, (0, 0, pad, pad, pad, pad))
    tall, wide = height + 2 * pad, width + 2 * pad
    runs = padded.view(-1).as_strided((n * tall * wide - width + 1, width * channels), (channels, 1))
    image = torch.arange(n, device=pixels.device) * tall
    row = (image + top).unsqueeze(1) + torch.arange(height, device=pixels.device)
    return runs.index_select(0, (row * wide + left.unsqueeze(1)).flatten()).view(pixels.shape)


def mirror(pixels: Tensor, flip: Tensor) -> Tensor:
    """Mirror left to right the images that ``flip`` (bool, shape (N,)) marks; pixels (N, H, W, C)."""
    if pixels.device.type != "cpu":
        return mirror_by_choice(pixels, flip)  # counting the marked images would wait for the accelerator
    return mirror_by_copy(pixels, flip)


def mirror_by_choice(pixels: Tensor, flip: Tensor) -> Tensor:
    """:func:`mirror`, by choosing between two values for every byte."""
    return torch.where(flip.view(-1, 1, 1, 1), pixels.flip(2), pixels)


def mirror_by_copy(pixels: Tensor, flip: Tensor) -> Tensor:
    """:func:`mirror`, by copying whole images as runs of bytes: on a CPU four times as fast as choosing."""
    marked = flip.nonzero().flatten()
    source = torch.arange(len(pixels), device=pixels.device)
    source[marked] = torch.arange(len(pixels), len(pixels) + len(marked), device=pixels.device)
    return torch.cat((pixels, pixels.index_select(0, marked).flip(2))).index_select(0, source)


def affine(
    normalisation: Normalisation, *, width: int, channels: int, device: torch.device
) -> tuple[Tensor, ...]:
    """Mean and deviation, each float32 of shape (width * channels,): one value for every byte of a row.

    Broadcasting over whole rows is several times faster than over a last dimension of three.
    """
    if not len(normalisation.mean) == len(normalisation.std) == channels:
        raise ShrinkbenchError(
            f"the images have {channels} channels but the normalisation has {len(normalisation.mean)} means "
            f"and {len(normalisation.std)} deviations; use weights and a normalisation made for such images"
        )
    return tuple(
        torch.tensor(values, dtype=torch.float32, device=device).repeat(width)
        for values in (normalisation.mean, normalisation.std)
    )


def normalise_pixels(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(x / 255 - mean) / std`` as float32 (N, C, H, W), channels_last, for uint8 pixels (N, H, W, C).

    ``mean`` and ``std`` come from :func:`affine`. The operations are those of torchvision
    (``convert_image_dtype``, as in the presets of its weights, then ``normalize``): the values are bit for bit
    the same.
    """
    values = pixels.flatten(2).to(torch.float32).div_(255).sub_(mean).div_(std)
    return values.view(pixels.shape).permute(0, 3, 1, 2)


class InMemoryImages:
    """An :class:`~shrinkbench.datasets.card.ImageSource` over one uint8 tensor.

    ``images`` is uint8 of shape (N, C, H, W) in any memory format (channels_last is taken over without a copy),
    ``labels`` int64 of shape (N,). ``augmentation`` is what ``batches(augment=True)`` does: pad by ``pad``
    zeros and crop back at random, and mirror half of the images.

    >>> source = InMemoryImages(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]))
    >>> plain = Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3)
    >>> [len(labels) for _, labels in source.batches(3, normalisation=plain)]
    [3, 1]
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        augmentation: InMemoryAugmentation = "none",
        pad: int = 4,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ShrinkbenchError(
                f"images must be uint8 of shape (N, C, H, W), not {images.dtype} of shape {tuple(images.shape)}"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ShrinkbenchError(
                f"labels must be int64 of shape ({len(images)},), "
                f"not {labels.dtype} of shape {tuple(labels.shape)}"
            )
        if augmentation not in get_args(InMemoryAugmentation) or pad < 0:
            raise ShrinkbenchError(
                f"augmentation '{augmentation}' with pad {pad} is unknown; "
                f"choose one of {', '.join(get_args(InMemoryAugmentation))} and a pad of at least 0"
            )
        self.augmentation = augmentation
        self.pad = pad
        pixels = images.permute(0, 2, 3, 1).contiguous()
        # Shared with every subset: the pixels reach an accelerator once, not once per split.
        self._copies = {torch.device("cpu"): (pixels, labels)}
        self._rows: Tensor | None = None

    def select(self, rows: Tensor) -> InMemoryImages:
        """The images at ``rows`` (int64, any order) as a source of its own; no pixel is copied."""
        chosen = InMemoryImages.__new__(InMemoryImages)
        chosen.augmentation, chosen.pad, chosen._copies = self.augmentation, self.pad, self._copies
        chosen._rows = rows if self._rows is None else self._rows[rows]
        return chosen

    @property
    def labels(self) -> Tensor:
        """Labels, int64 of shape (N,)."""
        labels = self._copies[torch.device("cpu")][1]
        return labels if self._rows is None else labels[self._rows]

    @property
    def images(self) -> Tensor:
        """Pixels, uint8 of shape (N, C, H, W), channels_last."""
        pixels = self._copies[torch.device("cpu")][0]
        return (pixels if self._rows is None else pixels[self._rows]).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self._copies[torch.device("cpu")][1]) if self._rows is None else len(self._rows)

    def subset(self, count: int) -> InMemoryImages:
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

        Order and augmentation of the whole pass are drawn here, before the first batch: they do not depend on
        the batch size, and a pass that is left early leaves the generator as a complete one does.
        """
        check_pass(batch_size, generator=generator, augment=augment)
        count = len(self)
        order = torch.arange(count) if self._rows is None else self._rows
        draws = Draws()
        if generator is not None:
            shuffled = torch.randperm(count, generator=generator, device=generator.device)
            order = order.to(generator.device)[shuffled]
            if augment:
                draws = draw_augmentation(
                    count, augmentation=self.augmentation, pad=self.pad, generator=generator
                )
        return self._passes(order, draws, batch_size, normalisation, torch.device(device), memory_format)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Pixels (N, H, W, C) and labels on ``device``."""
        if device not in self._copies:
            pixels, labels = self._copies[torch.device("cpu")]
            self._copies[device] = (pixels.to(device), labels.to(device))
        return self._copies[device]

    def _passes(
        self,
        order: Tensor,
        draws: Draws,
        batch_size: int,
        normalisation: Normalisation,
        device: torch.device,
        memory_format: torch.memory_format,
    ) -> Iterator[Batch]:
        pixels, labels = self._on(device)
        width, channels = pixels.shape[2:]
        mean, std = affine(normalisation, width=width, channels=channels, device=device)
        order = order.to(device)
        top, left, flip = (d if d is None else d.to(device) for d in (draws.top, draws.left, draws.flip))
        for start in range(0, len(order), batch_size):
            part = slice(start, start + batch_size)
            batch = pixels.index_select(0, order[part])
            if top is not None and left is not None:
                batch = crop(batch, pad=self.pad, top=top[part], left=left[part])
            if flip is not None:
                batch = mirror(batch, flip[part])
            images = normalise_pixels(batch, mean, std).contiguous(memory_format=memory_format)
            yield images, labels.index_select(0, order[part])


def check_pass(batch_size: int, *, generator: torch.Generator | None, augment: bool) -> None:
    """Refuse a batch size below 1, and augmentation without a generator."""
    if batch_size < 1:
        raise ShrinkbenchError(f"batch size {batch_size} must be at least 1")
    if augment and generator is None:
        raise ShrinkbenchError("augmentation needs a random generator; give `generator`, or augment=False")


def check_count(count: int, available: int) -> None:
    """Refuse a subset that is empty or larger than its source."""
    if not 1 <= count <= available:
        raise ShrinkbenchError(f"a subset of {count} images was asked for; choose 1 to {available}")
