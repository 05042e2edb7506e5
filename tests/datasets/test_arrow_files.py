"""Images in Arrow streams: in the layout of Hugging Face's save_to_disk, and saved by that library itself."""

import json

import numpy as np
import pyarrow as pa
import pytest
from made_images import noise, png

from shrinkbench.datasets import load_dataset
from shrinkbench.errors import ShrinkbenchError

NAMES = ["ant", "bee"]
FEATURES = {"label": {"names": NAMES, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
METADATA = {"huggingface": json.dumps({"info": {"features": FEATURES}})}


def save(folder, rows, *, split, cut=None):
    """One split as save_to_disk lays it out: streams of batches, and a state that names them in order."""
    folder.mkdir(parents=True)
    pixels = [noise((3, row)) for row in rows]
    images = [{"bytes": png(p), "path": None} for p in pixels]
    table = pa.table({"image": images, "label": [row % 2 for row in rows]}).replace_schema_metadata(METADATA)
    cut = cut or len(rows)
    parts = [table.slice(0, cut), table.slice(cut)] if cut < len(rows) else [table]
    names = [f"data-{number:05d}-of-{len(parts):05d}.arrow" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, part.schema) as writer:
            writer.write_table(part, max_chunksize=7)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name} for name in names], "_split": split})
    )
    (folder / "cache-0123.arrow").write_bytes(b"no state names it")
    return pixels


def test_splits_are_read_in_the_order_that_their_state_says(tmp_path):
    pixels = save(tmp_path / "train", range(40), split="train", cut=15)
    save(tmp_path / "test", range(40, 46), split="test")
    dataset = load_dataset("parquet", tmp_path)
    assert dataset.class_names == tuple(NAMES)
    held_out = [18, 19, 38, 39]
    rows = [row for row in range(40) if row not in held_out]
    assert dataset.train.labels.tolist() == [row % 2 for row in rows]
    assert np.array_equal(dataset.train.images.permute(0, 2, 3, 1), np.stack([pixels[row] for row in rows]))
    assert len(dataset.validation) == 4
    assert len(dataset.test) == 6


def test_one_split_alone_is_cut_in_tenths(tmp_path):
    save(tmp_path / "mine", range(40), split=None)
    dataset = load_dataset("parquet", tmp_path / "mine")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [32, 4, 4]


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (
            '{"_data_files": [{"filename": "../x.arrow"}], "_split": "train"}',
            r"'?\.\./x\.arrow'?, which is no .arrow",
        ),
        ('{"_data_files": [{"filename": "y.arrow"}], "_split": "train"}', "names y.arrow, which is not there"),
        ("[]", "is no state of a saved dataset"),
    ],
)
def test_a_state_that_leads_elsewhere_is_told(tmp_path, state, sentence):
    save(tmp_path / "train", range(4), split="train")
    (tmp_path / "train" / "state.json").write_text(state)
    with pytest.raises(ShrinkbenchError, match=sentence):
        load_dataset("parquet", tmp_path)


def test_damage_is_told(tmp_path):
    save(tmp_path / "train", range(40), split="train")
    file = tmp_path / "train" / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(ShrinkbenchError, match=r"the Arrow file .*arrow is truncated or damaged"):
        load_dataset("parquet", tmp_path)


def test_what_the_library_itself_has_saved(tmp_path):
    library = pytest.importorskip("datasets")
    if not hasattr(library, "Dataset"):  # a folder of tests has that name
        pytest.skip("Hugging Face's datasets is not installed")
    images = [{"bytes": png(noise((3, row))), "path": None} for row in range(40)]
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=NAMES)})
    made = library.Dataset.from_dict(
        {"image": images, "label": [row % 2 for row in range(40)]}, features=features
    )
    library.DatasetDict({"train": made, "test": made.select(range(6))}).save_to_disk(str(tmp_path / "saved"))
    dataset = load_dataset("parquet", tmp_path / "saved")
    assert dataset.class_names == tuple(NAMES)
    assert len(dataset.test) == 6
