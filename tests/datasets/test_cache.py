"""The cache: filled once, whole or not at all; archives unpacked; digests of large files remembered."""

import hashlib
import io
import os
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from shrinkbench.datasets import revision
from shrinkbench.datasets.cache import Download, cached_folder
from shrinkbench.errors import ShrinkbenchError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRINKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_many_who_want_a_folder_wait_for_the_one_that_fills_it():
    filled = []
    start = threading.Barrier(8)

    def want(_):
        start.wait()
        return cached_folder("made/once", fill)

    def fill(folder):
        filled.append(folder)
        time.sleep(0.1)
        (folder / "a").write_text("whole")

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(want, range(8)))
    assert len(filled) == 1
    assert {folder.joinpath("a").read_text() for folder in folders} == {"whole"}


@pytest.mark.parametrize("error", [ShrinkbenchError, KeyboardInterrupt])
def test_an_interrupted_filling_leaves_nothing(own_cache, error):
    def fill(folder):
        (folder / "a").write_text("half")
        raise error("stop")

    with pytest.raises(error):
        cached_folder("made", fill)
    assert [path for path in own_cache.rglob("*") if path.suffix != ".lock"] == []
    assert cached_folder("made", lambda folder: None).is_dir()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_archives_are_unpacked(own_cache, kind):
    path = own_cache / "downloads" / "made" / f"made.{kind}"
    path.parent.mkdir(parents=True)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as zipped:
            zipped.writestr("inside/a.txt", "content")
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tarred:
            member = tarfile.TarInfo("inside/a.txt")
            member.size = 7
            tarred.addfile(member, io.BytesIO(b"content"))
    download = Download(f"http://127.0.0.1:9/made.{kind}", hashlib.sha256(path.read_bytes()).hexdigest())
    folder = download.unpacked("made")
    assert (folder / "inside" / "a.txt").read_text() == "content"
    path.unlink()
    assert download.unpacked("made") == folder  # neither fetched nor unpacked again


def test_digests_of_large_files_follow_a_change(tmp_path, monkeypatch):
    monkeypatch.setattr(revision, "LARGE_FILE", 3)
    path = tmp_path / "large"
    digests = []
    for second, content in enumerate((b"four", b"five", b"four")):
        path.write_bytes(content)
        os.utime(path, (second, second))
        digests += [revision.file_digest(path), revision.file_digest(path)]
    expected = [hashlib.sha256(content).hexdigest() for content in (b"four", b"five", b"four")]
    assert digests == [digest for digest in expected for _ in range(2)]


def test_a_digest_that_is_remembered_is_not_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(revision, "LARGE_FILE", 3)
    path = tmp_path / "large"
    path.write_bytes(b"content")
    first = revision.file_digest(path)
    monkeypatch.setattr(revision, "sha256_of", lambda path: pytest.fail("the file was read again"))
    assert revision.file_digest(path) == first
