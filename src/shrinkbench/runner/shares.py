"""How the processes of one machine share its cores and GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from shrinkbench.errors import ShrinkbenchError

MOST_WORKERS = 1024
"""Processes that one machine is asked for at most."""


@dataclass(frozen=True)
class Share:
    """What one process may use: torch threads and, as CUDA_VISIBLE_DEVICES names it, one GPU or none."""

    threads: int
    gpu: str | None = None


def assign_shares(workers: int, *, cores: int, gpus: Sequence[str] = ()) -> tuple[Share, ...]:
    """Equal shares of the cores, and the GPUs in turn.

    >>> assign_shares(3, cores=8, gpus=("0", "1"))
    (Share(threads=2, gpu='0'), Share(threads=2, gpu='1'), Share(threads=2, gpu='0'))
    >>> assign_shares(4, cores=2)[3]
    Share(threads=1, gpu=None)
    """
    threads = max(1, cores // workers)
    return tuple(Share(threads, gpus[i % len(gpus)] if gpus else None) for i in range(workers))


def visible_gpus(count: int, *, visible: str | None = None, index: int | None = None) -> tuple[str, ...]:
    """Names of ``count`` GPUs for CUDA_VISIBLE_DEVICES, which holds ``visible`` now; only that at ``index``.

    >>> visible_gpus(2, visible="3,5"), visible_gpus(2, index=1)
    (('3', '5'), ('1',))
    """
    names = [name.strip() for name in visible.split(",") if name.strip()] if visible else []
    gpus = tuple(names[:count]) if len(names) >= count else tuple(str(i) for i in range(count))
    if index is None:
        return gpus
    if index >= len(gpus):
        raise ShrinkbenchError(
            f"--device cuda:{index}: this machine shows {len(gpus)} CUDA devices, from cuda:0"
        )
    return (gpus[index],)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
