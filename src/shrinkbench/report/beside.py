"""Drawing in processes of their own, beside the rest of a report."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

Drawing = Callable[[], object]


@contextmanager
def collection_paused() -> Iterator[None]:
    """No search for cycles: a report is freed by its counts, and looking takes a third of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def drawing_beside() -> Iterator[Callable[[Drawing], None]]:
    """A function that has tasks done in processes of their own, all of them by the end of the block.

    They are forked from one process that loads matplotlib while the block does other things; tasks have to be
    picklable. Where there is no safe way to fork, they are done here, at the end. What fails there is repeated
    here, so that it fails with its own error.
    """
    tasks: list[Drawing] = []
    if sys.platform != "linux" or threading.active_count() > 1 or multiprocessing.current_process().daemon:
        yield tasks.append
        for task in tasks:
            task()
        return
    context = multiprocessing.get_context("fork")
    requests, sender = context.Pipe(duplex=False)
    receiver, answers = context.Pipe(duplex=False)
    studio = context.Process(target=_serve, args=(requests, sender, answers))
    studio.start()
    requests.close()
    answers.close()

    def draw(task: Drawing) -> None:
        tasks.append(task)
        with suppress(OSError):  # it was killed; what it leaves undone is done here
            sender.send(task)

    try:
        yield draw
    except BaseException:
        if not tasks:
            studio.terminate()
        raise
    finally:
        sender.close()
        studio.join()
    try:
        failed: list[int] = receiver.recv()
    except EOFError:
        failed = list(range(len(tasks)))
    for index in failed:
        tasks[index]()


def _serve(requests: Connection, sender: Connection, answers: Connection) -> None:
    """Start a process for each request, and answer which of them failed."""
    sender.close()  # the parent's end: as long as it is open here too, the requests never end
    from shrinkbench.plotting import load_backends

    load_backends()
    context = multiprocessing.get_context("fork")
    processes = []
    while True:
        try:
            task = requests.recv()
        except EOFError:
            break
        processes.append(context.Process(target=_silently, args=(task,)))
        processes[-1].start()
    for process in processes:
        process.join()
    answers.send([index for index, process in enumerate(processes) if process.exitcode])


def _silently(task: Drawing) -> None:
    """Leave it to the parent to tell what failed."""
    try:
        task()
    except BaseException:
        raise SystemExit(1) from None
