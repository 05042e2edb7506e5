"""Files appear whole or not at all, in the place that was named, with the mode that the umask gives."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import check_target, is_file, read_file, sha256_of, write_atomically
from shrinkbench.links import check_links
from shrinkbench.pruning import Masks
from shrinkbench.training.checkpoint import save_checkpoint

WRITERS = {
    "bytes": lambda path: write_atomically(path, b"new"),
    "function": lambda path: write_atomically(path, lambda place: place.write_text("new")),
    "not durable": lambda path: write_atomically(path, b"new", durable=False),
    "masks": lambda path: Masks({"w": torch.ones(3, dtype=torch.bool)}).save(path),
    "checkpoint": lambda path: save_checkpoint(path, {"w": torch.ones(3)}),
}
each_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@each_writer
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_mode_follows_the_umask(tmp_path, write, umask, mode):
    before = os.umask(umask)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@each_writer
@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, write, step):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    if step == "fsync" and write is WRITERS["not durable"]:
        return  # it does not wait for the disk
    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), full)
    with pytest.raises(ShrinkbenchError, match=r"cannot write .*No space left on device"):
        write(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_function_that_fails_leaves_nothing(tmp_path):
    def halfway(place):
        place.write_bytes(b"half")
        raise KeyError("stopped")

    with pytest.raises(KeyError):
        write_atomically(tmp_path / "file", halfway)
    assert list(tmp_path.iterdir()) == []


@each_writer
def test_what_is_not_a_file_is_refused_and_stays(tmp_path, write):
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("folder", "socket"):
            with pytest.raises(ShrinkbenchError, match="not a file that can be replaced"):
                write(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "socket"]


@each_writer
def test_a_pipe_gets_what_a_file_would(tmp_path, write):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ShrinkbenchError, match=r"cannot write .*pipe"):  # nobody reads
        write(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe)
    piped = os.read(reader, 1 << 16)
    os.close(reader)
    write(tmp_path / "file")
    assert piped[:2] == (tmp_path / "file").read_bytes()[:2]
    assert pipe.is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "pipe"]


def test_a_device_is_written_to_and_stays(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device needs the right to")
    with contextlib.suppress(ShrinkbenchError):  # devices do nothing on some disks
        write_atomically(device, b"gone")
    assert device.is_char_device()


def test_an_open_output_is_written_to_whatever_it_is(tmp_path):
    script = (
        "from pathlib import Path; from shrinkbench.files import write_atomically\n"
        "print('before', flush=True); write_atomically(Path('/dev/stdout'), b'new\\n'); print('after')"
    )
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", script], stdout=out, check=True)
    assert (tmp_path / "out").read_text().splitlines() == ["before", "new", "after"]


def test_what_is_no_plain_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"123")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path, tmp_path / "absent", tmp_path / "large"):
        with pytest.raises(OSError):  # noqa: PT011
            read_file(path, most=2)
    assert read_file(tmp_path / "large", most=3) == b"123"
    with pytest.raises(ShrinkbenchError, match="cannot read"):
        sha256_of(Path("/dev/zero"))


def test_a_link_that_leads_out_is_not_written_through(tmp_path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    (theirs / "report").mkdir(parents=True)
    check_links(theirs / "report")
    (theirs / "report" / "inside").symlink_to("files")
    check_links(theirs / "report", within=theirs)
    (theirs / "report" / "figures").symlink_to(mine)
    with pytest.raises(ShrinkbenchError, match=r"tside|nothing is written through"):
        check_links(theirs / "report")
    (theirs / "other").symlink_to(mine)
    with pytest.raises(ShrinkbenchError, match=r"tside|nothing is written through"):
        check_links(theirs / "other", within=theirs)
    check_links(theirs / "other")  # the reader's own link


@pytest.mark.parametrize("name", ["", ".", "a" * 300, "a/" + "b" * 300, "\0"])
def test_places_without_a_possible_name_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ShrinkbenchError):
        check_target(Path(name))
    assert not is_file(Path(name))
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    for content in (b"first", b"second"):
        write_atomically(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "file").read_bytes() == content
    assert [p.name for p in (tmp_path / "real").iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ShrinkbenchError, match="cannot write"):
        write_atomically(tmp_path / "file" / "below", b"new")


def test_a_place_below_a_device_is_told_before_the_work():
    with pytest.raises(ShrinkbenchError, match="cannot write /dev/null/x: Not a directory"):
        check_target(Path("/dev/null/x"))


def test_file_and_name_reach_the_disk(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle)), real(handle)))
    write_atomically(tmp_path / "file", b"new")
    assert [stat.S_ISDIR(s.st_mode) for s in synced] == [False, True]
    assert synced[0].st_ino == (tmp_path / "file").stat().st_ino
    assert synced[1].st_ino == tmp_path.stat().st_ino


def test_a_file_that_a_person_has_protected_is_not_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    path.chmod(0o444)
    with pytest.raises(ShrinkbenchError, match="protected from writing"):
        check_target(path)
    write_atomically(path, b"new")  # of what is not named by a person, such as a checkpoint under an odd umask
    assert path.read_bytes() == b"new"
