"""Processes that another one, their head, has started: they leave its signals to it, and end with it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

_LOOK_AGAIN = 0.5  # seconds
_PR_SET_PDEATHSIG = 1
_heard_alone: dict[int, Any] = {}
_kept_out = threading.local()  # what was so before a fork, of the thread that forks
_SAFE_PATH, _STARTED_BY = "PYTHONSAFEPATH", "SHRINKBENCH_STARTED_BY"
_BEFORE = "SHRINKBENCH_SAFE_PATH"  # what the first was


@contextlib.contextmanager
def head_alone_hears(*further: signal.Signals) -> Iterator[None]:
    """Processes that start here are not reached by what is sent to all of a terminal's or a job's.

    That is Ctrl-C, the closing of a terminal and SIGUSR1, and ``further`` signals. They are blocked from the
    first moment of a process on, and in those that it starts.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    with importing_nothing_from_here():
        resource_tracker.ensure_running()  # which lets SIGINT and SIGTERM in once it has started
    numbers = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, *further}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear_alone(*numbers: int) -> None:
    """What hears these signals now is this process's alone: a copy that somebody's code forks ends by them.

    It would ask the run to stop, or a scheduler to queue the job again, as this one does, and go on itself.
    """
    _heard_alone.update({number: signal.getsignal(number) for number in numbers})
    _forget_handlers_in_copies()


@cache
def _forget_handlers_in_copies() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_keep_out, after_in_parent=_let_in, after_in_child=_forget_handlers)


def _keep_out() -> None:
    """Python loses what reaches a copy before it has forgotten: it is to wait till then."""
    _kept_out.before = signal.pthread_sigmask(signal.SIG_BLOCK, _heard_alone)


def _let_in() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _kept_out.before)


def _forget_handlers() -> None:
    for number, handler in _heard_alone.items():
        if signal.getsignal(number) == handler:  # and nobody else's by now
            signal.signal(number, signal.SIG_DFL)
    _heard_alone.clear()
    _let_in()


@contextlib.contextmanager
def importing_nothing_from_here() -> Iterator[None]:
    """Python starts without the folder that it is started in among those that it imports from.

    It is told who has started it. What starts here is to set the environment that it goes on with, or to
    :func:`import_as_before`.
    """
    ours = {_SAFE_PATH: "1", _STARTED_BY: str(os.getpid()), _BEFORE: os.environ.get(_SAFE_PATH, "")}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def import_as_before() -> None:
    """What this process starts imports from its own folder, unless that was not so before we started it."""
    before = os.environ.pop(_BEFORE, None)
    os.environ.pop(_STARTED_BY, None)
    if before == "":
        os.environ.pop(_SAFE_PATH, None)


@contextlib.contextmanager
def never_collected() -> Iterator[None]:
    """What is imported here is not looked through for garbage, neither now nor later.

    It takes a fifth less to read torch so, and processes that are forked share its memory.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


@contextlib.contextmanager
def signals_put_back() -> Iterator[None]:
    """A library that starts here finds signals free, and leaves them as they were: heard by who heard them."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say who hears them
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Alive:
    """A process of this machine, which is told from a later one of its number by when it began."""

    pid: int
    born: str

    @classmethod
    def here(cls) -> Alive:
        """This process."""
        return cls(os.getpid(), birth_of(os.getpid()))

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, as far as this system tells."""
        return birth_of(self.pid) != self.born


def birth_of(pid: int) -> str:
    """When a process of this machine began; empty if it is gone, or where the system does not tell."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = told.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]  # a zombie works no more


def end_with(parent: int, head: Alive | None = None) -> None:
    """End this process when ``parent``, which has started it, is gone, or ``head``, which has started that.

    The kernel does so where it can, for the parent; else by looking.
    """
    _killed_with(parent)
    threading.Thread(target=_follow, args=(parent, head), daemon=True).start()


def killed_with_starter() -> None:
    """Have the kernel end this process with the one that has started it; at once if that is gone already.

    Nothing happens to a process that nobody of ours has started, such as one that looks at all modules.
    """
    if starter := os.environ.get(_STARTED_BY):
        _killed_with(int(starter))


def _killed_with(parent: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _follow(parent: int, head: Alive | None) -> None:
    while os.getppid() == parent and not (head and head.is_gone):
        time.sleep(_LOOK_AGAIN)
    os._exit(1)
