"""A checkpoint is whole, or there is none: damage costs epochs, never a run."""

import errno
import resource
import signal

import pytest
import torch

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.runner.outcomes import classify
from shrinkbench.training.checkpoint import DamagedCheckpointWarning, load_checkpoint, save_checkpoint


def test_what_is_saved_is_loaded(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", {"step": 3, "w": torch.ones(2)})
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3


def test_a_checkpoint_that_is_gone_is_none(tmp_path):
    assert load_checkpoint(tmp_path / "checkpoint.pt") is None


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_damaged_checkpoint_is_told_and_training_begins_anew(tmp_path, size):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"w": torch.ones(1000)})
    content = path.read_bytes()
    path.write_bytes(content[:size] if size >= 0 else b"x" * len(content))
    with pytest.warns(DamagedCheckpointWarning, match="its training begins anew"):
        assert load_checkpoint(path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt.damaged"]


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.97, 0.999])
def test_a_full_disk_is_the_machines_wherever_it_strikes(tmp_path, part):
    state = {"a": torch.ones(3000), "b": [1, 2], "c": torch.ones(100)}
    save_checkpoint(tmp_path / "whole", state)
    most = int(part * (tmp_path / "whole").stat().st_size)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(ShrinkbenchError, match="File too large") as told:
            save_checkpoint(tmp_path / "checkpoint.pt", state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert classify(told.value) == "environment"
    assert told.value.__context__.errno == errno.EFBIG
    assert [p.name for p in tmp_path.iterdir()] == ["whole"]  # no temporary file stays
