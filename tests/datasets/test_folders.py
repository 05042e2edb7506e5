"""Image folders: classes, splits and sizes, and what is wrong with a folder."""

import numpy as np
import pytest
import torch
from made_images import noise, png, write_class_folders

from shrinkbench.datasets import load_dataset
from shrinkbench.datasets.memory import InMemoryImages
from shrinkbench.datasets.streamed import StreamedImages
from shrinkbench.errors import ShrinkbenchError

NAMES = ("ant", "bee", "cat")


def test_small_images_live_in_memory_pixel_for_pixel(tmp_path):
    train = write_class_folders(tmp_path / "train", NAMES, 20, seed=1)
    test = write_class_folders(tmp_path / "val", NAMES, 2, seed=2)
    dataset = load_dataset("imagefolder", tmp_path)
    assert isinstance(dataset.train, InMemoryImages)
    assert (dataset.card.image_shape, dataset.card.num_classes) == ((3, 8, 8), 3)
    assert dataset.class_names == NAMES
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [54, 6, 6]
    for label, name in enumerate(NAMES):
        held_out = [train[name][9], train[name][19]]
        for part, expected in ((dataset.validation, held_out), (dataset.test, test[name])):
            got = part.images[part.labels == label].permute(0, 2, 3, 1).numpy()
            assert np.array_equal(got, np.stack(expected))


def test_large_images_stream(tmp_path):
    write_class_folders(tmp_path / "train", NAMES, 10, height=80, width=70)
    write_class_folders(tmp_path / "test", NAMES, 1, height=80, width=70)
    dataset = load_dataset("imagefolder", tmp_path)
    assert isinstance(dataset.train, StreamedImages)
    assert dataset.card.image_shape == (3, 224, 224)
    images, _ = next(dataset.test.batches(3, normalisation=dataset.card.normalisation))
    assert images.shape == (3, 3, 224, 224)


def test_three_given_parts_are_taken_as_they_are(tmp_path):
    for number, part in enumerate(("train", "valid", "test")):
        write_class_folders(tmp_path / part, NAMES, number + 1, seed=number)
    dataset = load_dataset("imagefolder", tmp_path)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [3, 6, 9]


def test_class_folders_alone_are_cut_in_tenths(tmp_path):
    written = write_class_folders(tmp_path / "data", NAMES, 23)
    dataset = load_dataset("imagefolder", tmp_path / "data")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [57, 6, 6]
    got = dataset.test.images[dataset.test.labels == 2].permute(0, 2, 3, 1).numpy()
    assert np.array_equal(got, np.stack([written["cat"][9], written["cat"][19]]))


def test_the_revision_follows_content_names_and_labels(tmp_path):
    write_class_folders(tmp_path / "train", NAMES, 10)
    write_class_folders(tmp_path / "test", NAMES, 1)
    first = load_dataset("imagefolder", tmp_path).revision
    assert load_dataset("imagefolder", tmp_path).revision == first
    path = tmp_path / "train" / "ant" / "004.png"
    content = path.read_bytes()
    path.write_bytes(png(noise(12345)))
    changed = load_dataset("imagefolder", tmp_path).revision
    path.write_bytes(content)
    path.rename(tmp_path / "train" / "bee" / "004a.png")
    moved = load_dataset("imagefolder", tmp_path).revision
    assert len({first, changed, moved}) == 3


def test_system_files_are_no_data(tmp_path):
    write_class_folders(tmp_path / "train", NAMES, 10)
    write_class_folders(tmp_path / "test", NAMES, 1)
    (tmp_path / "train" / ".DS_Store").write_bytes(b"")
    (tmp_path / "train" / "ant" / "._000.png").write_bytes(b"")
    assert len(load_dataset("imagefolder", tmp_path).train) == 27


def _misplaced_file(root):
    (root / "train" / "readme.txt").write_text("hello")
    return "readme.txt beside class folders"


def _no_image(root):
    (root / "train" / "bee" / "labels.csv").write_text("hello")
    return "labels.csv is not an image"


def _class_too_many(root):
    write_class_folders(root / "test", ("dog",), 1, seed=9)
    return "test/dog is one too many"


def _empty_class(root):
    (root / "train" / "dog").mkdir()
    return "train/dog holds no image"


def _empty_part(root):
    for path in sorted((root / "test").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    return "test is empty"


def _two_validations(root):
    write_class_folders(root / "val", NAMES, 1)
    write_class_folders(root / "valid", NAMES, 1)
    return "both valid/ and val/"


def _another_size(root):
    (root / "train" / "ant" / "005.png").write_bytes(png(noise(0, height=9, width=8)))
    return "train/ant/005.png has 8 x 9 pixels, not 8 x 8"


def _damaged(root):
    (root / "train" / "ant" / "005.png").write_bytes(b"no image at all")
    return "train/ant/005.png does not decode"


def _damaged_first(root):
    (root / "train" / "ant" / "000.png").write_bytes(b"no image at all")
    return "train/ant/000.png does not decode"


@pytest.mark.parametrize(
    "damage",
    [
        _misplaced_file,
        _no_image,
        _class_too_many,
        _empty_class,
        _empty_part,
        _two_validations,
        _another_size,
        _damaged,
        _damaged_first,
    ],
)
def test_damage_is_named_in_one_sentence(tmp_path, damage):
    write_class_folders(tmp_path / "train", NAMES, 10)
    write_class_folders(tmp_path / "test", NAMES, 1)
    message = damage(tmp_path)
    with pytest.raises(ShrinkbenchError) as caught:
        load_dataset("imagefolder", tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_decoding_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRINKBENCH_CACHE", str(tmp_path / "cache"))
    write_class_folders(tmp_path / "data" / "train", NAMES, 10)
    _damaged(tmp_path / "data")
    with pytest.raises(ShrinkbenchError, match="does not decode"):
        load_dataset("imagefolder", tmp_path / "data")
    assert list((tmp_path / "cache").rglob("*.npy")) == []
    (tmp_path / "data" / "train" / "ant" / "005.png").write_bytes(png(noise(0)))
    assert len(load_dataset("imagefolder", tmp_path / "data").train) == 24


def test_an_unwritable_cache_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHRINKBENCH_CACHE", str(tmp_path / "file"))
    write_class_folders(tmp_path / "train", NAMES, 10)
    with pytest.raises(ShrinkbenchError, match="set SHRINKBENCH_CACHE"):
        load_dataset("imagefolder", tmp_path)


@pytest.mark.parametrize("name", ["imagefolder", "parquet", "cifar10", "imagenet", "mnist", "places365"])
def test_a_folder_that_is_missing_empty_or_a_file_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShrinkbenchError, match=f"{tmp_path}/empty is empty"):
        load_dataset(name, tmp_path / "empty")
    with pytest.raises(ShrinkbenchError, match=f"{tmp_path}/absent does not exist"):
        load_dataset(name, tmp_path / "absent")


def test_too_few_images_to_hold_out_are_refused(tmp_path):
    write_class_folders(tmp_path / "train", NAMES, 9)
    write_class_folders(tmp_path / "test", NAMES, 1)
    with pytest.raises(ShrinkbenchError, match="the 10 training images"):
        load_dataset("imagefolder", tmp_path)


def test_a_missing_part_is_an_error_once_it_is_asked_for(tmp_path):
    write_class_folders(tmp_path / "val", NAMES, 2)
    dataset = load_dataset("imagefolder", tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (0, 6)
    with pytest.raises(ShrinkbenchError, match="has no train images"):
        dataset.train.batches(4, normalisation=dataset.card.normalisation, generator=torch.Generator())
    with pytest.raises(ShrinkbenchError, match="has no validation images"):
        dataset.validation.subset(1)


def test_splits_may_be_written_with_capitals_and_a_class_of_that_name_is_none(tmp_path):
    for part, count in (("Train", 20), ("Test", 5)):
        write_class_folders(tmp_path / "splits" / part, ("cat", "dog"), count)
    assert len(load_dataset("imagefolder", tmp_path / "splits").test) == 10
    write_class_folders(tmp_path / "vehicles", ("Bus", "Train"), 10)
    assert load_dataset("imagefolder", tmp_path / "vehicles").class_names == ("Bus", "Train")
