"""Tokens and text in Parquet and Arrow files: read whole, split by a fixed rule, refused in a sentence."""

from __future__ import annotations

import json

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


def stated(folder):
    """As ``save_to_disk`` does: the files that are the dataset, by name."""
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))


def rows(first, count, length=100):
    return [[(first + n) % 13 for n in range(length)] for _ in range(count)]


def test_a_saved_dataset_of_several_splits_is_those_splits(tmp_path):
    for part, first in (("train", 0), ("validation", 1), ("test", 2)):
        arrow(tmp_path / part / "data-00000-of-00001.arrow", input_ids=rows(first, 20), other=[0] * 20)
        stated(tmp_path / part)
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


def test_files_that_an_earlier_save_has_left_are_not_read(tmp_path):
    arrow(tmp_path / "data-00000-of-00001.arrow", input_ids=rows(0, 40))
    stated(tmp_path)
    alone = load_dataset("text-files", tmp_path)
    arrow(tmp_path / "data-00001-of-00002.arrow", input_ids=rows(3, 40))
    assert load_dataset("text-files", tmp_path).revision == alone.revision


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.list_(pa.int32(), 100), pa.large_list(pa.bool_())])
def test_padding_is_no_text(tmp_path, kind):
    tokens = rows(1, 40)
    one, none = (True, False) if kind.value_type == pa.bool_() else (1, 0)
    mask = pa.array([[one] * 60 + [none] * 40] * 40, kind)
    lists = pa.array(tokens, kind if kind == pa.list_(pa.int32(), 100) else pa.list_(pa.int64()))
    pq.write_table(pa.table({"input_ids": lists, "attention_mask": mask}), tmp_path / "padded.parquet")
    pq.write_table(pa.table({"input_ids": [row[:60] for row in tokens]}), tmp_path / "plain.parquet")
    padded, plain = (load_dataset("text-files", tmp_path / f"{name}.parquet") for name in ("padded", "plain"))
    assert padded.revision == plain.revision
    pq.write_table(pa.table({"input_ids": tokens, "attention_mask": [[1]] * 40}), tmp_path / "padded.parquet")
    with pytest.raises(ShrinkbenchError, match="do not go together"):
        load_dataset("text-files", tmp_path / "padded.parquet")


def test_text_is_text_however_it_is_stored(tmp_path):
    lines = pa.array([f"line {n % 7} is text" * 4 for n in range(60)])
    ways = [lines, lines.dictionary_encode(), lines.cast(pa.string_view()), lines.cast(pa.large_string())]
    for number, way in enumerate(ways):
        pq.write_table(pa.table({"text": way}), tmp_path / f"{number}.parquet")
    assert len({load_dataset("text-files", tmp_path / f"{n}.parquet").revision for n in range(len(ways))}) == 1


def test_tokens_and_text_in_one_dataset_are_refused(tmp_path):
    arrow(tmp_path / "train" / "data.arrow", text=["some text"] * 400)
    arrow(tmp_path / "test" / "data.arrow", input_ids=rows(0, 20))
    with pytest.raises(ShrinkbenchError, match="some hold tokens and some text"):
        load_dataset("text-files", tmp_path)
