"""Tasks in processes of this machine, each with its slice of the cores, or its GPU.

Processes stay alive from task to task. One that dies takes only its own task with it, and is replaced.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal

import torch

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.processes import Alive, end_with, head_alone_hears, hear_alone, importing_nothing_from_here
from shrinkbench.runner.executors.performing import perform, stop_after_this_epoch, told_to_stop
from shrinkbench.runner.executors.protocol import Ending, Setting, Task, check_time_limit, empty
from shrinkbench.runner.shares import MOST_WORKERS, Share, assign_shares, available_cores

StartMethod = Literal["spawn", "forkserver"]

_UNKNOWN = 255  # where nobody is left who could tell
_FORKED: tuple[type[BaseProcess], ...] = ()
if sys.platform != "win32":
    _FORKED = (multiprocessing.context.ForkServerProcess,)
_GRACE = 5.0  # seconds between the request to end and the kill


class LocalProcesses:
    """``workers`` processes, which share the cores, and ``gpus`` as CUDA_VISIBLE_DEVICES names them.

    ``method`` is how they are started: "forkserver" where there is one that has read what they need. A task may
    take ``time_limit`` seconds (``None``: any time). Raises ``ShrinkbenchError`` for numbers
    that are none.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        time_limit: float | None = None,
        gpus: Sequence[str] = (),
        method: StartMethod = "spawn",
    ) -> None:
        if workers < 1:
            raise ShrinkbenchError(f"--workers {workers} is not a number of at least 1")
        if workers > MOST_WORKERS:
            raise ShrinkbenchError(
                f"--workers {workers} is more than the {MOST_WORKERS} processes that one machine is asked for"
            )
        check_time_limit(time_limit)
        # One process computes as this one would: the order of sums follows from the number of threads.
        cores = torch.get_num_threads() if workers == 1 else available_cores()
        self._shares = assign_shares(workers, cores=cores, gpus=gpus)
        self._time_limit, self._method = time_limit, method
        self._queue: deque[Task] = deque()
        self._workers: dict[int, _Worker] = {}
        self._setting: Setting | None = None

    def start(self, setting: Setting, *, tasks: int) -> None:
        """Begin the processes that are busy with their imports until there is a task; forked ones have none."""
        self._setting = setting
        if self._method == "forkserver":
            return
        for place, share in enumerate(self._shares[:tasks]):
            self._workers[place] = _Worker.begin(setting, share, self._method)

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue the tasks, and hand out what idle processes can take."""
        self._queue.extend(tasks)
        self._hand_out()

    def completed(self, seconds: float) -> Sequence[tuple[Task, Ending]]:
        """Wait for messages and deaths; processes that are overdue are ended."""
        self._hand_out()
        return list(self._collect(seconds))

    def drain(self) -> Sequence[Task]:
        """Give back what no process has begun."""
        return empty(self._queue)

    def close(self, grace: float = 0) -> None:
        """Ask every process to stop after its epoch, and kill those that have not after ``grace`` seconds."""
        self._queue.clear()
        busy = [worker for worker in self._workers.values() if worker.task is not None and grace > 0]
        for worker in busy:
            worker.process.terminate()
        until = time.monotonic() + grace
        for worker in self._workers.values():
            worker.end(until - time.monotonic() if worker in busy else 0)
        self._workers.clear()

    def _hand_out(self) -> None:
        if self._setting is None:
            return
        for place, share in enumerate(self._shares):
            if not self._queue:
                return
            worker = self._workers.get(place)
            if worker is None or not (worker.task or worker.process.is_alive()):
                worker = self._workers[place] = _Worker.begin(self._setting, share, self._method)
            if worker.task is None:
                worker.give(self._queue.popleft())

    def _collect(self, seconds: float) -> Iterator[tuple[Task, Ending]]:
        busy = {place: worker for place, worker in self._workers.items() if worker.task is not None}
        if not busy:
            return
        wait([each for w in busy.values() for each in (w.connection, w.process.sentinel)], timeout=seconds)
        for place, worker in busy.items():
            task, ending = worker.task, worker.hear(self._time_limit)
            if ending is None or task is None:
                continue
            worker.task = None
            if not worker.process.is_alive() or worker.overdue is not None or ending.unfit:
                worker.end(0)
                del self._workers[place]
            yield task, ending


@dataclass
class _Worker:
    """One process, its pipe, and what it does now."""

    process: BaseProcess
    connection: Connection
    task: Task | None = None
    begun: float | None = None
    overdue: float | None = None  # when it was asked to end

    @classmethod
    def begin(cls, setting: Setting, share: Share, method: StartMethod) -> _Worker:
        try:
            here, there = multiprocessing.Pipe()
            process = _started(method, (there, setting, share, Alive.here(), dict(os.environ)))
        except (OSError, ValueError) as error:  # limits, or files that somebody's code has closed
            raise ShrinkbenchError(
                f"no process for runs can be started ({one_line(str(error), 100)}); give fewer --workers, or "
                "raise the limits of processes and open files (ulimit -u, -n)"
            ) from error
        there.close()
        return cls(process, here)

    def give(self, task: Task) -> None:
        """Hand ``task`` to the process; its time begins when the process does."""
        self.task, self.begun = task, None
        with contextlib.suppress(OSError):  # a process that is dead already is found by its sentinel
            self.connection.send(task)

    def hear(self, time_limit: float | None) -> Ending | None:
        """How the task has ended, or nothing as long as it goes on."""
        lives = self.process.is_alive()  # asked first: what one that is gone has said is there
        message = self._receive()
        if message == "begun":
            self.begun = time.monotonic()
            message = self._receive()
        if isinstance(message, Ending):
            return _late(time_limit) if self.overdue is not None and message.kind != "done" else message
        if not lives:
            return _late(time_limit) if self.overdue is not None else self._gone()
        self._watch_time(time_limit)
        return None

    def end(self, seconds: float) -> None:
        """Wait up to ``seconds``, then kill."""
        self.process.join(max(seconds, 0))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()

    def _receive(self) -> Ending | Literal["begun"] | None:
        """What the process says of its task; what others say, such as its own children, is passed over."""
        try:
            while self.connection.poll():
                pid, task, said = self.connection.recv()
                if (pid, task) == (self.process.pid, self.task):
                    message: Ending | Literal["begun"] = said
                    return message
        except (EOFError, OSError):
            self.process.join(1)  # the pipe closes a moment before the process is gone
        return None

    def _watch_time(self, time_limit: float | None) -> None:
        now = time.monotonic()
        if self.overdue is not None:
            if now > self.overdue + _GRACE:
                self.process.kill()
        elif time_limit is not None and self.begun is not None and now > self.begun + time_limit:
            self.overdue = now
            self.process.terminate()

    def _gone(self) -> Ending:
        """Of a task that it has not begun the process says nothing."""
        if self.begun is None:
            return Ending("environment", f"the process for it {self._cause()} before it was begun")
        return Ending("died", self._cause())

    def _cause(self) -> str:
        code = self.process.exitcode or 0
        if code == _UNKNOWN and isinstance(self.process, _FORKED):
            return f"ended with the process that it was forked from, or itself with exit code {code}"
        return f"died by {name_of_signal(-code)}" if code < 0 else f"ended itself with exit code {code}"


def _started(method: StartMethod, arguments: tuple[Any, ...]) -> BaseProcess:
    """A worker, forked where there is a server for that and spawned elsewhere."""
    with head_alone_hears(signal.SIGTERM), importing_nothing_from_here():
        if method == "forkserver":
            with contextlib.suppress(OSError, EOFError):  # the server is gone, and no other can be started
                process = multiprocessing.get_context(method).Process(target=_serve, args=arguments)
                process.start()
                return process
        spawned = multiprocessing.get_context("spawn").Process(target=_serve, args=arguments)
        spawned.start()
        return spawned


def name_of_signal(number: int) -> str:
    """What the system calls a signal; those for any use have no names but the first and the last.

    >>> name_of_signal(9), name_of_signal(1000)
    ('SIGKILL', 'signal 1000')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        first = getattr(signal, "SIGRTMIN", number + 1)
        return f"SIGRTMIN+{number - first}" if first <= number <= signal.SIGRTMAX else f"signal {number}"


def _late(time_limit: float | None) -> Ending:
    return Ending("died", f"was stopped at the time limit of {(time_limit or 0) / 60:g} minutes")


def _serve(
    connection: Connection, setting: Setting, share: Share, head: Alive, environment: Mapping[str, str]
) -> None:
    """The life of a worker: a task comes in, how it ended goes out."""
    end_with(os.getppid(), head)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the head's to handle, where it cannot be blocked
    signal.signal(signal.SIGTERM, lambda number, frame: stop_after_this_epoch())
    hear_alone(signal.SIGTERM)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # it was kept out till here
    os.environ.clear()  # of a fork server's the head's is only the beginning
    os.environ.update(environment)
    if share.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.gpu  # before CUDA is first used
    torch.set_num_threads(share.threads)
    with contextlib.suppress(EOFError, OSError):  # the head is gone, or somebody's code has closed the pipe
        while True:
            task = connection.recv()
            connection.send((os.getpid(), task, "begun"))
            ending = perform(task, setting, own_process=True)
            leaves = told_to_stop()  # by whomever: it is given no other task
            connection.send((os.getpid(), task, replace(ending, unfit=ending.unfit or leaves)))
            if leaves:
                return
