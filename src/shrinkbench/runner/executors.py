"""Where tasks run: in this process, or in a pool of processes that stay alive."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from shrinkbench.errors import ShrinkbenchError

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


class Executor:
    """Maps a function over tasks, in order of completion.

    With one worker, tasks run here. With more, each worker is a process of its own with its share of the
    threads; ``prepare`` runs once in each (imports, plug-ins).
    """

    def __init__(self, workers: int, prepare: Callable[[], None] | None = None) -> None:
        if workers < 1:
            raise ShrinkbenchError(f"--workers {workers} is not a number of at least 1")
        self._workers = workers
        self._prepare = prepare
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[Task], Outcome], tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield outcomes as they come in."""
        if self._workers == 1:
            for task in tasks:
                yield function(task)
            return
        pool = self._started()
        futures = [pool.submit(function, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise ShrinkbenchError(
                "a worker process died (out of memory, or killed); finished runs are stored: give the same "
                "command again, with fewer --workers if memory was short"
            ) from None

    def close(self) -> None:
        """Stop at once: tasks that are not done are given up, their checkpoints stay."""
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(timeout=10)
        self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            threads = max(1, _available_cores() // self._workers)
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(threads, os.getpid(), self._prepare),
            )
        return self._pool


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker(threads: int, parent: int, prepare: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    if prepare is not None:
        prepare()


def _follow(parent: int) -> None:
    """End this process when its parent is gone, so that a killed sweep leaves nothing running."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
