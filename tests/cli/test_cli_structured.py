"""`shrinkbench shrink` and `shrinkbench latency`, as a person types them."""

from __future__ import annotations

import json

import pytest
import torch
from surgery_networks import load_small
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.pruning.masks import Masks


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def masks(tmp_path):
    """Half of the filters of one layer."""
    mask = torch.ones_like(build("resnet20").layer1[0].conv1.weight, dtype=torch.bool)
    mask[::2] = False
    Masks({"layer1.0.conv1.weight": mask}).save(tmp_path / "masks.safetensors")
    return tmp_path / "masks.safetensors"


def test_shrink_writes_a_network_that_is_read_again(masks, tmp_path):
    arguments = ("shrink", "--model", "resnet20", "--masks", masks, "--complete", "--out", tmp_path / "small")
    report = json.loads(call(*arguments, "--json"))
    # 8 filters of 16 x 9 weights, 8 batch-norm channels, 8 inputs of 16 filters of the next layer.
    assert report["parameters"] - report["parameters_small"] == 8 * 144 + 16 + 8 * 144
    small = load_small(tmp_path / "small", lambda name, classes: build(name, num_classes=classes))
    assert small.layer1[0].conv1.out_channels == 8
    assert "same outputs" in call(*arguments)


@pytest.mark.slow
def test_latency_prints_measured_beside_theoretical_speedup(masks):
    rows = json.loads(
        call("latency", "--model", "resnet20", "--masks", masks, "--batch-size", 2, "--rounds", 1, "--json")
    )
    assert [row["network"] for row in rows] == ["dense", "masked", "small"]
    assert all(row["milliseconds"] > 0 for row in rows)
    assert rows[2]["theoretical_speedup"] > rows[0]["theoretical_speedup"] == 1
    assert {(row["threads"], row["precision"], row["batch_size"]) for row in rows} == {(1, "float32", 2)}
    assert {row["memory_format"] for row in rows} == {"channels_last"}
    assert all(row["quartiles"][0] <= row["milliseconds"] <= row["quartiles"][1] for row in rows)
    assert not any(row["unsteady"] for row in rows)  # one round has no spread


@pytest.mark.slow
def test_latency_names_its_conditions_and_what_stays(masks):
    told = call(
        "latency", "--model", "resnet20", "--masks", masks, "--batch-size", 2, "--rounds", 1, "--device", "cpu"
    )
    assert told.startswith("cpu, 1 thread, float32, channels_last; median of 1 rounds (interquartile range)")
    assert "ms (IQR)" in told
    assert "not shown" not in told
    assert "Warning" not in told


def test_absent_masks_are_told(tmp_path):
    with pytest.raises(ShrinkbenchError, match="there is no file"):
        call("shrink", "--model", "resnet20", "--masks", tmp_path / "none", "--out", tmp_path / "small")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--speedup", 2, "--compression", 2], "said in several ways"),
        (["--latency-speedup", 2, "--compression", 2], "leave other amounts out"),
        (["--speedup", 0.5], "not a finite number above 1"),
        (["--compression", 2, "--max-ratio", 2], "max_ratio"),
        (["--compression", 2, "--ignore", "nowhere"], "ignore='nowhere' matches no layer"),
        (["--speedup", 50], "the largest possible target is"),
    ],
)
def test_bad_bounds_are_told(options, reason):
    with pytest.raises(ShrinkbenchError, match=reason):
        call("prune", "--model", "resnet20", "--method", "channel_l1", *options)


@pytest.mark.slow
def test_a_speedup_within_bounds_is_met():
    told = call(
        *("prune", "--model", "resnet20", "--method", "channel_l1", "--speedup", 1.3),
        *("--round-to", 8, "--ignore", "layer1", "--max-ratio", 0.75, "--json"),
    )
    assert json.loads(told)["theoretical_speedup"] >= 1.3


@pytest.mark.parametrize(
    "option", [("--speedup", 2), ("--latency-speedup", 2), ("--round-to", 8), ("--ignore", "fc")]
)
def test_imported_masks_leave_nothing_to_ask_for(tmp_path, option):
    with pytest.raises(ShrinkbenchError, match="leave out method, amount, bounds"):
        call("prune", "--model", "resnet20", "--import", tmp_path / "masks.pt", *option)
