"""Theoretical against measured speedup of physically smaller networks.

Networks lose a share of every channel group, so large that multiply-adds fall by the asked
factor. Dense and small network are timed in turn, and ratios are of times taken in one run.

    python benchmarks/latency.py                     # ResNet-56 and ResNet-50 at 2x and 4x, batch 64
    python benchmarks/latency.py --batch-size 1 64 --precision bf16-mixed --threads 2
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from shrinkbench.metrics import count_multiply_adds, measure_size
from shrinkbench.metrics.latency import Conditions, time_forward
from shrinkbench.models import build, get_model
from shrinkbench.pruning import prune
from shrinkbench.surgery.shrinking import shrink


def smaller(module: nn.Module, shape: tuple[int, ...], factor: float) -> nn.Module:
    """The network with the same share of every group left and multiply-adds lower by ``factor``."""
    low, high = 1.0, 2 * factor
    for _ in range(10):
        compression = (low + high) / 2
        masks = prune(module, "uniform_channels", compression=compression, input_shape=shape)
        if measure_size(module, shape, masks).theoretical_speedup < factor:
            low = compression
        else:
            high = compression
    return shrink(module, prune(module, "uniform_channels", compression=low, input_shape=shape), shape)


def main() -> None:
    """Read the arguments, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["resnet56", "torchvision/resnet50"])
    parser.add_argument("--speedup", type=float, nargs="+", default=[2, 4])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[64])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bf16-mixed"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(
        f"{'network':<22}{'batch':>6}{'theoretical':>13}{'dense ms':>11}{'small ms':>11}{'measured':>10}"
        f"{'theoretical / measured':>25}   "
        f"({arguments.threads} threads, {arguments.device}, {arguments.precision})"
    )
    for model in arguments.model:
        shape = get_model(model).input_shape
        dense = build(model).eval().to(memory_format=torch.channels_last)
        for factor in arguments.speedup:
            small = smaller(dense, shape, factor).to(memory_format=torch.channels_last)
            theoretical = count_multiply_adds(dense, shape) / count_multiply_adds(small, shape)
            for batch in arguments.batch_size:
                conditions = Conditions(batch, arguments.threads, arguments.precision, arguments.device)
                times = time_forward(
                    {"dense": dense, "small": small}, shape, conditions, rounds=arguments.rounds
                )
                measured = times["dense"].median / times["small"].median
                print(
                    f"{model:<22}{batch:>6}{theoretical:>12.2f}x{1e3 * times['dense'].median:>11.2f}"
                    f"{1e3 * times['small'].median:>11.2f}{measured:>9.2f}x{theoretical / measured:>25.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
