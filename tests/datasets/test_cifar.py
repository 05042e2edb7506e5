"""CIFAR-10 and CIFAR-100 in every form in which people keep them."""

import hashlib
import io
import pickle
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from made_images import png, write_class_folders, write_parquet
from PIL import Image

from shrinkbench.datasets import cifar as module
from shrinkbench.datasets import load_dataset
from shrinkbench.datasets.cifar import ORIGINALS
from shrinkbench.errors import ShrinkbenchError

CLASSES = ORIGINALS["cifar10"].class_names


def test_real_parquet_files_are_read_pixel_for_pixel(cifar10_part):
    cifar = load_dataset("cifar10", cifar10_part)
    table = pq.read_table(cifar10_part / "test.parquet")
    assert torch.equal(cifar.test.labels, torch.tensor(table["label"].to_pylist()))
    for row in range(0, 2_000, 97):
        cell = table["img"][row].as_py()
        with Image.open(io.BytesIO(cell["bytes"])) as image:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(cifar.test.select(torch.tensor([row])).images[0].permute(1, 2, 0), expected)
        assert cell["path"].split("/")[1] == cifar.class_names[cifar.test.labels[row]]


def test_a_second_load_maps_the_cache(cifar10_part, cache):
    first = load_dataset("cifar10", cifar10_part)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    second = load_dataset("cifar10", cifar10_part)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")} == before
    assert second.revision == first.revision
    assert torch.equal(second.test.images, first.test.images)
    # Mapped copy-on-write: what a run does to its tensor reaches neither the file nor another run.
    first.test._copies[torch.device("cpu")][0][0].zero_()
    assert second.test.images[0].any()


def test_a_folder_is_given_as_a_path_or_as_text(cifar10_part):
    assert load_dataset("cifar10", str(cifar10_part)).revision == load_dataset("cifar10", cifar10_part).revision


def test_train_and_validation_are_the_training_images(cifar10_part):
    cifar = load_dataset("cifar10", cifar10_part)
    assert cifar.train._copies is cifar.validation._copies
    rows = torch.cat([cifar.train._rows, cifar.validation._rows])
    assert rows.sort().values.tolist() == list(range(4_000))


def test_the_normalisation_is_that_of_the_training_images(cifar10_part):
    # Neither the JPEG copy nor a twelfth of the images moves the statistics by much.
    cifar = load_dataset("cifar10", cifar10_part)
    for channel in range(3):
        values = cifar.train.images[:, channel].float() / 255
        assert abs(values.mean() - cifar.card.normalisation.mean[channel]) < 5e-3
        assert abs(values.std() - cifar.card.normalisation.std[channel]) < 5e-3


@pytest.mark.slow
def test_the_real_set_is_whole(cifar10_folder):
    cifar = load_dataset("cifar10", cifar10_folder)
    assert [len(part) for part in (cifar.train, cifar.validation, cifar.test)] == [45_000, 5_000, 10_000]
    assert cifar.train.labels.bincount().tolist() == [4_500] * 10
    assert cifar.validation.labels.bincount().tolist() == [500] * 10


def test_class_folders_are_read(tmp_path):
    written = write_class_folders(tmp_path / "train", CLASSES, 10, height=32, width=32)
    write_class_folders(tmp_path / "test", CLASSES, 1, height=32, width=32, seed=1)
    cifar = load_dataset("cifar10", tmp_path)
    assert [len(part) for part in (cifar.train, cifar.validation, cifar.test)] == [90, 10, 10]
    got = cifar.validation.images[cifar.validation.labels == 3][0].permute(1, 2, 0)
    assert np.array_equal(got, written["cat"][9])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "train" / "zebra").mkdir(), "train/zebra is one too many"),
        (lambda root: shutil.rmtree(root / "test" / "dog"), "test lacks the class folder dog"),
        (lambda root: shutil.rmtree(root / "train") or shutil.rmtree(root / "test"), "holds no cifar10"),
    ],
)
def test_damaged_class_folders_are_named(tmp_path, change, message):
    write_class_folders(tmp_path / "train", CLASSES, 10, height=32, width=32)
    write_class_folders(tmp_path / "test", CLASSES, 1, height=32, width=32)
    (tmp_path / "notes.txt").write_text("kept beside the folders")
    change(tmp_path)
    with pytest.raises(ShrinkbenchError, match=message):
        load_dataset("cifar10", tmp_path)


def test_parquet_of_another_dataset_is_refused(tmp_path):
    images = [png(np.zeros((32, 32, 3), dtype=np.uint8))] * 20
    write_parquet(tmp_path / "train.parquet", images, [0, 1] * 10, metadata={"class_names": "ant,bee"})
    with pytest.raises(ShrinkbenchError, match="has the classes ant, bee, not airplane, automobile, bird, "):
        load_dataset("cifar10", tmp_path)


def made_batches(monkeypatch, folder, name, label_key, classes):
    """Batches as the authors pickle them, with checksums that the loader then expects."""
    original = ORIGINALS[name]
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    members, written = {}, {}
    for split, names in original.members.items():
        members[split] = {}
        written[split] = ([], [])
        for member in names:
            data = generator.integers(0, 256, (3 * classes * 10, 3072), dtype=np.uint8)
            labels = [row % classes for row in range(len(data))]
            content = pickle.dumps({"data": data, label_key: labels, "filenames": [""] * len(data)})
            (folder / member).write_bytes(content)
            members[split][member] = hashlib.md5(content).hexdigest()
            written[split][0].append(data)
            written[split][1].extend(labels)
    monkeypatch.setitem(module.ORIGINALS, name, replace(original, members=members))
    return {split: (np.concatenate(data), labels) for split, (data, labels) in written.items()}


@pytest.mark.parametrize(
    ("name", "label_key", "classes"), [("cifar10", "labels", 10), ("cifar100", "fine_labels", 100)]
)
@pytest.mark.parametrize("form", ["around", "inside", "archive", "archive file"])
def test_the_authors_batches_are_read(tmp_path, monkeypatch, name, label_key, classes, form):
    original = ORIGINALS[name]
    folder = tmp_path / "made" / original.folder
    written = made_batches(monkeypatch, folder, name, label_key, classes)
    data = folder if form == "inside" else folder.parent
    if form.startswith("archive"):
        archive = tmp_path / original.archive.url.rsplit("/", 1)[-1]
        with tarfile.open(archive, "w:gz") as tarred:
            tarred.add(folder, arcname=original.folder)
        shutil.rmtree(folder)
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        published = replace(module.ORIGINALS[name], archive=replace(original.archive, sha256=sha256))
        monkeypatch.setitem(module.ORIGINALS, name, published)
        data = archive if form == "archive file" else tmp_path
    cifar = load_dataset(name, data)
    pixels, labels = written["test"]
    assert torch.equal(cifar.test.images, torch.from_numpy(pixels).view(-1, 3, 32, 32))
    assert cifar.test.labels.tolist() == labels
    assert len(cifar.train) == len(written["train"][1]) * 9 // 10


def test_a_wrong_checksum_is_named_and_nothing_is_unpickled(tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a batch with a wrong checksum was unpickled",))

    made_batches(monkeypatch, tmp_path / "made", "cifar10", "labels", 10)
    (tmp_path / "made" / "data_batch_3").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ShrinkbenchError, match=f"{tmp_path}/made/data_batch_3 is damaged .* its MD5 is"):
        load_dataset("cifar10", tmp_path / "made")
    (tmp_path / "made" / "data_batch_3").unlink()
    with pytest.raises(ShrinkbenchError, match=f"cannot read {tmp_path}/made/data_batch_3"):
        load_dataset("cifar10", tmp_path / "made")


def test_a_truncated_archive_is_named(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b\x08\x00truncated")
    with pytest.raises(ShrinkbenchError, match=f"{tmp_path}/cifar-10-python.tar.gz is damaged .* its SHA256"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_checksums_are_those_of_torchvision(name):
    reference = getattr(torchvision.datasets, name.upper())
    original = ORIGINALS[name]
    assert dict(reference.train_list) == original.members["train"]
    assert dict(reference.test_list) == original.members["test"]
    assert (reference.url, reference.base_folder) == (original.archive.url, original.folder)


def test_without_network_the_sentence_says_what_to_do(monkeypatch, cache):
    original = ORIGINALS["cifar10"]
    address = "http://127.0.0.1:9/cifar-10-python.tar.gz"
    monkeypatch.setitem(
        module.ORIGINALS, "cifar10", replace(original, archive=replace(original.archive, url=address))
    )
    with pytest.raises(ShrinkbenchError) as caught:
        load_dataset("cifar10")
    assert address in str(caught.value)
    assert str(cache / "downloads" / "cifar10" / "cifar-10-python.tar.gz") in str(caught.value)
    assert "--data" in str(caught.value)
    assert "\n" not in str(caught.value)
