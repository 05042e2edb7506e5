"""What a process has beside the settings of torch and numpy: its folder, and the mode of its new files.

The environment and the search path of imports stay as a task leaves them: files that are loaded in one task set
them for what they do in the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_STATUS = Path("/proc/self/status")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # as malloc.h of the GNU C library numbers them
_KEPT = 1 << 30  # bytes


@cache
def keep_freed_memory() -> None:
    """Let this process keep the memory of what it frees, up to 1 GiB, for what it computes next.

    Activations come and go with every step. The C library gives blocks of their size back to the system, which
    zeroes their pages anew each time: 5,000 to 10,000 page faults, 6 to 13 % of a step of ResNet-20 on a
    processor. No number depends on it. Other C libraries are left as they are.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_TRIM_THRESHOLD, _KEPT)
            mallopt(_M_MMAP_THRESHOLD, _KEPT)


@contextlib.contextmanager
def process_put_back() -> Iterator[list[str]]:
    """Whatever somebody's code changes of it inside is changed back; the list tells of the mode afterwards."""
    here = os.open(".", os.O_RDONLY) if os.chdir in os.supports_fd else None
    mask = _file_mask()
    changed: list[str] = []
    try:
        yield changed
    finally:
        if here is not None:
            with contextlib.suppress(OSError):  # closed inside; our own paths are from the root
                os.chdir(here)
                os.close(here)
        after = _file_mask()
        if mask is not None and after is not None and after != mask:
            changed.append(f"umask ({mask:03o} -> {after:03o})")
            os.umask(mask)


def _file_mask() -> int | None:
    """The mask of new files' modes where it can be read; the system call to ask sets it, for all threads."""
    with contextlib.suppress(OSError, ValueError):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return None
