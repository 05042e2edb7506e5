"""What is noted of where a run was carried out, and that noting it leaves no trace."""

import os
import shutil
import subprocess

import pytest

from shrinkbench.runner import provenance


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_asking_git_for_the_commit_writes_nothing_into_the_checkout(tmp_path, monkeypatch):
    """Its lock, left by a process that was killed meanwhile, would keep a person from committing."""
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "provenance.py"
    file.write_text("one")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    os.utime(file, (1, 1))  # the index does not know this time, and git would store it
    before = (tmp_path / ".git" / "index").read_bytes()
    monkeypatch.setattr(provenance, "__file__", str(file))
    commit = provenance._commit.__wrapped__()
    assert (tmp_path / ".git" / "index").read_bytes() == before
    assert commit == subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    file.write_text("two")
    assert provenance._commit.__wrapped__() == f"{commit}+"
