"""What ended a run: a finding about the method, a failure of the machine, or somebody's wish."""

from __future__ import annotations

import asyncio
import errno
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Literal

import torch

from shrinkbench.errors import InputError, ShrinkbenchError, UnwritableError, text_of
from shrinkbench.files import NotPlainError
from shrinkbench.results.failures import MACHINE_WORDS

Cause = Literal["scientific", "environment", "interruption"]

_OF_THE_MACHINE = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ENODEV", "ENXIO"),  # disk
        *("ENOTDIR", "EISDIR", "ELOOP", "EEXIST"),  # what lies in the place of a file or folder
        *("EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "ENOLCK", "EBUSY"),  # limits
        *(
            "ESTALE",
            "ETIMEDOUT",
            "ENOTCONN",
            "ECONNRESET",
            "EHOSTDOWN",
            "ENETDOWN",
            "EREMOTEIO",
        ),  # network disks
    )
    if hasattr(errno, name)
)
_signalled = threading.Event()
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as Rust says it, in which safetensors is written


def doubt_failures() -> None:
    """This process was sent a signal to end, and so perhaps was what somebody's code has started from it.

    Schedulers and terminals send theirs to all at once; what fails from now on may have failed by that.
    """
    _signalled.set()


@contextmanager
def doubting() -> Iterator[Callable[[], None]]:
    """A command that may be told to end gets the function to say so; after it, failures are what they are."""
    try:
        yield doubt_failures
    finally:
        _signalled.clear()


def failures_are_doubted() -> bool:
    """Whether this process was sent a signal to end."""
    return _signalled.is_set()


def classify(error: BaseException) -> Cause:
    """Whether ``error`` says something about the run, or about where it ran.

    ``scientific``: the run as it is specified cannot be done (a method raises, training diverges, a target is
    out of reach); it is stored as failed. ``environment``: disk, memory, device or worker process failed, a
    package is not there, or an input is not what was planned with; the run is stored as nothing, and done by
    the same command again.
    ``interruption``: somebody stopped it, or wants this process to end, which may be why it failed.
    """
    if _signalled.is_set():
        return "interruption"
    for cause in _causes(error):
        if isinstance(cause, (KeyboardInterrupt, GeneratorExit, CancelledError, asyncio.CancelledError)):
            return "interruption"
        if isinstance(cause, (InputError, UnwritableError)) or _is_of_the_machine(cause):
            return "environment"
    return "scientific"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from; our own sentences are translations of what they arose in."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (cause.__context__ if isinstance(cause, ShrinkbenchError) else None)


def _is_of_the_machine(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, BrokenProcessPool, NotPlainError, torch.OutOfMemoryError, ImportError)):
        return True
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_of_the_machine, error.exceptions))
    if isinstance(error, OSError):
        return error.errno in _OF_THE_MACHINE
    if isinstance(error, ShrinkbenchError):
        return False
    text = text_of(error)[:2000]
    told = _OS_ERROR.search(text)
    if told is not None:
        return int(told[1]) in _OF_THE_MACHINE
    return isinstance(error, (RuntimeError, AssertionError)) and MACHINE_WORDS.search(text) is not None
