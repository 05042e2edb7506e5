"""Measured wall time of a forward pass, beside which the theoretical speedup stands.

Networks that are compared are timed in turn, round after round, so that a slow spell of the machine meets all
of them. Times are medians of torch.utils.benchmark, in evaluation mode without gradients, with the number of
threads set for the measurement.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.spec.measures import Latency

Precision = Literal["float32", "bf16-mixed"]


@dataclass(frozen=True)
class Conditions:
    """How a forward pass was timed: images per batch, threads, arithmetic, and the kind of device."""

    batch_size: int = 1
    threads: int = 1
    precision: Precision = "float32"
    device: str = "cpu"


def time_forward(
    networks: Mapping[str, nn.Module],
    input_shape: Sequence[int],
    conditions: Conditions,
    *,
    rounds: int = 5,
    seconds_per_round: float = 0.2,
) -> dict[str, float]:
    """Median seconds of one forward pass of each network under ``conditions``.

    Each round times every network for at least ``seconds_per_round``, each a first time unrecorded. Networks
    are moved to the device and stay there; modes are restored.

    >>> seconds = time_forward({"a": nn.Linear(4, 2)}, (4,), Conditions(), rounds=1, seconds_per_round=0.001)
    >>> 0 < seconds["a"] < 1
    True
    """
    if conditions.batch_size < 1 or conditions.threads < 1 or rounds < 1:
        raise ShrinkbenchError(
            f"batch size {conditions.batch_size}, threads {conditions.threads} and rounds {rounds} "
            "have to be at least 1"
        )
    most = 4 * (os.cpu_count() or 1)
    if conditions.threads > most:
        raise ShrinkbenchError(
            f"{conditions.threads} threads are too many for {os.cpu_count()} processors; choose 1 to {most}"
        )
    device = _device(conditions.device)
    inputs = torch.randn((conditions.batch_size, *input_shape), generator=torch.Generator().manual_seed(0))
    inputs = inputs.to(device)
    times: dict[str, list[float]] = {name: [] for name in networks}
    with ExitStack() as modes:
        timers = {}
        for name, network in networks.items():
            modes.enter_context(evaluation_mode(network.to(device)))
            timers[name] = _timer(network, _lay_out(inputs, network), conditions)
            timers[name].timeit(1)
        for _ in range(rounds):
            for name, timer in timers.items():
                times[name].append(timer.blocked_autorange(min_run_time=seconds_per_round).median)
    return {name: median(found) for name, found in times.items()}


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ShrinkbenchError(
            f"there is no device '{name}' here ({str(error).splitlines()[0]}); choose cpu or cuda"
        ) from None
    return device


def _lay_out(inputs: Tensor, network: nn.Module) -> Tensor:
    """Inputs in channels-last order where the network's convolutions are."""
    weights = [p for p in network.parameters() if p.dim() == 4 and p.shape[1] > 1]
    last = any(w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous() for w in weights)
    return inputs.contiguous(memory_format=torch.channels_last) if last and inputs.dim() == 4 else inputs


def _timer(network: nn.Module, inputs: Tensor, conditions: Conditions) -> Timer:
    mixed = conditions.precision == "bf16-mixed"

    @torch.inference_mode()
    def forward() -> Any:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=mixed):
            return network(inputs)

    return Timer("forward()", globals={"forward": forward}, num_threads=conditions.threads)


def measure_latency(
    dense: nn.Module,
    pruned: nn.Module,
    input_shape: Sequence[int],
    conditions: Conditions,
    *,
    form: Literal["masked", "small"],
    rounds: int = 5,
    seconds_per_round: float = 0.2,
) -> Latency:
    """Time ``dense`` and ``pruned`` in turn; ``form`` tells which of the two a pruned network is."""
    seconds = time_forward(
        {"dense": dense, "pruned": pruned},
        input_shape,
        conditions,
        rounds=rounds,
        seconds_per_round=seconds_per_round,
    )
    return Latency(
        batch_size=conditions.batch_size,
        form=form,
        dense_seconds=seconds["dense"],
        seconds=seconds["pruned"],
        threads=conditions.threads,
        precision=conditions.precision,
    )
