"""Images per second of several processes that train ResNet-20 at once on one GPU.

    python benchmarks/gpu_processes.py [--processes 1 4 14] [--seconds 3]

Each process trains on a batch of 128 random images that lies on the GPU. Run it a second time under
``nvidia-cuda-mps-control -d`` to see what NVIDIA's multi-process service brings.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import torch
from torch.nn import functional as F

from shrinkbench.models import build

BATCH = 128


def serve(barrier: Barrier, rates: Queue[float], seconds: float) -> None:
    """Train for ``seconds`` from when all are ready, and tell the steps per second."""
    torch.set_num_threads(1)
    module = build("resnet20").cuda().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(module.parameters(), fused=True)
    inputs = torch.randn(BATCH, 3, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,), device="cuda")

    def steps(count: int) -> None:
        for _ in range(count):
            F.cross_entropy(module(inputs), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.cuda.synchronize()

    steps(5)
    barrier.wait()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        steps(10)
        done += 10
    rates.put(done / (time.perf_counter() - start))


def main() -> None:
    """Read the arguments, start the processes, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4, 14])
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, batch {BATCH}")
    context = multiprocessing.get_context("spawn")
    for count in options.processes:
        barrier, rates = context.Barrier(count), context.Queue()
        arguments = (barrier, rates, options.seconds)
        group = [context.Process(target=serve, args=arguments) for _ in range(count)]
        for process in group:
            process.start()
        total = sum(rates.get(timeout=120) for _ in group)
        for process in group:
            process.join()
        print(f"{count:3} processes{total:8.0f} steps/s{BATCH * total:10.0f} images/s", flush=True)


if __name__ == "__main__":
    main()
