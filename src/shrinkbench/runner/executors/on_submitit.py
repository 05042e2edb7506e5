"""Tasks as jobs of Slurm, or of processes on this machine, through submitit."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import unique_suffix
from shrinkbench.libraries import optional
from shrinkbench.links import placed
from shrinkbench.processes import Alive, head_alone_hears, importing_nothing_from_here
from shrinkbench.runner.executors.batches import AGAIN, Batch, Work
from shrinkbench.runner.executors.protocol import Ending, Setting, Task, check_time_limit, empty
from shrinkbench.runner.shares import available_cores

_POLL = 0.2
_MOST_CORES, _MOST_RUNS = 1024, 100_000  # of one job
_PATIENCE = {"local": 1.0, "slurm": 30.0}  # seconds that the file of a job that has ended may take to show


class SubmititJobs:
    """Tasks that may start together become one job array, of up to ``runs_per_job`` tasks for each job.

    ``cluster`` is ``slurm``, ``local`` (processes of this machine) or ``None`` (Slurm where there is one).
    ``time_limit`` is in seconds, for each task that a job has. submitit catches Slurm's signal before the time
    limit and before a preemption and puts the job in the queue again, where it goes on from its last whole
    epoch, up to 20 times. ``at_once`` bounds the jobs in the queue; where there is none, in ``local``, so do
    this machine's cores. ``parameters`` are submitit's own, such as ``slurm_partition``.
    """

    def __init__(
        self,
        cluster: str | None = None,
        *,
        time_limit: float | None = None,
        cpus: int = 1,
        gpus: int = 0,
        at_once: int = 256,
        runs_per_job: int = 1,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        if cpus < 1 or gpus < 0 or at_once < 1 or runs_per_job < 1:
            raise ShrinkbenchError(
                f"{at_once} jobs at once of {runs_per_job} runs, {cpus} cores and {gpus} GPUs cannot run; give "
                "positive numbers"
            )
        if max(cpus, gpus) > _MOST_CORES or runs_per_job > _MOST_RUNS:
            raise ShrinkbenchError(
                f"a job of {one_line(str(runs_per_job), 30)} runs, {one_line(str(cpus), 30)} cores and "
                f"{one_line(str(gpus), 30)} GPUs is beyond any machine; give at most {_MOST_RUNS:,} runs, and "
                f"{_MOST_CORES:,} cores and GPUs"
            )
        check_time_limit(time_limit)
        if cluster == "slurm" and shutil.which("srun") is None:
            raise ShrinkbenchError(
                "there is no Slurm on this machine: srun is not found; go where it is, or give --cluster local"
            )
        self._submitit: Any = optional("submitit", extra="slurm", purpose="tasks on submitit")
        self._cluster, self._cpus, self._gpus = cluster, cpus, gpus
        self._at_once, self._runs_per_job = at_once, runs_per_job
        self._minutes = math.ceil((time_limit or 24 * 3600) / 60) * runs_per_job
        self._parameters = parameters or {}
        self._jobs: dict[Any, _Sent] = {}
        self._waiting: deque[Task] = deque()
        self._executor: Any = None
        self._is_here = False
        self._work: Work | None = None

    def start(self, setting: Setting, *, tasks: int) -> None:
        """Make submitit ready; its files lie in ``jobs`` of the output folder.

        They are unpickled, and so lie in a folder of a new name: nobody else has put any there.
        """
        folder = Path(setting.workspace.root).resolve() / "jobs" / unique_suffix()
        placed(folder)
        try:
            self._executor = self._submitit.AutoExecutor(
                folder=folder,
                cluster=self._cluster,
                slurm_max_num_timeout=AGAIN + 1,
                local_max_num_timeout=AGAIN + 1,
            )
            self._executor.update_parameters(
                name="shrinkbench",
                timeout_min=self._minutes,
                cpus_per_task=self._cpus,
                gpus_per_node=self._gpus,
                slurm_array_parallelism=self._at_once,
                **self._parameters,
            )
        except (ValueError, TypeError, RuntimeError) as error:
            raise ShrinkbenchError(
                f"submitit refuses these settings: {' '.join(str(error).split())[:160]}"
            ) from None
        self._folder = folder
        self._is_here = self._executor.cluster == "local"
        self._work = Work(setting, self._cpus, Alive.here() if self._is_here else None)
        if self._is_here:  # there is no queue, and whatever is given starts
            self._at_once = min(self._at_once, max(1, available_cores() // self._cpus))

    def submit(self, tasks: Sequence[Task]) -> None:
        """Hand over what fits; the rest waits, as a scheduler may bound the length of its queue."""
        self._waiting.extend(tasks)
        self._hand_out()

    def completed(self, seconds: float) -> Sequence[tuple[Task, Ending]]:
        """Look at the jobs, several times a second."""
        self._hand_out()
        until = time.monotonic() + seconds
        while not (ended := list(self._collect())) and self._jobs and time.monotonic() < until:
            time.sleep(_POLL)
        return ended

    def drain(self) -> Sequence[Task]:
        """Give back what was not submitted, and cancel jobs that wait in the scheduler's queue.

        The others end the task that they have begun.
        """
        left = [*empty(self._waiting)]
        for job, sent in list(self._jobs.items()):
            if job.state in ("PENDING", "REQUEUED"):
                left += sent.open
                del self._jobs[job]
                _cancel(job)
            else:
                sent.batch.stop()
        return left

    def close(self, grace: float = 0) -> None:
        """Cancel every job that has a task left; the others end by themselves.

        Those of this machine may end their epoch within ``grace`` seconds. A scheduler gives its own time.
        """
        self._waiting.clear()
        left = [job for job, sent in self._jobs.items() if sent.open]
        self._jobs.clear()
        if not self._is_here:
            for job in left:
                _cancel(job)
            return
        _signal(left, signal.SIGTERM if grace > 0 else signal.SIGKILL)
        until = time.monotonic() + grace
        while not all(job.done() for job in left) and time.monotonic() < until:
            time.sleep(_POLL)
        if left:
            _signal(left, signal.SIGKILL)
            time.sleep(_POLL)  # what they have watched over ends a moment later, and gives its claims back

    def _hand_out(self) -> None:
        room = self._at_once - len(self._jobs)
        if room < 1 or not self._waiting:
            return
        size = min(self._runs_per_job, math.ceil(len(self._waiting) / room))
        batches: list[Batch] = []
        while self._waiting and len(batches) < room:
            tasks = tuple(self._waiting.popleft() for _ in range(min(size, len(self._waiting))))
            batches.append(Batch(self._folder / unique_suffix(), tasks))
        placed(self._folder)  # submitit makes and fills it
        try:
            with head_alone_hears(), importing_nothing_from_here():
                jobs = self._executor.map_array(self._work, batches)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            why = one_line(str(error), 160)
            raise ShrinkbenchError(
                f"the scheduler takes no job: {why}; mend its options, and give the command again"
            ) from error
        self._jobs.update(zip(jobs, map(_Sent, batches), strict=True))

    def _collect(self) -> Iterator[tuple[Task, Ending]]:
        """What has ended since the last look, and of each job that is gone the task that went with it."""
        for job, sent in list(self._jobs.items()):
            gone = self._is_gone(job, sent)  # asked first: what a job that is gone has written is there
            yield from sent.take()
            if not gone:
                continue
            del self._jobs[job]
            if sent.open:  # in order: the first of them was at work, the others were not begun
                task, *others = sent.open
                self._waiting.extendleft(reversed(others))
                yield task, self._died(job)

    def _is_gone(self, job: Any, sent: _Sent) -> bool:
        """Whether ``job`` is over and its file is there, or has been waited for: others go on meanwhile."""
        if not job.done():
            return False
        sent.over = time.monotonic() if sent.over is None else sent.over
        waited = time.monotonic() - sent.over
        return job.paths.result_pickle.exists() or waited > _PATIENCE.get(self._executor.cluster, 30.0)

    def _died(self, job: Any) -> Ending:
        errors = self._submitit.core.utils
        told = job.stderr() or ""
        if job.paths.result_pickle.exists():  # submitit would wait for it
            try:
                job.result()
            except (errors.UncompletedJobError, errors.FailedJobError) as error:
                told = str(error)
        last = (told.strip().splitlines() or ["nothing was written"])[-1]
        return Ending("died", f"died in job {job.job_id} ({job.state.lower()}; {one_line(last.strip(), 100)})")


def _signal(jobs: Sequence[Any], number: int) -> None:
    """Send a signal to the processes of this machine that watch over jobs, which end with them.

    submitit would send Ctrl-C, which they do not hear.
    """
    for job in jobs:
        if not job.done():  # so that its number is no other process's
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(job.job_id), number)


def _cancel(job: Any) -> None:
    """Cancel ``job``; where the scheduler does not answer it is left, and its claims tell of it."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        job.cancel()


@dataclass
class _Sent:
    """What a job was given, how much of it has ended, and since when the job is over."""

    batch: Batch
    ended: int = 0
    over: float | None = None

    @property
    def open(self) -> tuple[Task, ...]:
        """The tasks of which nobody has heard yet."""
        return self.batch.tasks[self.ended :]

    def take(self) -> Iterator[tuple[Task, Ending]]:
        """The tasks that have ended since the last look."""
        for task in self.open:
            ending = self.batch.ending(self.ended)
            if ending is None:
                return
            self.ended += 1
            yield task, ending
