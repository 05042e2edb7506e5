"""Seconds and peak memory of choosing the highest-scored eighth of all weights of ResNet-50.

    .venv/bin/python benchmarks/selection.py [--model torchvision/resnet50] [--rounds 5]

shrinkbench's selection against ``numpy.quantile`` over all scores joined (as the original did) and
``torch.nn.utils.prune.global_unstructured``. Each runs in a process of its own; memory is the growth of the
process's peak over the weights and scores that are there before, in multiples of the weights.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

CANDIDATES = ("shrinkbench", "numpy.quantile", "torch.nn.utils.prune")


def peak_bytes() -> int:
    """Peak resident memory since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM in /proc/self/status")


def select(candidate: str, model: str, rounds: int) -> tuple[float, float, int, int]:
    """Time one way of selecting and return median seconds and peak, weights in bytes, threads."""
    import numpy as np
    import torch
    from torch.nn.utils import prune as torch_prune

    from shrinkbench.models import build
    from shrinkbench.network.probe import weight_parameters
    from shrinkbench.pruning.top_k import keep_highest

    seconds, peaks = [], []
    for _ in range(rounds + 1):
        module = build(model)
        weights = {name: w.detach() for name, w in weight_parameters(module).items()}
        total = sum(w.numel() for w in weights.values())
        scores = {name: w.abs() for name, w in weights.items()} if candidate != CANDIDATES[2] else {}
        ctypes.CDLL(None).malloc_trim(0)  # freed memory goes back first, or reusing it would cost nothing
        Path("/proc/self/clear_refs").write_text("5")
        before, start = peak_bytes(), time.perf_counter()
        if candidate == "shrinkbench":
            masks = keep_highest(scores, total // 8)
        elif candidate == "numpy.quantile":
            joined = np.concatenate([s.numpy().ravel() for s in scores.values()])
            limit = np.quantile(joined, 1 - 1 / 8)
            masks = {name: s >= float(limit) for name, s in scores.items()}
        else:
            owners = [(module.get_submodule(n.rpartition(".")[0]), "weight") for n in weights]
            torch_prune.global_unstructured(owners, torch_prune.L1Unstructured, amount=total - total // 8)
            masks = {name: owner.weight_mask for name, (owner, _) in zip(weights, owners, strict=True)}
        seconds.append(time.perf_counter() - start)
        peaks.append(peak_bytes() - before)
        kept = sum(int(m.sum()) for m in masks.values())
        if abs(kept - total // 8) > 1:
            print(f"  {candidate} keeps {kept:,} of {total // 8:,}")
        del masks
    return statistics.median(seconds[1:]), statistics.median(peaks[1:]), 4 * total, torch.get_num_threads()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="torchvision/resnet50")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    results = {}
    for candidate in CANDIDATES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            results[candidate] = pool.submit(select, candidate, options.model, options.rounds).result()
    ours = results["shrinkbench"]
    print(f"{options.model}: {ours[2] / 4e6:.1f} M weights, {ours[3]} threads, median of {options.rounds}")
    for name, (seconds, peak, weights, _) in results.items():
        print(
            f"  {name:22s}{seconds:7.3f} s ({seconds / ours[0]:5.1f}x)   peak {peak / 2**20:7.0f} MiB "
            f"({peak / weights:5.2f} of the weights)"
        )


if __name__ == "__main__":
    main()
