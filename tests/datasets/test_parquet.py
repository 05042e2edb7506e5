"""Hugging Face Parquet: columns, class names, splits, and rows that are damaged."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_images import noise, png, write_parquet

from shrinkbench.datasets import load_dataset
from shrinkbench.datasets.parquet import open_parquet
from shrinkbench.datasets.streamed import StreamedImages
from shrinkbench.errors import ShrinkbenchError

NAMES = ("ant", "bee")
FEATURES = {"label": {"names": list(NAMES), "_type": "ClassLabel"}, "image": {"_type": "Image"}}
HUGGINGFACE = {"huggingface": json.dumps({"info": {"features": FEATURES}})}


def images_and_labels(count, seed=0):
    pixels = [noise((seed, row)) for row in range(count)]
    return pixels, [png(p) for p in pixels], [row % 2 for row in range(count)]


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    _, images, labels = images_and_labels(40)
    write_parquet(data / "train-00000-of-00002.parquet", images[:15], labels[:15], metadata=HUGGINGFACE)
    write_parquet(data / "train-00001-of-00002.parquet", images[15:], labels[15:], metadata=HUGGINGFACE)
    _, images, labels = images_and_labels(6, seed=1)
    write_parquet(data / "test-00000-of-00001.parquet", images, labels, metadata=HUGGINGFACE)
    return tmp_path


def test_files_of_a_split_are_read_in_order(folder):
    dataset = load_dataset("parquet", folder)
    assert dataset.class_names == NAMES
    pixels, _, labels = images_and_labels(40)
    held_out = [18, 19, 38, 39]  # every tenth of each class
    for part, rows in (
        (dataset.train, [row for row in range(40) if row not in held_out]),
        (dataset.validation, held_out),
    ):
        assert part.labels.tolist() == [labels[row] for row in rows]
        assert np.array_equal(part.images.permute(0, 2, 3, 1), np.stack([pixels[row] for row in rows]))
    assert len(dataset.test) == 6


def test_rows_are_named_by_file_and_row_in_it(folder):
    files = tuple(sorted((folder / "data").glob("train*")))
    encoded = open_parquet(files, NAMES)
    _, images, _ = images_and_labels(40)
    assert [encoded.read(row) for row in range(40)] == images
    assert encoded.where(14) == f"in row 14 of {files[0]}"
    assert encoded.where(15) == f"in row 0 of {files[1]}"


def test_one_file_alone_is_cut_in_tenths(tmp_path):
    _, images, labels = images_and_labels(40)
    write_parquet(tmp_path / "everything.parquet", images, labels)
    for data in (tmp_path, tmp_path / "everything.parquet"):
        dataset = load_dataset("parquet", data)
        assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [32, 4, 4]
        assert dataset.class_names == ("0", "1")


def test_labels_in_words_are_sorted_classes(tmp_path):
    _, images, _ = images_and_labels(40)
    write_parquet(tmp_path / "train.parquet", images, ["wasp", "bee"] * 20, image_column="img")
    dataset = load_dataset("parquet", tmp_path)
    assert dataset.class_names == ("bee", "wasp")
    assert dataset.train.labels[:2].tolist() == [1, 0]


def test_plain_binary_cells_and_large_images_stream(tmp_path):
    images = [png(noise(row, height=70, width=90)) for row in range(20)]
    pq.write_table(pa.table({"image": images, "label": [0, 1] * 10}), tmp_path / "train.parquet")
    dataset = load_dataset("parquet", tmp_path)
    assert isinstance(dataset.train, StreamedImages)
    batch, _ = next(dataset.train.batches(2, normalisation=dataset.card.normalisation))
    assert batch.shape == (2, 3, 224, 224)


def _rewrite(folder, rows):
    """Replace the test file: ``rows`` maps a row to its image and label."""
    _, images, labels = images_and_labels(6, seed=1)
    for row, (image, label) in rows.items():
        images[row], labels[row] = image, label
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", images, labels, metadata=HUGGINGFACE)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({3: (png(noise(0)), 2)}, "the label 2 in row 3 of"),
        ({0: (png(noise(0)), -1)}, "the label -1 in row 0 of"),
        ({5: (None, 0)}, "no encoded image in row 5 of"),
        ({2: (b"", 0)}, "no encoded image in row 2 of"),
        ({4: (b"not an image", 0)}, "the image in row 4 of"),
        ({4: (png(noise(0))[:90], 0)}, "the image in row 4 of"),
        ({1: (png(noise(0, height=9)), 0)}, "8 x 9 pixels, not 8 x 8"),
        ({1: (png(noise(0)), None)}, "the label None in row 1 of"),
    ],
)
def test_a_damaged_row_is_named(folder, rows, message):
    _rewrite(folder, rows)
    with pytest.raises(ShrinkbenchError) as caught:
        load_dataset("parquet", folder)
    assert message in str(caught.value)
    assert "test-00000-of-00001.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 3, 100, -1, -20])
def test_a_truncated_file_is_named(folder, length):
    path = folder / "data" / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ShrinkbenchError) as caught:
        load_dataset("parquet", folder)
    assert f"the Parquet file {path} is truncated or damaged" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_changed_in_the_middle_are_an_error_or_another_revision(folder):
    before = load_dataset("parquet", folder).revision
    path = folder / "data" / "train-00000-of-00002.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    try:
        after = load_dataset("parquet", folder).revision
    except ShrinkbenchError as error:
        after = str(error)
    assert after != before
    assert after.isalnum() or str(path) in after


def test_missing_columns_and_unknown_splits_are_named(tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), path)
    with pytest.raises(ShrinkbenchError, match="no column of images: it has text, label"):
        load_dataset("parquet", tmp_path)
    _, images, labels = images_and_labels(4)
    write_parquet(path, images, labels)
    write_parquet(tmp_path / "more.parquet", images, labels)
    with pytest.raises(ShrinkbenchError, match=r"more\.parquet could belong to any split"):
        load_dataset("parquet", tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat"] * 19 + [None], "the label None in row 19 .* is no class"),
        ([0] * 19 + [None], "the label None in row 19 .* is no class"),
        ([0.0] * 20, "the label 0.0 in row 0 .* is no class"),
        ([[0]] * 20, r"the label \[0\] in row 0 .* is no class"),
        ([0] * 19 + [3 * 10**8], "300,000,000, which is no number of a class"),
    ],
)
def test_labels_that_are_no_classes_are_named_as_that(tmp_path, labels, message):
    write_parquet(tmp_path / "train.parquet", images_and_labels(20)[1], labels)
    with pytest.raises(ShrinkbenchError, match=message):
        load_dataset("parquet", tmp_path)


@pytest.mark.parametrize("described", ["{damaged", "[1]", '{"info": {"features": null}}'])
def test_a_description_that_says_no_names_leaves_them_to_the_labels(tmp_path, described):
    images = images_and_labels(20)[1]
    write_parquet(tmp_path / "train.parquet", images, [0, 1] * 10, metadata={"huggingface": described})
    assert load_dataset("parquet", tmp_path).class_names == ("0", "1")
