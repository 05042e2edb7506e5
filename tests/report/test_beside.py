"""Tasks of the report in processes of their own: all done, failures told here, nothing left running."""

import os
import subprocess
import sys
import threading
from functools import partial

import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.beside import drawing_beside

PROGRAM = """
import multiprocessing, os, sys
from functools import partial
from pathlib import Path
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.beside import drawing_beside

folder = Path(sys.argv[1])

def note(name):
    (folder / name).write_text(str(os.getpid()))

def fail(name):
    with (folder / name).open("a") as file:
        file.write(f"{os.getpid()} ")
    raise ShrinkbenchError("no room to draw")

with drawing_beside() as draw:
    for name in ("a", "b"):
        draw(partial(note, name))
assert "matplotlib" not in sys.modules

try:
    with drawing_beside() as draw:
        draw(partial(fail, "failed"))
        draw(partial(note, "c"))
except ShrinkbenchError as error:
    print(error)

try:
    with drawing_beside() as draw:
        raise KeyError("before anything was drawn")
except KeyError:
    pass
try:
    with drawing_beside() as draw:
        draw(partial(note, "d"))
        raise KeyError("while it was drawn")
except KeyError:
    print((folder / "d").exists())
with drawing_beside() as draw:
    (studio,) = multiprocessing.active_children()
    studio.kill()
    studio.join()
    draw(partial(note, "e"))
assert not multiprocessing.active_children()
print(os.getpid())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_tasks_are_done_in_processes_of_their_own_and_fail_here(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path], check=True, capture_output=True, text=True, timeout=120
    )
    error, finished, parent = done.stdout.split("\n")[:3]
    assert error == "no room to draw"
    assert finished == "True"  # what was begun is finished before the error goes on
    processes = [(tmp_path / name).read_text() for name in "abcd"]
    assert len({*processes, parent}) == 5
    assert (tmp_path / "e").read_text() == parent  # the process that draws was killed
    tried = (tmp_path / "failed").read_text().split()
    assert len(tried) == 2
    assert tried[0] != parent == tried[1]


def test_where_threads_run_tasks_are_done_here(tmp_path):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    ids: list[int] = []
    try:
        with drawing_beside() as draw:
            draw(lambda: ids.append(os.getpid()))  # nothing to pickle
            assert not ids
    finally:
        stop.set()
        thread.join()
    assert ids == [os.getpid()]


def test_what_fails_here_fails_as_itself():
    def fail(what):
        raise ShrinkbenchError(what)

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(ShrinkbenchError, match="no room"), drawing_beside() as draw:
            draw(partial(fail, "no room"))
    finally:
        stop.set()
        thread.join()
