"""Processes that a head has started: its signals do not reach them, and they end with it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from shrinkbench.processes import (
    Alive,
    birth_of,
    head_alone_hears,
    importing_nothing_from_here,
    signals_put_back,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
MIDDLE = """
import subprocess, sys
child = "import os, sys, time; from shrinkbench.processes import Alive, end_with; "
child += "end_with(os.getppid(), Alive(int(sys.argv[1]), sys.argv[2])); "
child += "print(os.getpid(), flush=True); time.sleep(60)"
subprocess.run([sys.executable, "-c", child, *sys.argv[1:]])
"""


def has_ended(pid, seconds=10.0):
    until = time.monotonic() + seconds
    while birth_of(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not birth_of(pid)


def test_what_a_terminal_sends_to_all_reaches_the_head_alone():
    with head_alone_hears(signal.SIGTERM):
        apart = subprocess.Popen(SLEEPER)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        os.kill(apart.pid, number)
    time.sleep(0.3)
    assert apart.poll() is None
    apart.kill()
    assert apart.wait() == -signal.SIGKILL
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_copies_that_are_forked_end_by_what_this_process_alone_hears():
    code = """
import os, signal, time
from shrinkbench.processes import hear_alone
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(os.getpid()))
signal.signal(signal.SIGUSR1, lambda *_: heard.append(os.getpid()))
hear_alone(signal.SIGTERM)
copy = os.fork()
if not copy:
    signal.pause()  # what is heard ends it no more than the head
    os._exit(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
time.sleep(0.3)
os.kill(copy, NUMBER)
print(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), len(heard))
os.kill(os.getpid(), signal.SIGTERM)
print(len(heard))
"""
    for number, ended in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGUSR1, 1)):
        words = [sys.executable, "-c", code.replace("NUMBER", str(int(number)))]
        assert subprocess.check_output(words, text=True).split() == [str(int(ended)), "0", "1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_copy_that_is_told_to_end_at_once_ends_too():
    """Before it has forgotten the handlers: Python passes over what it has noted by then."""
    script = """
import os, signal, time
from shrinkbench.processes import hear_alone

signal.signal(signal.SIGTERM, lambda *_: print("heard"))
hear_alone(signal.SIGTERM)
for _ in range(50):
    copy = os.fork()
    if copy == 0:
        time.sleep(60)
        os._exit(0)
    os.kill(copy, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == -signal.SIGTERM
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


@pytest.mark.parametrize("before", [None, "1"])
def test_what_starts_without_its_own_folder_gets_the_environment_back(before, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONSAFEPATH", before)
    code = "import os, sys; from shrinkbench.processes import import_as_before; import_as_before(); "
    code += "print(sys.flags.safe_path, *(n for n in os.environ if 'SAFE' in n or 'STARTED' in n))"
    with importing_nothing_from_here():
        told = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert told.split() == ["True", *(["PYTHONSAFEPATH"] if before else [])]
    assert os.environ.get("PYTHONSAFEPATH") == before


def test_a_process_that_has_ended_is_gone_though_nobody_has_waited_for_it():
    process = subprocess.Popen(SLEEPER)
    alive = Alive(process.pid, birth_of(process.pid))
    assert not alive.is_gone
    assert Alive(process.pid, "another").is_gone
    process.kill()
    assert has_ended(process.pid)
    assert alive.is_gone
    process.wait()


@pytest.mark.parametrize("dies", ["head", "parent"])
def test_a_process_ends_with_its_head_and_with_the_one_between(dies):
    head = subprocess.Popen(SLEEPER)
    words = [sys.executable, "-c", MIDDLE, str(head.pid), birth_of(head.pid)]
    parent = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    try:
        assert birth_of(pid)
        (head if dies == "head" else parent).kill()
        assert has_ended(pid)
    finally:
        head.kill()
        parent.kill()
        head.wait()
        parent.communicate()


def test_a_library_leaves_signals_to_those_who_heard_them():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with signals_put_back():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
