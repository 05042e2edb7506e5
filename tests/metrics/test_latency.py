"""Wall time: in turn, under the stated conditions, and less where there is less to compute."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics.latency import Conditions, measure_latency, summarise_times, time_forward, unsteady
from shrinkbench.spec.measures import Latency, WallTime


def test_a_much_smaller_network_is_faster():
    def chain(width):
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3))

    latency = measure_latency(
        chain(96),
        chain(8),
        (3, 32, 32),
        Conditions(batch_size=8),
        form="small",
        rounds=3,
        seconds_per_round=0.05,
    )
    assert latency.seconds < latency.dense_seconds / 3
    assert (latency.batch_size, latency.threads, latency.precision, latency.form) == (8, 1, "float32", "small")


def test_the_network_sees_the_conditions_and_keeps_its_modes():
    seen = []

    class Witness(nn.Module):
        def forward(self, x):
            seen.append((x.shape, torch.get_num_threads(), torch.is_inference_mode_enabled(), self.training))
            return x

    witness = Witness().train()
    threads = torch.get_num_threads()
    conditions = Conditions(batch_size=3, threads=2)
    time_forward({"w": witness}, (1, 2, 2), conditions, rounds=1, seconds_per_round=0.001)
    assert set(seen) == {(torch.Size((3, 1, 2, 2)), 2, True, False)}
    assert witness.training
    assert torch.get_num_threads() == threads


def test_all_networks_of_a_call_have_one_memory_format():
    """A network that comes in another layout than the one beside it would be timed by its layout."""
    seen = []

    class Witness(nn.Conv2d):
        def forward(self, x):
            tensors = (x, self.weight)
            seen.extend(t.is_contiguous(memory_format=torch.channels_last) for t in tensors)
            seen.extend(not t.is_contiguous() for t in tensors)
            return super().forward(x)

    networks = {"a": Witness(3, 4, 3), "b": Witness(3, 4, 3).to(memory_format=torch.channels_last)}
    for layout, last in (("channels_last", True), ("contiguous", False)):
        seen.clear()
        conditions = Conditions(memory_format=layout)
        time_forward(networks, (3, 8, 8), conditions, rounds=1, seconds_per_round=0.001)
        assert set(seen) == {last}


def test_the_spread_is_that_of_the_rounds_and_told_above_a_tenth():
    steady, shaken = (
        summarise_times([10.0, 10.2, 10.4, 10.6, 30.0]),
        summarise_times([10.0, 11.0, 10.0, 12.0, 13.0]),
    )
    assert (steady.lower, steady.median, steady.upper) == (10.2, 10.4, 10.6)
    assert shaken.spread == pytest.approx(2 / 11)
    assert unsteady({"a": steady}) is None
    told = unsteady({"a": steady, "b": shaken})
    assert "'b' 18 %" in told
    assert "'a'" not in told
    assert summarise_times([2.0]).range == 0


def test_a_measured_latency_carries_its_spread():
    network = nn.Conv2d(3, 4, 3)
    latency = measure_latency(
        network, network, (3, 8, 8), Conditions(), form="masked", rounds=3, seconds_per_round=0.001
    )
    assert latency.time.rounds == latency.dense_time.rounds == 3
    assert latency.time.median == latency.seconds
    assert latency.memory_format == "channels_last"
    assert Latency.model_validate_json(latency.model_dump_json()) == latency


def test_a_latency_stored_without_a_spread_is_read():
    old = {"batch_size": 1, "form": "small", "dense_seconds": 2.0, "seconds": 1.0, "threads": 1}
    read = Latency.model_validate({**old, "precision": "float32"})
    assert (read.time, read.spread, read.memory_format) == (None, None, None)
    with pytest.raises(ValidationError, match="between the quartiles"):
        WallTime(median=1.0, lower=2.0, upper=3.0, rounds=2)


def test_mixed_precision_computes_in_bfloat16():
    kinds = []
    layer = nn.Linear(4, 2)
    layer.register_forward_hook(lambda _m, _i, y: kinds.append(y.dtype))
    conditions = Conditions(precision="bf16-mixed")
    time_forward({"l": layer}, (4,), conditions, rounds=1, seconds_per_round=0.001)
    assert set(kinds) == {torch.bfloat16}


def test_an_absent_device_is_told():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ShrinkbenchError, match="there is no device 'cuda' here"):
        time_forward({"l": nn.Linear(4, 2)}, (4,), Conditions(device="cuda"))


def test_a_batch_of_nothing_is_told():
    with pytest.raises(ShrinkbenchError, match="batch size 0"):
        time_forward({"l": nn.Linear(4, 2)}, (4,), Conditions(batch_size=0))


def test_networks_of_half_precision_are_timed():
    half = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).bfloat16()
    times = time_forward({"a": half}, (3, 8, 8), Conditions(), rounds=2, seconds_per_round=0.001)
    assert times["a"].median > 0
