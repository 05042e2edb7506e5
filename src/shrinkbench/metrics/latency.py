"""Measured wall time of a forward pass, beside which the theoretical speedup stands.

Networks that are compared are timed in turn, round after round, so that a slow spell of the machine meets all
of them, and all in one memory format. A round's time is the median of torch.utils.benchmark, in evaluation mode
without gradients, with the number of threads set for the measurement; given are the median and the quartiles
of the rounds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Example, Inputs
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.spec.measures import UNSTEADY, Latency, MemoryFormat, WallTime

if TYPE_CHECKING:
    from torch.utils.benchmark import Timer

Precision = Literal["float32", "bf16-mixed"]
_LAYOUTS: dict[MemoryFormat, torch.memory_format] = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}


@dataclass(frozen=True)
class Conditions:
    """How a forward pass was timed: images per batch, threads, arithmetic, kind of device, memory format."""

    batch_size: int = 1
    threads: int = 1
    precision: Precision = "float32"
    device: str = "cpu"
    memory_format: MemoryFormat = "channels_last"


def time_forward(
    networks: Mapping[str, nn.Module],
    input_shape: Example,
    conditions: Conditions,
    *,
    rounds: int = 5,
    seconds_per_round: float = 0.2,
) -> dict[str, WallTime]:
    """Seconds of one forward pass of each network under ``conditions``: median and quartiles of the rounds.

    ``input_shape`` is that of one input, or example inputs, whose floating values are drawn anew. Each round
    times every network for at least ``seconds_per_round``, each a first time unrecorded. Networks are moved to
    the device and laid out in the memory format of ``conditions``, all alike, and stay so; modes are restored.
    Inputs are of the precision of each network's weights.

    >>> times = time_forward({"a": nn.Linear(4, 2)}, (4,), Conditions(), rounds=2, seconds_per_round=0.001)
    >>> 0 < times["a"].lower <= times["a"].median <= times["a"].upper < 1
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
    layout = _LAYOUTS[conditions.memory_format]
    inputs = Inputs.of(input_shape).drawn(conditions.batch_size, seed=0).to(device)
    inputs = inputs.map(
        lambda t: t.contiguous(memory_format=layout if t.dim() == 4 else _LAYOUTS["contiguous"])
    )
    times: dict[str, list[float]] = {name: [] for name in networks}
    with ExitStack() as modes:
        timers = {}
        for name, network in networks.items():
            laid_out = network.to(device).to(memory_format=layout)
            modes.enter_context(evaluation_mode(laid_out))
            dtype = next((p.dtype for p in laid_out.parameters() if p.is_floating_point()), None)
            timers[name] = _timer(laid_out, inputs.to(device, dtype), conditions)
            timers[name].timeit(1)
        for _ in range(rounds):
            for name, timer in timers.items():
                times[name].append(timer.blocked_autorange(min_run_time=seconds_per_round).median)
    return {name: summarise_times(found) for name, found in times.items()}


def summarise_times(seconds: Sequence[float]) -> WallTime:
    """Median and quartiles (linear interpolation between order statistics) of the rounds' times.

    >>> summarise_times([1.0, 2.0, 3.0, 4.0, 9.0])
    WallTime(median=3.0, lower=2.0, upper=4.0, rounds=5)
    """
    lower, middle, upper = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [*seconds] * 3
    return WallTime(median=middle, lower=lower, upper=upper, rounds=len(seconds))


def unsteady(times: Mapping[str, WallTime]) -> str | None:
    """A sentence that names the networks whose interquartile range is above a tenth of the median, if any."""
    found = [f"'{name}' {100 * time.spread:.0f} %" for name, time in times.items() if time.unsteady]
    if not found:
        return None
    return (
        f"times are unsteady: the interquartile range is above {100 * UNSTEADY:.0f} % of the median for "
        f"{', '.join(found)}; leave the machine alone or take more rounds"
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ShrinkbenchError(
            f"there is no device '{name}' here ({str(error).splitlines()[0]}); choose cpu or cuda"
        ) from None
    return device


def _timer(network: nn.Module, inputs: Inputs, conditions: Conditions) -> Timer:
    mixed = conditions.precision == "bf16-mixed"
    args, kwargs = inputs.bound(network)

    @torch.inference_mode()
    def forward() -> Any:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=mixed):
            return network(*args, **kwargs)

    from torch.utils.benchmark import Timer  # its import looks for compilers, and may complain

    return Timer("forward()", globals={"forward": forward}, num_threads=conditions.threads)


def measure_latency(
    dense: nn.Module,
    pruned: nn.Module,
    input_shape: Example,
    conditions: Conditions,
    *,
    form: Literal["masked", "small"],
    rounds: int = 5,
    seconds_per_round: float = 0.2,
) -> Latency:
    """Time ``dense`` and ``pruned`` in turn; ``form`` tells which of the two a pruned network is."""
    times = time_forward(
        {"dense": dense, "pruned": pruned},
        input_shape,
        conditions,
        rounds=rounds,
        seconds_per_round=seconds_per_round,
    )
    return Latency(
        batch_size=conditions.batch_size,
        form=form,
        dense_seconds=times["dense"].median,
        seconds=times["pruned"].median,
        threads=conditions.threads,
        precision=conditions.precision,
        dense_time=times["dense"],
        time=times["pruned"],
        memory_format=conditions.memory_format,
    )
