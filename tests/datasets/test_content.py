"""What was hashed is what is used: files that changed are hashed again, and refused where they are read."""

import os
import pickle

import numpy as np
import pytest
import torch
from made_images import noise, png, write_class_folders
from PIL import Image

from shrinkbench.datasets import content, load_dataset
from shrinkbench.datasets.cache import cached_arrays
from shrinkbench.datasets.content import contents_of
from shrinkbench.datasets.encoded import FileImages, decode
from shrinkbench.datasets.folders import list_images
from shrinkbench.errors import ShrinkbenchError

OLD = 10**18  # 2001, in nanoseconds: long before any test


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRINKBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def settled(monkeypatch):
    """Files count as old enough for their state to be relied on."""
    monkeypatch.setattr(content, "TICK", -OLD)


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are hashed, in no particular order."""
    names, real = [], content.hash_file
    monkeypatch.setattr(content, "hash_file", lambda path: (names.append(path.name), real(path))[1])
    return names


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "data" / name / f"{number}.png").write_bytes(png(noise((ord(name), number))))
    return tmp_path / "data"


def flip_last_byte(path, *, keep_times=False):
    """Change one byte in place: the size stays, and so does the time of change where it is set back."""
    before = path.stat()
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    with path.open("rb+") as file:
        file.write(changed)
    if keep_times:
        while path.stat().st_ctime_ns == before.st_ctime_ns:  # one tick of the disk's clock
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(OLD, OLD))


@pytest.mark.usefixtures("settled")
def test_a_second_start_hashes_only_what_changed(folder, hashed):
    first = list_images(folder, ("a", "b")).digest
    assert len(hashed) == 6
    hashed.clear()
    assert list_images(folder, ("a", "b")).digest == first
    assert hashed == []
    flip_last_byte(folder / "b" / "1.png")
    assert list_images(folder, ("a", "b")).digest != first
    assert hashed == ["1.png"]


def test_a_file_changed_this_moment_is_not_relied_on(folder, hashed):
    first = list_images(folder, ("a", "b")).digest
    hashed.clear()
    assert list_images(folder, ("a", "b")).digest == first
    assert len(hashed) == 6


@pytest.mark.parametrize("keep_times", [False, True])
@pytest.mark.usefixtures("settled")
def test_a_byte_that_changes_is_seen(folder, keep_times):
    images = list_images(folder, ("a", "b"))
    before = images.digest
    row = images.names.index("b/2.png")
    images.read(row)
    flip_last_byte(folder / "b" / "2.png", keep_times=keep_times)
    with pytest.raises(ShrinkbenchError, match=r"b/2\.png has changed since it was hashed.*put the old"):
        images.read(row)
    with pytest.raises(ShrinkbenchError, match="has changed"):
        pickle.loads(pickle.dumps(images)).read(row)  # as a worker has it
    assert list_images(folder, ("a", "b")).digest != before


@pytest.mark.usefixtures("settled")
def test_the_same_bytes_in_another_file_are_the_same_content(folder):
    images = list_images(folder, ("a", "b"))
    before, path = images.digest, folder / "a" / "0.png"
    content_before = path.read_bytes()
    path.unlink()
    path.write_bytes(content_before)
    assert images.read(0) == content_before
    assert list_images(folder, ("a", "b")).digest == before


def test_names_and_labels_are_content(folder):
    def digest(names, labels):
        return FileImages(root=folder, names=names, labels=torch.tensor(labels)).digest

    names = ("a/0.png", "a/1.png")
    (folder / "a" / "9.png").write_bytes((folder / "a" / "1.png").read_bytes())
    found = {
        digest(names, [0, 1]),
        digest(names, [0, 0]),
        digest(names[::-1], [1, 0]),
        digest((names[0], "a/9.png"), [0, 1]),
    }
    assert len(found) == 4


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"0.png": 1}', b'{"0.png": [[1, 2, 3, 4], "short"]}'])
@pytest.mark.usefixtures("settled")
def test_a_damaged_memory_is_made_anew(folder, tmp_path, damage):
    before = list_images(folder, ("a", "b")).digest
    for memory in (tmp_path / "cache" / "digests").iterdir():
        memory.write_bytes(damage)
    assert list_images(folder, ("a", "b")).digest == before


def test_a_cache_that_cannot_be_written_only_costs_time(folder, tmp_path, monkeypatch):
    before = list_images(folder, ("a", "b")).digest
    (tmp_path / "blocked").write_text("no folder")
    monkeypatch.setenv("SHRINKBENCH_CACHE", str(tmp_path / "blocked"))
    assert list_images(folder, ("a", "b")).digest == before


def test_checking_a_file_reads_it_where_its_state_is_another(folder):
    contents = contents_of(folder / "a", ["0.png"])
    contents.check(0)
    flip_last_byte(folder / "a" / "0.png")
    with pytest.raises(ShrinkbenchError, match="has changed since it was hashed"):
        contents.check(0)
    (folder / "a" / "0.png").unlink()
    with pytest.raises(ShrinkbenchError, match="cannot read the file"):
        contents.check(0)


@pytest.mark.parametrize("side", [16, 80])
def test_the_revision_of_a_folder_is_of_its_bytes(tmp_path, side):
    """At 16 pixels the images live in memory, at 80 they stream."""
    revisions = []
    for copy in range(2):
        root = tmp_path / str(copy)
        for part in ("train", "val"):
            write_class_folders(root / part, ("a", "b"), 10, height=side, width=side)
        if copy:
            image = root / "val" / "b" / "009.png"
            pixels, size = noise((1, 9), height=side, width=side), image.stat().st_size
            pixels[0, 0, 0] ^= 1
            image.write_bytes(png(pixels))
            assert image.stat().st_size == size  # noise does not compress
        revisions.append(load_dataset("imagefolder", root).revision)
    assert revisions[0] != revisions[1]


@pytest.mark.usefixtures("settled")
def test_an_image_replaced_while_it_streams_is_refused(tmp_path):
    for part in ("train", "val"):
        write_class_folders(tmp_path / "data" / part, ("a", "b"), 10, height=80, width=80)
    dataset = load_dataset("imagefolder", tmp_path / "data")

    def read():
        return list(dataset.test.batches(4, normalisation=dataset.card.normalisation))

    read()
    image = tmp_path / "data" / "val" / "a" / "003.png"
    image.unlink()
    image.write_bytes(png(noise(99, height=80, width=80)))
    with pytest.raises(ShrinkbenchError, match=r"003\.png has changed since it was hashed"):
        read()


def fill(folder):
    np.save(folder / "pixels.npy", np.arange(10))


@pytest.mark.parametrize("damage", ["byte", "cut", "gone", "unhashed", "absent"])
@pytest.mark.usefixtures("settled")
def test_arrays_of_the_cache_are_compared_with_what_was_put_there(damage):
    folder = cached_arrays("arrays/made", fill)
    assert cached_arrays("arrays/made", fill) == folder
    path = folder / "pixels.npy"
    if damage == "byte":
        flip_last_byte(path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "unhashed":
        (folder / "sha256.json").write_text("{}")
    elif damage == "absent":
        path.unlink()
    else:
        (folder / "sha256.json").unlink()
    with pytest.raises(ShrinkbenchError, match="is not what was put into the cache; remove its folder"):
        cached_arrays("arrays/made", fill)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_images_of_32_bits_are_refused(tmp_path, dtype):
    Image.fromarray(np.full((8, 8), 300, dtype=dtype)).save(tmp_path / "deep.tiff")
    images = FileImages(root=tmp_path, names=("deep.tiff",), labels=torch.tensor([0]))
    for channels in (1, 3):
        with pytest.raises(ShrinkbenchError, match=r"deep\.tiff has 32 bits per pixel"):
            decode(images, 0, channels=channels)


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_grey_images_of_16_bits_keep_their_contrast(tmp_path, ending):
    values = np.array([[0, 257], [30_000, 65_535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{ending}")
    images = FileImages(root=tmp_path, names=(f"deep.{ending}",), labels=torch.tensor([0]))
    for channels in (1, 3):
        pixels = np.asarray(decode(images, 0, channels=channels)).reshape(2, 2, channels)
        assert (pixels == np.array([[0, 1], [117, 255]])[..., None]).all()
