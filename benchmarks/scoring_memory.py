"""Peak memory of deciding masks, over the network itself, in multiples of its weights.

    .venv/bin/python benchmarks/scoring_memory.py [--model torchvision/resnet50 ...] [--method obd ...]
        [--batch 8] [--batches 2] [--size 224] [--threads 2]

Each method runs in a process of its own on images of noise; memory is the growth of the process's peak over
what it holds before, which is the network, its images and one forward pass (code, buffers of the libraries).
"activations" is what autograd keeps of one batch between forward and backward pass, weights not counted.
The bound is 3 x weights + activations. "batches" many batches are scored: the peak must not grow with them.
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

from shrinkbench.errors import ShrinkbenchError

MODELS = ("torchvision/resnet50", "torchvision/vit_b_16")
METHODS = (
    "global_magnitude",
    "lamp",
    "random",
    "filter_l1",
    "fpgm",
    "magnitude_2_4",
    "global_gradient",
    "global_taylor",
    "filter_taylor_2016",
    "snip",
    "grasp",
    "synflow",
    "obd",
    "obd_hutchinson",
    "early_brain_damage",
    "movement",
    "woodfisher",
    "obs",
    "global_activation",
    "wanda",
    "sparsegpt",
    "apoz",
    "hrank",
    "batch_norm_scale",
    "residual_block_taylor",
    "head_taylor",
    "channel_l1",
    "channel_taylor",
    "thinet",
    "channel_regression",
)


def resident(field: str) -> int:
    """VmRSS (now) or VmHWM (peak since the last reset), in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def saved_activations(module: Any, inputs: Any) -> int:
    """Bytes that autograd saves for the backward pass of one batch, parameters and buffers not counted."""
    import torch

    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(inputs)
    total = sum(saved.values())
    del output
    return total


def measure(model: str, method: str, options: argparse.Namespace) -> tuple[float, float, float]:
    """Peak and activations in multiples of the weights, and seconds."""
    import torch

    from shrinkbench.models import build
    from shrinkbench.pruning import METHODS as REGISTRY
    from shrinkbench.pruning import prune

    torch.set_num_threads(options.threads)
    module = build(model, seed=0).eval()
    for parameter in module.parameters():  # a classifier of zeros, as torchvision's ViT has, stops gradients
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    generator = torch.Generator().manual_seed(0)
    shape = (3, options.size, options.size)
    batches = [
        (
            torch.randn(options.batch, *shape, generator=generator),
            torch.randint(0, 1000, (options.batch,), generator=generator),
        )
        for _ in range(options.batches)
    ]
    activations = saved_activations(module, batches[0][0])
    with torch.no_grad():
        module(batches[0][0])
    needs_data = bool(REGISTRY.get(method).needs)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    prune(
        module,
        method,
        compression=1.8,
        batches=batches if needs_data else None,
        input_shape=shape,
    )
    return (resident("VmHWM") - before) / weights, activations / weights, time.perf_counter() - start


def main() -> int:
    """Measure every pair and print one row each; 1 where one goes over its bound."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--method", nargs="+", default=METHODS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    # Freed memory goes back at once, so that what is resident is what is held.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
    context = multiprocessing.get_context("spawn")
    print(f"{'model':24}{'method':22}{'peak':>8}{'activations':>13}{'bound':>8}{'seconds':>9}")
    over = 0
    for model in options.model:
        for method in options.method:
            try:
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    peak, activations, seconds = pool.submit(measure, model, method, options).result()
            except ShrinkbenchError as error:
                print(f"{model:24}{method:22}{'refused':>8}  {error}", flush=True)
                continue
            bound = 3 + activations
            mark = "" if peak <= bound else "  over"
            over += bool(mark)
            print(
                f"{model:24}{method:22}{peak:7.2f}x{activations:12.2f}x{bound:7.2f}x{seconds:9.1f}{mark}",
                flush=True,
            )
    return int(over > 0)


if __name__ == "__main__":
    sys.exit(main())
