"""Images per second of fine-tuning ResNet-20 by shrinkbench, by a bare loop, and in the original's style.

    .venv/bin/python benchmarks/finetuning.py [--data DIR] [--images 1152] [--rounds 9] [--threads 2]

The loops take turns in one process, at equal threads and batch size, over the same images; what is printed are
medians and the ratios of each round. The shrinkbench loop does all that a run does: augmentation, masks upheld
after every step, losses, and validation on one image for every nine. The bare loop does none of that:
normalised batches lie ready. The original's style is PIL images through a DataLoader, contiguous float32,
modules that multiply their weights by masks in every forward pass, and ``.item()`` on every batch. With
``--compile`` the bare loop is also run through torch.compile, in the mode that is named, and shrinkbench with
compiled steps; their first pass, which pays for the compiling, is told apart.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.datasets import InMemoryImages, load_dataset
from shrinkbench.models import build
from shrinkbench.pruning import Masks, Upholder, prune
from shrinkbench.runner import resolve_device
from shrinkbench.runner.repeatable import compute_repeatably
from shrinkbench.spec import IMAGENET_NORMALISATION, Recipe
from shrinkbench.training import RECIPES, train

from torchvision.transforms import v2  # isort: skip

BATCH = 64
DEVICE = torch.device("cpu")


def pixels(data: Path | None, images: int) -> tuple[Tensor, Tensor]:
    """CIFAR-10 images where there are any, noise of the same shape otherwise."""
    if data is not None:
        source = load_dataset("cifar10", data).train.subset(images)
        assert isinstance(source, InMemoryImages)
        return source.images, source.labels
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return noise, torch.randint(0, 10, (images,), generator=generator)


class Data:
    """The data of a run, as the runner binds them."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._train = InMemoryImages(images, labels, augmentation="crop-flip")
        self._validation = InMemoryImages(images[: len(images) // 9], labels[: len(images) // 9])

    def train(
        self, batch_size: int, *, generator: torch.Generator, augment: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return self._train.batches(
            batch_size, normalisation=IMAGENET_NORMALISATION, generator=generator, augment=augment,
            device=DEVICE, memory_format=torch.channels_last,
        )  # fmt: skip

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._validation.batches(
            128, normalisation=IMAGENET_NORMALISATION, device=DEVICE, memory_format=torch.channels_last
        )

    test = validation


def network() -> nn.Module:
    return build("resnet20").to(DEVICE).to(memory_format=torch.channels_last)


def masks_of(module: nn.Module) -> Masks:
    masks = prune(module, "global_magnitude", compression=4, input_shape=(3, 32, 32))
    masks.apply(module)
    return masks


def shrinkbench_loop(
    images: Tensor, labels: Tensor, precision: str, *, compiled: bool = False
) -> Callable[[], None]:
    module, data = network(), Data(images, labels)
    uphold = Upholder(module, masks_of(module))
    fields = {"epochs": 1, "precision": precision, "batch_size": BATCH}
    recipe = RECIPES.get("cifar-finetune").model_copy(update=fields)

    def epoch() -> None:
        given = Recipe(**recipe.model_dump())
        done = train(module, given, data, seed=0, after_step=uphold, compiled=compiled)
        if done.uncompiled:
            raise SystemExit(f"shrinkbench did not compile: {done.uncompiled}")

    return epoch


def bare_loop(
    images: Tensor, labels: Tensor, precision: str, *, compiled: str | None = None
) -> Callable[[], None]:
    module = network().train()
    forward = module if compiled is None else torch.compile(module, mode=compiled, dynamic=False)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-4, fused=True)
    source = InMemoryImages(images, labels)
    batches = list(
        source.batches(
            BATCH, normalisation=IMAGENET_NORMALISATION, device=DEVICE, memory_format=torch.channels_last
        )
    )

    def epoch() -> None:
        for inputs, targets in batches:
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = F.cross_entropy(forward(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        finish()

    return epoch


def finish() -> None:
    """Wait for what a device has yet to do."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


class MaskedConv(nn.Module):
    """A convolution that multiplies its weight by its mask in every forward pass."""

    def __init__(self, layer: nn.Conv2d, mask: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("mask", mask.to(DEVICE).float())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.layer.weight * self.mask, None, self.layer.stride, self.layer.padding)


class PilImages(torch.utils.data.Dataset):
    """Images as PIL holds them, transformed one by one."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._images = [v2.functional.to_pil_image(image) for image in images]
        self._labels = labels.tolist()
        self._transform = v2.Compose([
            v2.RandomHorizontalFlip(), v2.RandomCrop(32, padding=4), v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_NORMALISATION.mean, IMAGENET_NORMALISATION.std),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self._transform(self._images[row]), self._labels[row]


def masked_network(method: str, compression: float, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """ResNet-20 whose convolutions multiply their weights by the masks of ``method`` in every forward pass."""
    module = build("resnet20").to(DEVICE).train()
    if weights is not None:
        module.load_state_dict(weights)
    for name, mask in prune(module, method, compression=compression, input_shape=(3, 32, 32)).items():
        path, _, child = name.removesuffix(".weight").rpartition(".")
        parent = module.get_submodule(path)
        setattr(parent, child, MaskedConv(parent.get_submodule(child), mask))
    return module


def original_epoch(module: nn.Module, images: PilImages) -> Callable[[], None]:
    """One epoch over the images in the original's style."""
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-4)
    loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True)

    def epoch() -> None:
        total = 0.0
        for inputs, targets in ((x.to(DEVICE), y.to(DEVICE)) for x, y in loader):
            optimizer.zero_grad()
            output = module(inputs)
            loss = F.cross_entropy(output, targets)
            loss.backward()
            optimizer.step()
            total += loss.item() + (output.argmax(1) == targets).float().mean().item()

    return epoch


def original_loop(images: Tensor, labels: Tensor) -> Callable[[], None]:
    return original_epoch(masked_network("global_magnitude", 4), PilImages(images, labels))


def measure(
    images: Tensor, labels: Tensor, precision: str, rounds: int, *, compiled: str | None, original: bool
) -> None:
    loops = {
        "shrinkbench": shrinkbench_loop(images, labels, precision),
        "bare dense loop": bare_loop(images, labels, precision),
    }
    if original:
        loops["original's style (float32)"] = original_loop(images, labels)
    if compiled:
        loops["shrinkbench, compiled"] = shrinkbench_loop(images, labels, precision, compiled=True)
        loops["bare loop, compiled"] = bare_loop(images, labels, precision, compiled=compiled)
    for name, loop in loops.items():
        start = time.perf_counter()
        loop()
        print(f"  first pass of {name}: {time.perf_counter() - start:.1f} s")
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            start = time.perf_counter()
            loop()
            speeds[name].append(len(labels) / (time.perf_counter() - start))
    print(f"\n{precision}: images/s, median of {rounds} rounds (least to most)")
    for name, values in speeds.items():
        print(f"  {name:28s}{statistics.median(values):8.0f}  ({min(values):.0f} to {max(values):.0f})")
    for name in list(loops)[1:]:
        ratios = [a / b for a, b in zip(speeds["shrinkbench"], speeds[name], strict=True)]
        print(
            f"  shrinkbench / {name:28s}{statistics.median(ratios):6.2f}  ({min(ratios):.2f} to"
            f" {max(ratios):.2f})"
        )
    if compiled:
        pairs = zip(speeds["shrinkbench, compiled"], speeds["bare dense loop"], strict=True)
        ratios = [a / b for a, b in pairs]
        told = f"{statistics.median(ratios):6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"  shrinkbench, compiled / bare dense loop     {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10; noise of the same shape without it")
    parser.add_argument("--images", type=int, default=1152)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--original", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--precision", nargs="+", default=["float32", "bf16-mixed"])
    parser.add_argument("--compile", help="a mode of torch.compile: default, reduce-overhead, ...")
    options = parser.parse_args()
    globals().update(BATCH=options.batch_size, DEVICE=torch.device(resolve_device(options.device)))
    torch.set_num_threads(options.threads)
    compute_repeatably(DEVICE.type)
    print(f"torch {torch.__version__} on {DEVICE}, {options.threads} threads")
    print(f"batch {BATCH}, {options.images} images")
    if DEVICE.type == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        print("this processor has no bf16 instructions: bf16 is emulated, and slower than float32")
    images, labels = pixels(options.data, options.images)
    for precision in options.precision:
        measure(images, labels, precision, options.rounds, compiled=options.compile, original=options.original)


if __name__ == "__main__":
    main()
