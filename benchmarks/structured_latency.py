"""Measured latency of physically smaller networks over the steps of a sweep by multiply-adds.

Channels leave by ``channel_l1`` in multiples of 8. All steps of a network are timed in turn, round after round;
printed are the median and the interquartile range, and whether every step is faster than the one before.

    python benchmarks/structured_latency.py --batch-size 32 --rounds 7
"""

from __future__ import annotations

import argparse
from itertools import pairwise

from shrinkbench.metrics import measure_size
from shrinkbench.metrics.latency import Conditions, time_forward, unsteady
from shrinkbench.models import build, get_model
from shrinkbench.pruning import prune
from shrinkbench.surgery.shrinking import shrink


def main() -> None:
    """Read the arguments, prune, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["resnet20", "resnet56", "cifar-vgg"])
    parser.add_argument("--speedup", type=float, nargs="+", default=[1.5, 2, 3])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds-per-round", type=float, default=0.1)
    arguments = parser.parse_args()
    for model in arguments.model:
        dense, shape = build(model).eval(), get_model(model).input_shape
        networks, counted = {"1": dense}, {"1": 1.0}
        for step in arguments.speedup:
            masks = prune(dense, "channel_l1", speedup=step, round_to=8, input_shape=shape)
            networks[f"{step:g}"] = shrink(dense, masks, shape)
            counted[f"{step:g}"] = measure_size(dense, shape, masks).theoretical_speedup
        times = time_forward(
            networks,
            shape,
            Conditions(arguments.batch_size, arguments.threads),
            rounds=arguments.rounds,
            seconds_per_round=arguments.seconds_per_round,
        )
        medians = [time.median for time in times.values()]
        for step, time in times.items():
            print(
                f"{model:<12}{step:>4}x asked{counted[step]:>8.2f}x fewer multiply-adds"
                f"{1e3 * time.median:>10.2f} ms (IQR {1e3 * time.range:.2f}){medians[0] / time.median:>7.2f}x"
            )
        falls = all(later < earlier for earlier, later in pairwise(medians))
        print(f"{model}: latency {'falls' if falls else 'does not fall'} with every step")
        if warning := unsteady(times):
            print(f"note: {warning}", flush=True)


if __name__ == "__main__":
    main()
