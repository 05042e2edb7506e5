"""Tasks as jobs of Slurm, or of processes on this machine, through submitit."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.libraries import optional
from shrinkbench.runner.executors.performing import leave, perform
from shrinkbench.runner.executors.protocol import Ending, Setting, Task, check_time_limit
from shrinkbench.runner.shares import available_cores

_POLL = 0.2
_PATIENCE = {"local": 1.0, "slurm": 30.0}  # seconds that the file of a job that has ended may take to show
_AGAIN = 20  # times that a job is put in the queue again


class SubmititJobs:
    """Tasks that may start together become one job array.

    ``cluster`` is ``slurm``, ``local`` (processes of this machine) or ``None`` (Slurm where there is one).
    ``time_limit`` is in seconds. submitit catches Slurm's signal before the time limit and before a preemption
    and puts the job in the queue again, where it goes on from its last whole epoch, up to 20 times.
    ``at_once`` bounds the jobs in the queue; where there is none, in ``local``, so do this machine's cores.
    ``parameters`` are submitit's own, such as ``slurm_partition``.
    """

    def __init__(
        self,
        cluster: str | None = None,
        *,
        time_limit: float | None = None,
        cpus: int = 1,
        gpus: int = 0,
        at_once: int = 256,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        if cpus < 1 or gpus < 0 or at_once < 1:
            raise ShrinkbenchError(
                f"{at_once} jobs at once of {cpus} cores and {gpus} GPUs cannot run; give positive numbers"
            )
        check_time_limit(time_limit)
        self._submitit: Any = optional("submitit", extra="slurm", purpose="tasks on submitit")
        self._cluster, self._cpus, self._gpus, self._at_once = cluster, cpus, gpus, at_once
        self._minutes = math.ceil((time_limit or 24 * 3600) / 60)
        self._parameters = parameters or {}
        self._jobs: dict[Any, Task] = {}
        self._ended: dict[Any, float] = {}  # since when jobs are gone whose file is not there
        self._waiting: list[Task] = []
        self._executor: Any = None
        self._work: _Work | None = None

    def start(self, setting: Setting) -> None:
        """Make submitit ready; its files lie in ``jobs`` of the output folder."""
        folder = Path(setting.workspace.root).resolve() / "jobs"
        try:
            self._executor = self._submitit.AutoExecutor(
                folder=folder,
                cluster=self._cluster,
                slurm_max_num_timeout=_AGAIN + 1,
                local_max_num_timeout=_AGAIN + 1,
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
        self._work = _Work(setting, self._cpus)
        if self._executor.cluster == "local":  # it has no queue, and starts whatever it is given
            self._at_once = min(self._at_once, max(1, available_cores() // self._cpus))

    def submit(self, tasks: Sequence[Task]) -> None:
        """Hand over what fits; the rest waits, as a scheduler may bound the length of its queue."""
        self._waiting.extend(tasks)
        self._hand_out()

    def completed(self, seconds: float) -> Sequence[tuple[Task, Ending]]:
        """Look at the jobs, several times a second."""
        self._hand_out()
        until = time.monotonic() + seconds
        while True:
            ended = [job for job in self._jobs if self._has_ended(job)]
            if ended or not self._jobs or time.monotonic() > until:
                break
            time.sleep(_POLL)
        return [(self._jobs.pop(job), self._ending_of(job)) for job in ended]

    def drain(self) -> Sequence[Task]:
        """Give back what was not submitted, and cancel jobs that wait in the scheduler's queue."""
        queued = [job for job in self._jobs if job.state in ("PENDING", "REQUEUED")]
        left = [*self._waiting, *(self._jobs.pop(job) for job in queued)]
        self._waiting = []
        for job in queued:
            job.cancel()
        return left

    def close(self, grace: float = 0) -> None:
        """Cancel every job."""
        self._waiting = []
        for job in self._jobs:
            job.cancel()
        self._jobs.clear()

    def _hand_out(self) -> None:
        room = max(0, self._at_once - len(self._jobs))
        tasks, self._waiting = self._waiting[:room], self._waiting[room:]
        if tasks:
            self._jobs.update(zip(self._executor.map_array(self._work, tasks), tasks, strict=True))

    def _has_ended(self, job: Any) -> bool:
        """Whether ``job`` is over and its file is there, or has been waited for: others go on meanwhile."""
        if not job.done():
            return False
        since = self._ended.setdefault(job, time.monotonic())
        waited = time.monotonic() - since
        return job.paths.result_pickle.exists() or waited > _PATIENCE.get(self._executor.cluster, 30.0)

    def _ending_of(self, job: Any) -> Ending:
        del self._ended[job]
        errors = self._submitit.core.utils
        if not job.paths.result_pickle.exists():  # submitit would wait for it
            return _died(job, job.stderr() or "")
        try:
            ending: Ending = job.result()
        except (errors.UncompletedJobError, errors.FailedJobError) as error:
            return _died(job, str(error))
        return ending


def _died(job: Any, told: str) -> Ending:
    last = (told.strip().splitlines() or ["nothing was written"])[-1]
    return Ending("died", f"died in job {job.job_id} ({job.state.lower()}; {one_line(last.strip(), 100)})")


@dataclass(frozen=True)
class _Work:
    """What a job calls, and leaves in the queue when it is told to make room, at most ``again`` times."""

    setting: Setting
    threads: int
    again: int = _AGAIN

    def __call__(self, task: Task) -> Ending:
        import torch

        if self.again < 0:
            return Ending("died", f"was told to make room {_AGAIN + 1} times")
        torch.set_num_threads(self.threads)
        return perform(task, self.setting, own_process=True)

    def checkpoint(self, task: Task) -> Any:
        """Go on later: the state after the last whole epoch is on disk. submitit ends the process next."""
        from submitit.helpers import DelayedSubmission

        leave()
        return DelayedSubmission(replace(self, again=self.again - 1), task)
