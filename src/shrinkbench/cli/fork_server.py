"""The process that a sweep's workers are forked from, which reads the heavy modules while this one does.

A worker that is spawned reads torch for itself once the sweep has been checked, and the compiler's modules with
its first step: 5 s of a processor. Forked from a process that has read them, it begins at once.
"""

from __future__ import annotations

import multiprocessing.forkserver
import signal
import sys
from pathlib import Path
from typing import Literal

from shrinkbench.processes import head_alone_hears, importing_nothing_from_here

_FEW_FILES = 64


def begin_fork_server(device: str) -> Literal["spawn", "forkserver"]:
    """Start it where it is of use, and say how workers are to be started.

    A process that may use a GPU is spawned: what a driver keeps does not survive a fork. Only Linux ends a
    process with its parent, which server and workers rely on.
    """
    if sys.platform != "linux" or (device != "cpu" and _may_have_gpu()) or _few_files_may_be_open():
        return "spawn"
    multiprocessing.forkserver.set_forkserver_preload(["shrinkbench.cli.forked"])
    try:
        with head_alone_hears(signal.SIGTERM), importing_nothing_from_here():
            multiprocessing.forkserver.ensure_running()
    except OSError:  # its socket has no place: a full disk, a path of more than 107 bytes
        return "spawn"
    return "forkserver"


def _few_files_may_be_open() -> bool:
    """Whether the server might end in a traceback of its own: it is handed five open files for each worker."""
    import resource  # which other systems have not

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 <= most < _FEW_FILES


def _may_have_gpu() -> bool:
    """Whether the system has a device of a kind that torch computes on; asked before torch is there to tell."""
    return Path("/dev/kfd").exists() or any(Path("/dev").glob("nvidia[0-9]*"))
