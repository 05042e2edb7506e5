"""Peak memory of pruning a language model on calibration data, in multiples of its largest block.

    .venv/bin/python benchmarks/calibration_memory.py [--method wanda sparsegpt ria] [--depth 2 8]
        [--width 256] [--batch 8] [--batches 2] [--tokens 128] [--threads 1]

Each method runs in a process of its own on a causal language model of Llama's kind; memory is the growth of the
process's peak over what it holds before, which is the network, its tokens and one forward pass. The largest
block is its weights and what its layers give out for one batch. What is held beside one block grows with the
network by its masks alone (one byte a weight) and, for SparseGPT, the new weights, which is what is returned.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

METHODS = ("wanda", "ria", "sparsegpt")


def resident(field: str) -> int:
    """VmRSS (now) or VmHWM (peak since the last reset), in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def block_bytes(block: Any, states: Any) -> int:
    """Weights of ``block`` and everything that its layers give out for ``states``, in bytes."""
    import torch

    outputs = [states.nbytes]
    handles = [
        layer.register_forward_hook(lambda _, __, out: outputs.append(out.nbytes))
        for layer in block.modules()
        if not list(layer.children())
    ]
    with torch.no_grad():
        block(states)
    for handle in handles:
        handle.remove()
    return sum(outputs) + sum(p.nbytes for p in block.parameters())


def measure(method: str, depth: int, passes: str, options: argparse.Namespace) -> dict[str, float]:
    """Bytes of the peak, of the largest block and of what is returned, and seconds of processor time."""
    import torch

    from shrinkbench.models.llama import TinyLlama
    from shrinkbench.pruning import prune
    from shrinkbench.pruning.context import PruneContext

    if passes == "whole network":
        PruneContext.block_by_block = lambda self: self  # type: ignore[method-assign]
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    width = options.width
    module = TinyLlama(256, width=width, depth=depth, heads=8, shared_heads=4, hidden=4 * width).eval()
    shape = (options.batch, options.tokens)
    batches = [torch.randint(0, 256, shape) for _ in range(options.batches)]
    block = block_bytes(module.blocks[0], torch.randn(*shape, width))
    with torch.no_grad():
        module(batches[0])
    prune(module, "layerwise_magnitude", compression=1.01, example_inputs=batches[0][:1])  # code, and the trace
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.process_time()
    masks = prune(module, method, compression=1.6, batches=batches)
    seconds = time.process_time() - start
    peak = resident("VmHWM") - before
    returned = sum(m.nbytes for m in masks.values()) + sum(w.nbytes for w in masks.new_weights.values())
    return {"peak": peak, "block": block, "returned": returned, "seconds": seconds}


def main() -> int:
    """Measure every method at every depth and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", nargs="+", default=METHODS)
    parser.add_argument("--depth", nargs="+", type=int, default=(2, 8))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    # Freed memory goes back at once, so that what is resident is what is held.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
    context = multiprocessing.get_context("spawn")
    print(f"{'method':12}{'blocks':>7}{'passes':>16}{'peak':>8}{'returned':>10}{'beside':>8}{'seconds':>9}")
    for method in options.method:
        for depth in options.depth:
            for passes in ("block by block", "whole network"):
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    found = pool.submit(measure, method, depth, passes, options).result()
                unit = found["block"]
                peak, returned = found["peak"] / unit, found["returned"] / unit
                print(
                    f"{method:12}{depth:7}{passes:>16}{peak:7.2f}x{returned:9.2f}x{peak - returned:7.2f}x"
                    f"{found['seconds']:9.1f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
