"""The text that Python brings along: blocks of bytes, split by file, identified by content."""

from __future__ import annotations

import pytest
import torch

from shrinkbench.datasets import load_dataset
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Normalisation

PLAIN = Normalisation(mean=(), std=())


def write(folder, count=20, size=300):
    for number in range(count):
        (folder / f"m{number:02}.py").write_bytes(bytes([65 + number]) * (size + number))


def test_files_are_split_by_their_place_and_blocks_are_theirs(tmp_path):
    write(tmp_path)
    data = load_dataset("python-text", tmp_path)
    letters = [
        {int(token) for token in split.inputs.unique()} for split in (data.train, data.validation, data.test)
    ]
    assert letters[1] == {65 + 8, 65 + 18}
    assert letters[2] == {65 + 9, 65 + 19}
    assert letters[0] == {65 + n for n in range(20)} - letters[1] - letters[2]
    assert len(data.train) == 16 * 2  # what is left of a file behind its last whole block is dropped
    assert data.test.inputs[:, 0].tolist() == [74, 84, 74, 84]  # the first block of each, then the second
    inputs, targets = next(data.train.batches(5, normalisation=PLAIN))
    assert inputs.shape == (5, 128)
    assert inputs.dtype == torch.int64
    assert torch.equal(inputs, targets)


def test_the_revision_is_of_the_content(tmp_path):
    write(tmp_path)
    first = load_dataset("python-text", tmp_path).revision
    assert load_dataset("python-text", tmp_path).revision == first
    (tmp_path / "m03.py").write_bytes(b"x" * 303)
    assert load_dataset("python-text", tmp_path).revision != first


def test_too_little_text_is_refused(tmp_path):
    write(tmp_path, count=8)
    with pytest.raises(ShrinkbenchError, match="holds 8 files"):
        load_dataset("python-text", tmp_path)


def test_every_python_has_it():
    data = load_dataset("python-text")
    assert min(map(len, (data.train, data.validation, data.test))) > 500
    text = bytes(data.train.inputs[:50].flatten().tolist()).decode("latin1")
    assert "import" in text
