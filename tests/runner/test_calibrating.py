"""The time of a plan follows from steps that are timed; counted here are the steps."""

import pytest
import torch
from commands import shrinkbench

from shrinkbench.runner import calibrating, sweep
from shrinkbench.runner.sweeping import prepare_sweep
from shrinkbench.spec import ExperimentSpec, parse_value


def prepared(tmp_path, **fields):
    base = {
        "name": "timed",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": ["random", "iterative_magnitude"],
        "compression": [1, 4],
        "seed": 0,
        "train_images": 100,
        "validation_images": 50,
        "test_images": 150,
        "pretrain": {"epochs": 3, "batch_size": 30},
        "finetune": {"epochs": 2, "batch_size": 50},
    }
    spec = parse_value(ExperimentSpec, {**base, **fields}, where="test")
    return prepare_sweep(spec, tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("step", "evaluation", "expected"),
    [
        # Pretraining 3 x 4 steps; control 2 x 2; random 2 x 2; two rounds of 2 x 2.
        (1.0, 0.0, 12 + 4 + 4 + 8),
        # By 128 images: pretraining 3 x 50; control and random 2 x 50 + 2 x 150; two rounds 4 x 50 + 2 x 150.
        (0.0, 1.0, 2 + 4 + 4 + 4),
    ],
)
def test_steps_and_evaluations_are_counted(step, evaluation, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(calibrating, "_rates", lambda *_: calibrating._Rates(step, evaluation))
    found = prepared(tmp_path)
    assert calibrating.expected_seconds(found, (spec.key for spec in found.todo)) == expected


def test_timing_leaves_no_trace(tmp_path):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    found = prepared(tmp_path / "new")
    seconds = calibrating.expected_seconds(found, (spec.key for spec in found.todo))
    assert 0 < seconds < 600
    assert torch.equal(torch.get_rng_state(), state)
    assert not (tmp_path / "new").exists()


def test_what_is_done_takes_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(calibrating, "_rates", lambda *_: calibrating._Rates(1.0, 0.0))
    spec = {"method": "random", "compression": 1, "pretrain": {"epochs": 1}, "finetune": {"epochs": 1}}
    first = prepared(tmp_path, **spec)
    sweep(first.plans[0][0], tmp_path, device="cpu")
    later = prepared(tmp_path, **spec | {"compression": [1, 2]})
    assert calibrating.expected_seconds(later, (s.key for s in later.todo)) == 2  # of 50 images each


def test_a_network_that_fails_leaves_the_time_unknown_and_says_why(tmp_path):
    (tmp_path / "raising.py").write_text(
        "from torch import nn\n\n\nclass Raises(nn.Module):\n    def __init__(self, num_classes):\n"
        "        super().__init__()\n        self.fc = nn.Linear(64, num_classes)\n\n"
        "    def forward(self, x):\n        if self.training:\n            raise ValueError('mine fails')\n"
        "        return self.fc(x.flatten(1))\n"
    )
    words = ["--set", f"model={tmp_path}/raising.py:Raises", "--out", tmp_path / "out", "--device", "cpu"]
    told = shrinkbench("sweep", "quickstart", "--plan", *words)
    assert told.returncode == 0
    assert "time unknown for 90 runs: a step of" in told.stdout
    assert "could not be timed: the network does not take a batch" in told.stdout
    assert "(ValueError: mine fails); give inputs" in told.stdout
