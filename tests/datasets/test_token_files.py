"""Tokens and text in Parquet and Arrow files: read whole, split by a fixed rule, refused in a sentence."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from shrinkbench.datasets import load_dataset
from shrinkbench.errors import ShrinkbenchError


def arrow(path, **columns):
    """As ``save_to_disk`` writes: a stream of record batches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return table


def rows(first, count, length=100):
    return [[(first + n) % 13 for n in range(length)] for _ in range(count)]


def test_a_saved_dataset_of_several_splits_is_those_splits(tmp_path):
    for part, first in (("train", 0), ("validation", 1), ("test", 2)):
        arrow(tmp_path / part / "data-00000-of-00001.arrow", input_ids=rows(first, 20), other=[0] * 20)
        (tmp_path / part / "state.json").write_text("{}")
    arrow(tmp_path / "train" / "cache-1.arrow", input_ids=rows(5, 3))
    data = load_dataset("text-files", tmp_path)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [15, 15, 15]
    assert data.train.inputs.flatten()[:200].tolist() == (rows(0, 2)[0] * 2)[:200]
    assert data.test.inputs[0, 0] == 2
    assert len(data.class_names) == 13
    assert data.example.shape == (1, 128)


def test_one_split_is_cut_and_text_is_bytes(tmp_path):
    lines = [f"line {n:03} is text" * 4 for n in range(60)] + [None, "ä"]
    arrow(tmp_path / "data-00000-of-00001.arrow", text=lines)
    data = load_dataset("text-files", tmp_path)
    text = "".join(f"{line}\n" for line in lines if line is not None).encode()
    blocks = torch.tensor(list(text[: len(text) // 128 * 128])).reshape(-1, 128)
    number = torch.arange(len(blocks)) % 10
    assert torch.equal(data.train.inputs, blocks[number < 8])
    assert torch.equal(data.validation.inputs, blocks[number == 8])
    assert torch.equal(data.test.inputs, blocks[number == 9])
    assert len(data.class_names) == 256
    table = pa.table({"text": lines})
    pq.write_table(table, tmp_path / "all.parquet")
    same = load_dataset("text-files", tmp_path / "all.parquet")
    assert same.revision == data.revision


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": [1, 2]}, "needs input_ids or text"),
        ({"input_ids": [[1, 2]]}, "less than a block"),
        ({"input_ids": [[1] * 200]}, "too few to be cut into three"),
        ({"input_ids": [[-1] * 200]}, "tokens count from 0"),
        ({"input_ids": [[1 << 40] * 200]}, "tokens count from 0"),
        ({"input_ids": [[0.5] * 200]}, "give lists of whole numbers"),
        ({"input_ids": [1, 2]}, "give lists of whole numbers"),
        ({"text": [None]}, "less than a block"),
    ],
)
def test_what_is_no_text_is_told(tmp_path, columns, said):
    arrow(tmp_path / "data.arrow", **columns)
    with pytest.raises(ShrinkbenchError, match=said) as caught:
        load_dataset("text-files", tmp_path)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300


def test_damaged_and_missing_files_are_told(tmp_path):
    with pytest.raises(ShrinkbenchError, match="needs --data"):
        load_dataset("text-files", None)
    for name in ("data.arrow", "train.parquet"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(b"no such thing" * 9)
        with pytest.raises(ShrinkbenchError, match=r"cannot read .* fetch it again"):
            load_dataset("text-files", folder)
    arrow(tmp_path / "some" / "odd" / "data.arrow", input_ids=[[1] * 2000])
    with pytest.raises(ShrinkbenchError, match="could belong to any split"):
        load_dataset("text-files", tmp_path / "some")


def test_a_folder_of_plain_text_is_told_as_that(tmp_path):
    """It was told to name its files train, validation and test, as they were named."""
    (tmp_path / "train.txt").write_text("text " * 2000)
    with pytest.raises(ShrinkbenchError, match="holds no Parquet or Arrow file; write plain text as one"):
        load_dataset("text-files", tmp_path)
