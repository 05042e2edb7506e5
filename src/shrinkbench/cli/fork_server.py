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


def begin_fork_server(device: str) -> Literal["spawn", "forkserver"]:
    """Start it where it is of use, and say how workers are to be started.

    A process that may use a GPU is spawned: what a driver keeps does not survive a fork. Only Linux ends a
    process with its parent, which server and workers rely on.
    """
    if sys.platform != "linux" or (device != "cpu" and _may_have_gpu()):
        return "spawn"
    multiprocessing.forkserver.set_forkserver_preload(["shrinkbench.cli.forked"])
    try:
        with head_alone_hears(signal.SIGTERM), importing_nothing_from_here():
            multiprocessing.forkserver.ensure_running()
    except OSError:  # its socket has no place: a full disk, a path of more than 107 bytes
        return "spawn"
    return "forkserver"


def _may_have_gpu() -> bool:
    """Whether the system has a device of a kind that torch computes on; asked before torch is there to tell."""
    return Path("/dev/kfd").exists() or any(Path("/dev").glob("nvidia[0-9]*"))
