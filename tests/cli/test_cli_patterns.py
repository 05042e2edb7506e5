"""Patterns of networks and data of one's own: what a folder names is code, and data say classes and shape."""

import torch
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import Masks
from shrinkbench.runner import sweep
from shrinkbench.sources import named
from shrinkbench.spec import read_experiments

PARTS = """
import torch
from torch import nn


def make(num_classes):
    layers = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, num_classes))


def data():
    images, labels = torch.rand(60, 1, 8, 8), torch.arange(60) % 3
    return (images[:40], labels[:40]), (images[40:], labels[40:])


recipe = dict(optimizer="sgd", learning_rate=0.01, batch_size=20, epochs=1)
"""
GRID = """
name = "own"
model = "patterned.py:make"
dataset = "patterned.py:data"
recipe = "patterned.py:recipe"
pretrain_recipe = "patterned.py:recipe"
method = "channel_l1"
compression = 2
"""


def patterns(*arguments):
    done = CliRunner().invoke(app, ["patterns", *map(str, arguments)])
    return str(done.exception) if isinstance(done.exception, ShrinkbenchError) else done.output


def test_of_own_networks_and_data_with_their_code(tmp_path, monkeypatch):
    (tmp_path / "patterned.py").write_text(PARTS)
    (tmp_path / "own.toml").write_text(GRID)
    sweep(read_experiments(tmp_path / "own.toml"), tmp_path / "out")
    assert "share of filters kept" in patterns(tmp_path / "out")
    masks = Masks({"0.weight": torch.arange(8).reshape(8, 1, 1, 1).expand(8, 1, 3, 3) < 4})
    masks.save(tmp_path / "m.safetensors")
    file = tmp_path / "patterned.py"
    of_masks = ("--model", f"{file}:make", "--masks", tmp_path / "m.safetensors", "--by-layer")
    assert "num_classes" in patterns(*of_masks)
    told = patterns(*of_masks, "--dataset", f"{file}:data")
    assert [line.split()[-1] for line in told.splitlines() if line.startswith("0")] == ["4.0"]
    monkeypatch.setattr(named, "_PLACES", {})  # as in a process that was given no file
    monkeypatch.chdir(tmp_path)
    assert "code from outside; load it with --plugin FILE" in patterns(tmp_path / "out")
