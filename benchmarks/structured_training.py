"""Wall time of training under masks over that of training the smaller network, and how far they part.

    python benchmarks/structured_training.py [--data DIR] [--images 640] [--rounds 5] [--threads 1]

Channels leave by ``channel_l1``. Both trainings go through the same images, in turn, round after round, in one
process; a round is an epoch of the loop that runs use, with augmentation, masks upheld, and validation on one
image for every nine. Printed are the median and the range of the rounds' ratios, the seconds that making and
proving the smaller network takes, once for a training, and the largest differences of losses (relative) and of
top-1 (points). The last line of a network is of all its compressions together, as a sweep trains them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from shrinkbench.datasets import InMemoryImages, load_dataset
from shrinkbench.models import build
from shrinkbench.pruning import Masks, prune
from shrinkbench.runner.smaller import Trained, smaller_or_why
from shrinkbench.spec import IMAGENET_NORMALISATION, Recipe
from shrinkbench.spec.measures import EpochRecord
from shrinkbench.training import RECIPES, train

SHAPE = (3, 32, 32)


class Data:
    """CIFAR-10 where there is any, else noise that classes shift, so that it can be learned."""

    def __init__(self, folder: Path | None, images: int) -> None:
        if folder is not None:
            source = load_dataset("cifar10", folder).train.subset(images)
            assert isinstance(source, InMemoryImages)
            pixels, labels = source.images, source.labels
        else:
            generator = torch.Generator().manual_seed(0)
            labels = torch.randint(0, 10, (images,), generator=generator)
            noise = torch.randint(0, 156, (images, *SHAPE), generator=generator)
            pixels = (noise + 10 * labels.reshape(-1, 1, 1, 1)).to(torch.uint8)
        self._train = InMemoryImages(pixels, labels, augmentation="crop-flip")
        self._held = InMemoryImages(pixels[: images // 9], labels[: images // 9])

    def train(
        self, batch_size: int, *, generator: torch.Generator, augment: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return self._train.batches(
            batch_size, normalisation=IMAGENET_NORMALISATION, generator=generator, augment=augment,
            memory_format=torch.channels_last,
        )  # fmt: skip

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._held.batches(128, normalisation=IMAGENET_NORMALISATION, memory_format=torch.channels_last)

    test = validation


@dataclass
class Pair:
    """Seconds per round of both trainings, and their records."""

    masked: list[float] = field(default_factory=list)
    smaller: list[float] = field(default_factory=list)
    records: list[tuple[EpochRecord, EpochRecord]] = field(default_factory=list)
    making: float = 0.0

    @property
    def ratios(self) -> list[float]:
        return [one / other for one, other in zip(self.masked, self.smaller, strict=True)]

    @property
    def apart(self) -> tuple[float, float]:
        """Largest relative difference of losses in training, and largest of top-1 in points."""
        losses = [abs(a.train_loss - b.train_loss) / a.train_loss for a, b in self.records]
        tops = [abs(a.validation["top1"] - b.validation["top1"]) for a, b in self.records]
        return max(losses), 100 * max(tops)


def pruned(model: str, compression: float) -> tuple[nn.Module, Masks]:
    module = build(model).to(memory_format=torch.channels_last)
    masks = prune(module, "channel_l1", compression=compression, input_shape=SHAPE)
    masks.apply(module)
    return module, masks


def epoch(trained: Trained, recipe: Recipe, data: Data, number: int) -> tuple[float, EpochRecord]:
    start = time.perf_counter()
    found = train(
        trained.module, recipe, data, seed=0, hooks=trained.hooks, first_epoch=number, last_epoch=number
    )
    return time.perf_counter() - start, found.epochs[0]


def compare(model: str, compression: float, recipe: Recipe, data: Data, rounds: int) -> Pair:
    module, masks = pruned(model, compression)
    pair, order = Pair(), torch.Generator().manual_seed(0)
    start = time.perf_counter()
    found = smaller_or_why(module, masks, recipe, data.train(32, generator=order, augment=False), example=SHAPE)
    if isinstance(found, str):
        raise SystemExit(f"{model} at {compression:g}x is trained masked: {found or 'nothing leaves'}")
    pair.making = time.perf_counter() - start
    sides = (Trained.masked(module, masks), Trained.smaller(found))
    for number in range(1, rounds + 2):  # the first round warms up; its losses count, its seconds do not
        (one, first), (other, second) = (epoch(side, recipe, data, number) for side in sides)
        pair.records.append((first, second))
        if number > 1:
            pair.masked.append(one)
            pair.smaller.append(other)
    return pair


def show(name: str, ratios: list[float], rest: str = "") -> None:
    print(
        f"{name:<22}{statistics.median(ratios):>8.2f}{min(ratios):>9.2f}-{max(ratios):<6.2f}{rest}", flush=True
    )


def main() -> None:
    """Read the arguments, train in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["cifar-vgg", "resnet56"])
    parser.add_argument("--compression", type=float, nargs="+", default=[2, 4, 8])
    parser.add_argument("--recipe", default="cifar-finetune")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    fields = {"epochs": arguments.rounds + 1, "precision": arguments.precision, "selection": "last"}
    recipe = Recipe(**(RECIPES.get(arguments.recipe).model_dump() | fields))
    data = Data(arguments.data, arguments.images)
    print(f"{'':<22}{'masked / smaller':>22}{'made in':>12}{'loss':>11}{'top-1':>8}")
    for model in arguments.model:
        pairs = []
        for compression in arguments.compression:
            pair = compare(model, compression, recipe, data, arguments.rounds)
            pairs.append(pair)
            loss, top1 = pair.apart
            rest = f"{pair.making:>8.1f} s{loss:>11.1e}{top1:>8.2f}"
            show(f"{model} at {compression:g}x", pair.ratios, rest)
        masked = [sum(seconds) for seconds in zip(*(pair.masked for pair in pairs), strict=True)]
        smaller = [sum(seconds) for seconds in zip(*(pair.smaller for pair in pairs), strict=True)]
        show(f"{model}, together", [a / b for a, b in zip(masked, smaller, strict=True)])


if __name__ == "__main__":
    main()
