"""What a command tells as a note, and what it leaves to Python."""

import warnings

import torch

from shrinkbench.cli.notes import tell_notes
from shrinkbench.cli.options import load_plugins
from shrinkbench.errors import DamagedWarning
from shrinkbench.training.checkpoint import load_checkpoint


def test_a_damaged_checkpoint_is_a_note(tmp_path, capsys):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"no checkpoint")
    with tell_notes():
        assert load_checkpoint(path) is None
        warnings.warn("made anew", DamagedWarning, stacklevel=1)
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"note: the checkpoint {path} was damaged")
    assert told[1:] == ["note: made anew"]


def test_a_plug_in_that_changes_the_whole_process_is_a_note(tmp_path, capsys):
    path = tmp_path / "sets.py"
    path.write_text("import torch\ntorch.set_default_dtype(torch.float64)\ndef network(): pass\n")
    load_plugins([path])
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("note: sets.py changes settings of the whole process as it is loaded, which are put")
    assert torch.get_default_dtype() is torch.float32
