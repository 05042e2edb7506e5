"""Wall time: in turn, under the stated conditions, and less where there is less to compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics.latency import Conditions, measure_latency, time_forward


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
