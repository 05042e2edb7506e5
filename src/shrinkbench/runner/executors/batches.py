"""Several tasks for one job: what it does, and how it tells the head of each as soon as it has ended."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shrinkbench.files import write_atomically
from shrinkbench.processes import Alive, end_with, hear_alone, import_as_before
from shrinkbench.runner.executors.performing import leave, perform, stop_after_this_epoch, told_to_stop
from shrinkbench.runner.executors.protocol import Ending, Setting, Task

AGAIN = 20
"""Times that a job is put in the queue again."""
_OF_A_SCHEDULER = [
    getattr(signal, name) for name in ("SIGTERM", "SIGCONT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
]


@dataclass(frozen=True)
class Batch:
    """Tasks that one job carries out in order; it and the head talk by files whose names begin as ``place``."""

    place: Path
    tasks: tuple[Task, ...]

    def ending(self, number: int) -> Ending | None:
        """How task ``number`` has ended, or nothing as long as it has not."""
        try:
            ending: Ending = pickle.loads(self._file(number).read_bytes())  # noqa: S301 - of this sweep's own job
        except FileNotFoundError:
            return None
        return ending

    def tell(self, number: int, ending: Ending) -> None:
        """Store how task ``number`` has ended."""
        write_atomically(self._file(number), pickle.dumps(ending))

    def stop(self) -> None:
        """Ask the job to begin no further task."""
        write_atomically(self.place.with_name(f"{self.place.name}.stop"), b"")

    @property
    def stopped(self) -> bool:
        """Whether the job was asked to begin no further task."""
        return self.place.with_name(f"{self.place.name}.stop").exists()

    def _file(self, number: int) -> Path:
        return self.place.with_name(f"{self.place.name}.{number}.ending")


@dataclass(frozen=True)
class Work:
    """What a job calls, and leaves in the queue when it is told to make room, at most ``again`` times.

    ``head`` is the process of this machine with which a job ends that is one of its own, and of no scheduler.
    ``imports`` are the folders that the head imports from: what plug-ins find there they find in the job, last.
    """

    setting: Setting
    threads: int
    head: Alive | None = None
    again: int = AGAIN
    imports: tuple[str, ...] = field(default_factory=lambda: tuple(map(os.path.abspath, sys.path)))

    def __call__(self, batch: Batch) -> None:
        """Carry out what has not ended yet: all of it, or the rest of a job that was put in the queue again."""
        import torch

        import_as_before()
        sys.path += [folder for folder in self.imports if folder not in sys.path]
        if self.head is not None:
            end_with(os.getppid(), self.head)
            signal.signal(signal.SIGTERM, lambda *_: stop_after_this_epoch())  # submitit passes it over
        hear_alone(*_OF_A_SCHEDULER)
        torch.set_num_threads(self.threads)
        for number, task in enumerate(batch.tasks):
            if batch.ending(number) is None:
                batch.tell(number, self._end(task, stopped=batch.stopped or told_to_stop()))

    def _end(self, task: Task, *, stopped: bool) -> Ending:
        if stopped:
            return Ending("interrupted", "was not begun")
        if self.again < 0:
            return Ending("died", f"was told to make room {AGAIN + 1} times")
        return perform(task, self.setting, own_process=True)

    def checkpoint(self, batch: Batch) -> Any:
        """Go on later: the state after the last whole epoch is on disk. submitit ends the process next."""
        from submitit.helpers import DelayedSubmission

        leave()
        return DelayedSubmission(replace(self, again=self.again - 1), batch)
