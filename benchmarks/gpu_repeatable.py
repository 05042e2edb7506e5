"""Whether a training on a GPU is the same again, and what float32 that is float32 and a fixed order cost.

    python benchmarks/gpu_repeatable.py --data DIR [--model resnet20 cifar-vgg] [--images 6400]

Every setting trains one epoch twice from one seed after a short warm-up; "same" means all weights and buffers,
bit for bit. What shrinkbench sets is the last line of each network; torch's own setting is the first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from shrinkbench.datasets import load_dataset
from shrinkbench.models import build
from shrinkbench.runner.repeatable import compute_repeatably
from shrinkbench.spec import IMAGENET_NORMALISATION
from shrinkbench.training import RECIPES, train

SETTINGS = ("torch's own", "float32 without TF32", "as shrinkbench runs")


class Data:
    """Images on the GPU, augmented."""

    def __init__(self, data: Path, images: int) -> None:
        self._source = load_dataset("cifar10", data).train.subset(images)

    def train(
        self, batch_size: int, *, generator: torch.Generator, augment: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return self._source.batches(
            batch_size, normalisation=IMAGENET_NORMALISATION, generator=generator, augment=augment,
            device="cuda", memory_format=torch.channels_last,
        )  # fmt: skip

    def validation(self) -> None:
        return None

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError("nothing is tested")


def settle(setting: str) -> None:
    """Set torch as ``setting`` says."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = setting == SETTINGS[0]
    if setting == SETTINGS[2]:
        compute_repeatably("cuda")


def train_once(model: str, data: Data) -> tuple[dict[str, Tensor], float]:
    """The state after one epoch, and its seconds."""
    torch.manual_seed(0)
    module = build(model).cuda().to(memory_format=torch.channels_last)
    fields = {"epochs": 1, "batch_size": 128, "selection": "last"}
    recipe = RECIPES.get("cifar-train").model_copy(update=fields)
    torch.cuda.synchronize()
    start = time.perf_counter()
    train(module, recipe, data, seed=0)
    torch.cuda.synchronize()
    return module.state_dict(), time.perf_counter() - start


def main() -> None:
    """Read the arguments, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10")
    parser.add_argument("--model", nargs="+", default=["resnet20", "cifar-vgg"])
    parser.add_argument("--images", type=int, default=6400)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, batch 128")
    for model in options.model:
        for setting in SETTINGS:
            settle(setting)
            train_once(model, Data(options.data, 1280))
            (one, first), (two, second) = (train_once(model, Data(options.data, options.images)) for _ in "12")
            same = all(torch.equal(one[name], two[name]) for name in one)
            speed = options.images / min(first, second)
            print(f"{model:12}{setting:24}{'same' if same else 'differs':10}{speed:8.0f} images/s", flush=True)


if __name__ == "__main__":
    main()
