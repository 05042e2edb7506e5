"""What a command tells as a note, and what it leaves to Python."""

import warnings

from shrinkbench.cli.notes import tell_notes
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
