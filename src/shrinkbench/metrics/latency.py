"""Measured wall time of a forward pass, beside which the theoretical speedup stands.

Networks that are compared are timed in turn, round after round, so that a slow spell of the machine meets all
of them, and in one memory format, that of the first. Times are medians of the rounds, with the quartiles as
their spread, of torch.utils.benchmark in evaluation mode without gradients, with the number of threads set for
the measurement.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import quantiles
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


UNSTEADY = 0.1
"""From this share of the median on, an interquartile range is told: the ratio of two such times says little."""


@dataclass(frozen=True)
class Timing:
    """Seconds of a forward pass: the median of the rounds, and their quartiles.

    >>> Timing.of([2.0, 1.0, 4.0, 3.0, 5.0])
    Timing(seconds=3.0, low=2.0, high=4.0)
    """

    seconds: float
    low: float
    high: float

    @staticmethod
    def of(rounds: Sequence[float]) -> Timing:
        """Median and quartiles of at least one round."""
        low, middle, high = quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else [rounds[0]] * 3
        return Timing(middle, low, high)

    @property
    def spread(self) -> float:
        """The interquartile range as a share of the median."""
        return (self.high - self.low) / self.seconds


def time_forward(
    networks: Mapping[str, nn.Module],
    input_shape: Sequence[int],
    conditions: Conditions,
    *,
    rounds: int = 5,
    seconds_per_round: float = 0.2,
) -> dict[str, Timing]:
    """Seconds of one forward pass of each network under ``conditions``.

    Each round times every network for at least ``seconds_per_round``, each a first time unrecorded. Networks
    are moved to the device, and to the memory format of the first, and stay there; modes are restored.

    >>> seconds = time_forward({"a": nn.Linear(4, 2)}, (4,), Conditions(), rounds=1, seconds_per_round=0.001)
    >>> 0 < seconds["a"].seconds < 1
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
    layout = _layout_of(next(iter(networks.values()))) if networks else torch.contiguous_format
    inputs = inputs.to(device, memory_format=layout if inputs.dim() == 4 else torch.contiguous_format)
    times: dict[str, list[float]] = {name: [] for name in networks}
    with ExitStack() as modes:
        timers = {}
        for name, network in networks.items():
            modes.enter_context(evaluation_mode(network.to(device).to(memory_format=layout)))
            timers[name] = _timer(network, inputs, conditions)
            timers[name].timeit(1)
        for _ in range(rounds):
            for name, timer in timers.items():
                times[name].append(timer.blocked_autorange(min_run_time=seconds_per_round).median)
    return {name: Timing.of(found) for name, found in times.items()}


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ShrinkbenchError(
            f"there is no device '{name}' here ({str(error).splitlines()[0]}); choose cpu or cuda"
        ) from None
    return device


def _layout_of(network: nn.Module) -> torch.memory_format:
    """Channels-last where some convolution of the network is, else contiguous."""
    weights = [p for p in network.parameters() if p.dim() == 4 and p.shape[1] > 1]
    last = any(w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous() for w in weights)
    cubes = any(p.dim() == 5 for p in network.parameters())  # torch converts all or none
    return torch.channels_last if last and not cubes else torch.contiguous_format


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
        dense_seconds=seconds["dense"].seconds,
        seconds=seconds["pruned"].seconds,
        dense_spread=seconds["dense"].spread,
        spread=seconds["pruned"].spread,
        threads=conditions.threads,
        precision=conditions.precision,
    )
