"""A checkpoint is whole, or there is none: damage costs epochs, never a run."""

import pytest
import torch

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
