"""MNIST and Fashion-MNIST: IDX files, downloads, damage."""

import contextlib
import gzip
import hashlib
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import torchvision
from made_images import write_idx

from shrinkbench.datasets import load_dataset
from shrinkbench.datasets import mnist as module
from shrinkbench.datasets.mnist import FILES, ORIGINALS
from shrinkbench.errors import ShrinkbenchError

NAMES = ("mnist", "fashion-mnist")


def write(folder, suffix="", seed=0):
    """130 training and 20 test images; returns split -> images, labels."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    made = {}
    for (split, (images, labels)), count in zip(FILES.items(), (130, 20), strict=True):
        made[split] = generator.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        write_idx(folder / f"{images}{suffix}", made[split][0])
        write_idx(folder / f"{labels}{suffix}", made[split][1])
    return made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("inside", [".", "raw", "torchvision"])
def test_idx_files_are_read(tmp_path, name, suffix, inside):
    folder = {"torchvision": f"{ORIGINALS[name].torchvision_folder}/raw"}.get(inside, inside)
    made = write(tmp_path / "data" / folder, suffix)
    dataset = load_dataset(name, tmp_path / "data")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [120, 10, 20]
    images, labels = made["test"]
    assert torch.equal(dataset.test.images, torch.tensor(images, dtype=torch.uint8).unsqueeze(1))
    assert dataset.test.labels.tolist() == labels.tolist()
    # Classes in turn, 13 images each: the twelfth of every class is held out.
    assert torch.equal(dataset.validation.images[0, 0], torch.tensor(made["train"][0][110], dtype=torch.uint8))


def test_the_reader_agrees_with_torchvisions(tmp_path):
    write(tmp_path / "MNIST" / "raw")
    reference = torchvision.datasets.MNIST(tmp_path, train=False)
    assert torch.equal(load_dataset("mnist", tmp_path).test.images[:, 0], reference.data)


@pytest.mark.parametrize("name", NAMES)
def test_the_four_published_files_have_checksums(name):
    assert set(ORIGINALS[name].sha256) == {file for pair in FILES.values() for file in pair}
    assert all(len(sha256) == 64 for sha256 in ORIGINALS[name].sha256.values())


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def _wrong_label(path):
    write_idx(path, np.array([*range(10), 10, *range(9)]))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("t10k-images-idx3-ubyte", _truncate, "t10k-images-idx3-ubyte is truncated or damaged"),
        ("t10k-labels-idx1-ubyte", _wrong_label, "the label 10 in row 10 of .*t10k-labels-idx1-ubyte"),
        ("t10k-labels-idx1-ubyte", lambda p: p.write_bytes(b"\0\0"), "t10k-labels-idx1-ubyte is truncated"),
        (
            "t10k-labels-idx1-ubyte",
            lambda p: p.write_bytes(b"<html></html>"),
            "is truncated or damaged",
        ),
        ("train-labels-idx1-ubyte", lambda p: p.unlink(), "lacks train-labels-idx1-ubyte"),
        ("train-labels-idx1-ubyte", lambda p: write_idx(p, np.zeros(3)), "holds no mnist"),
    ],
)
def test_damage_is_named(tmp_path, file, damage, message):
    write(tmp_path / "data")
    damage(tmp_path / "data" / file)
    with pytest.raises(ShrinkbenchError, match=message) as caught:
        load_dataset("mnist", tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_a_truncated_gzip_file_is_named(tmp_path):
    write(tmp_path / "data", ".gz")
    _truncate(tmp_path / "data" / "train-images-idx3-ubyte.gz")
    with pytest.raises(ShrinkbenchError, match=r"train-images-idx3-ubyte\.gz is truncated or damaged"):
        load_dataset("mnist", tmp_path / "data")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def _served(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_files_are_downloaded_once_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRINKBENCH_CACHE", str(tmp_path / "cache"))
    made = write(tmp_path / "server", ".gz")
    digests = {
        path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "server").iterdir()
    }
    with _served(tmp_path / "server") as address:
        original = replace(ORIGINALS["mnist"], address=address, sha256=digests)
        monkeypatch.setitem(module.ORIGINALS, "mnist", original)
        dataset = load_dataset("mnist")
    assert dataset.test.labels.tolist() == made["test"][1].tolist()
    assert load_dataset("mnist").revision == dataset.revision  # the server is gone


def test_a_download_with_a_wrong_checksum_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRINKBENCH_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "server", ".gz")
    (tmp_path / "server" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with _served(tmp_path / "server") as address:
        monkeypatch.setitem(module.ORIGINALS, "mnist", replace(ORIGINALS["mnist"], address=address))
        with pytest.raises(ShrinkbenchError, match=r"train-images-idx3-ubyte\.gz.* has SHA-256"):
            load_dataset("mnist")
    assert not (tmp_path / "cache" / "downloads" / "mnist" / "train-images-idx3-ubyte.gz").exists()
