"""Processes of ours: how they begin, and that they end with the one that began them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker

_PR_SET_PDEATHSIG = 1
_SAFE_PATH = "PYTHONSAFEPATH"
_SENT_TO_ALL = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def end_with_parent() -> None:
    """End this process when the one that began it is gone: by the kernel where it can, else by looking."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    begun_by, head = os.getppid(), multiprocessing.parent_process()
    alive = head is not None and head.is_alive()  # asked once: somebody's code may close what tells it
    while alive and os.getppid() == begun_by:
        time.sleep(0.5)
    os._exit(1)


@contextlib.contextmanager
def born_apart() -> Iterator[None]:
    """Processes that start here import nothing from the folder they are in, and get no signal sent to all.

    So it is from their first moment on; terminals and schedulers send to all. They let in what they can handle
    (``let_signals_in``), and set the environment that they are to have.
    """
    safe, before = os.environ.get(_SAFE_PATH), None
    os.environ[_SAFE_PATH] = "1"
    try:
        if hasattr(signal, "pthread_sigmask"):
            resource_tracker.ensure_running()  # which lets signals in again once it has started
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SENT_TO_ALL)
        yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if safe is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = safe


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


def let_signals_in() -> None:
    """Undo what this process was born with: its handlers are there."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SENT_TO_ALL)
