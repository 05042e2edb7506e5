"""Does structured pruning pay? Measured latency at each step of multiply-adds, channels in multiples of 8.

    python benchmarks/structured_latency.py [--model resnet20 ...] [--speedup 1.5 2 3] [--batch-size 64]

All networks of a row are timed in turn in one process: medians and interquartile ranges of the rounds.
"""

from __future__ import annotations

import argparse

import torch

from shrinkbench.metrics import measure_size
from shrinkbench.metrics.latency import Conditions, time_forward
from shrinkbench.models import build, get_model
from shrinkbench.pruning.speedup import prune_to_speedup
from shrinkbench.surgery.shrinking import shrink


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["resnet20", "resnet56", "cifar-vgg"])
    parser.add_argument("--speedup", nargs="+", type=float, default=[1.5, 2, 3])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    print(
        f"{'network':<12}{'multiply-adds':>14}{'ms':>9}{'quartiles':>18}{'spread':>8}{'measured':>10}  slower"
    )
    for model in given.model:
        torch.manual_seed(0)
        dense, shape = build(model).eval(), get_model(model).input_shape
        networks, counted = {"1": dense}, {"1": 1.0}
        for speedup in given.speedup:
            masks = prune_to_speedup(dense, "channel_l1", speedup, input_shape=shape, round_to=given.round_to)
            networks[f"{speedup:g}"] = shrink(dense, masks, shape)
            counted[f"{speedup:g}"] = measure_size(dense, shape, masks).theoretical_speedup
        timed = time_forward(networks, shape, Conditions(given.batch_size), rounds=given.rounds)
        steps = list(timed)
        for last, step in zip([None, *steps], steps, strict=False):
            time = timed[step]
            slower = last is not None and time.seconds >= timed[last].seconds
            print(
                f"{model:<12}{counted[step]:>13.2f}x{1e3 * time.seconds:>9.2f}"
                f"{f'{1e3 * time.low:.2f}-{1e3 * time.high:.2f}':>18}{time.spread:>8.1%}"
                f"{timed['1'].seconds / time.seconds:>9.2f}x  {'YES' if slower else 'no'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
