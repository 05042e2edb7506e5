"""Tasks on a Ray cluster: one that runs already, or one that is started on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import absolute
from shrinkbench.libraries import optional
from shrinkbench.processes import head_alone_hears, signals_put_back
from shrinkbench.runner.executors.local import LocalProcesses
from shrinkbench.runner.executors.performing import perform, stop_after_this_epoch, told_to_stop
from shrinkbench.runner.executors.process_state import process_put_back
from shrinkbench.runner.executors.protocol import LONGEST, Ending, Setting, Task, check_time_limit, empty


class RayCluster:
    """Each task takes ``cpus`` cores and ``gpus`` GPUs; Ray sets CUDA_VISIBLE_DEVICES.

    ``address`` is that of a cluster (``auto``: the one of this machine); without it, one is started here and
    ended at the close. All nodes have to see the output folder, data and plug-ins under the same paths. Ray
    keeps its processes, so that each loads a dataset once, and decoded images are mapped from one file: a node
    holds them once. Whether an attempt is repeated, after the loss of a node too, is the sweep's to decide.
    With a ``time_limit`` in seconds, each of Ray's processes has another one for its tasks, which can be ended.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus: float = 1,
        gpus: float = 0,
        time_limit: float | None = None,
    ) -> None:
        check_time_limit(time_limit)
        if cpus <= 0 or gpus < 0:
            raise ShrinkbenchError(f"a run cannot take {cpus:g} cores and {gpus:g} GPUs; give positive numbers")
        self._ray: Any = optional("ray", extra="ray", purpose="tasks on ray")
        self._address, self._cpus, self._gpus, self._time_limit = address, cpus, gpus, time_limit
        self._queue: deque[Task] = deque()
        self._running: dict[Any, Task] = {}
        self._remote: Any = None
        self._setting: Any = None

    def start(self, setting: Setting, *, tasks: int) -> None:
        """Connect, and put the setting where every node finds it."""
        ray, here = self._ray, absolute("")
        if not ray.is_initialized():
            try:
                with head_alone_hears(signal.SIGTERM), signals_put_back(), process_put_back():
                    os.chdir(here.anchor)  # Ray has its processes import from the folder that it is joined in
                    ray.init(
                        self._address,
                        log_to_driver=False,
                        include_dashboard=False if self._address is None else None,
                    )
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ShrinkbenchError(
                    f"cannot join the Ray cluster {self._address or 'of this machine'}: "
                    f"{' '.join(str(error).split())[:120]}; see `ray status`"
                ) from None
        limits: dict[str, Any] = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_retries": 0}
        self._remote = ray.remote(**limits)(_perform)
        self._setting = ray.put((setting, here, max(1, int(self._cpus)), self._time_limit))

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue the tasks."""
        self._queue.extend(tasks)
        self._hand_out()

    def completed(self, seconds: float) -> Sequence[tuple[Task, Ending]]:
        """Ask Ray what is ready."""
        self._hand_out()
        if not self._running:
            return ()
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [(self._running.pop(each), self._ending_of(each)) for each in ready]

    def drain(self) -> Sequence[Task]:
        """Give back what Ray was not told of."""
        return empty(self._queue)

    def close(self, grace: float = 0) -> None:
        """Cancel what runs, which may end its epoch; a cluster that was there before stays."""
        self._queue.clear()
        left = list(self._running)
        self._running.clear()
        if left and grace > 0:
            for each in left:
                self._ray.cancel(each)
            _, left = self._ray.wait(left, num_returns=len(left), timeout=grace)
        for each in left:
            self._ray.cancel(each, force=True)
        if self._ray.is_initialized():
            self._ray.shutdown()

    def _hand_out(self) -> None:
        """Keep twice as many tasks with Ray as the cluster can run now: more make it grow, where it can."""
        while self._queue and len(self._running) < 2 * self._slots():
            task = self._queue.popleft()
            self._running[self._remote.remote(self._setting, task)] = task

    def _slots(self) -> int:
        there: Mapping[str, float] = self._ray.cluster_resources()
        by_cores = there.get("CPU", 1) / self._cpus
        return max(1, int(min(by_cores, there.get("GPU", 0) / self._gpus) if self._gpus else by_cores))

    def _ending_of(self, reference: Any) -> Ending:
        errors = self._ray.exceptions
        try:
            ending: Ending = self._ray.get(reference)
        except errors.OutOfMemoryError:
            return Ending("environment", "Ray ended it, as its node was out of memory")
        except errors.WorkerCrashedError as error:
            return Ending("died", f"died under Ray ({_first_line(error)})")
        except errors.RayError as error:  # a node was lost, or the cluster refuses
            return Ending("environment", f"was lost by Ray ({_first_line(error)})")
        return ending


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:100]


def _perform(placed: tuple[Setting, Path, int, float | None], task: Task) -> Ending:
    import torch

    setting, here, threads, time_limit = placed
    with contextlib.suppress(OSError):  # another machine has none of that name
        os.chdir(here)
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, lambda *_: stop_after_this_epoch())  # as Ray asks a task to end
    if time_limit is None:
        return perform(task, setting, own_process=True)
    if not _children:
        _children.append(LocalProcesses(1, time_limit=time_limit))
        _children[0].start(setting, tasks=1)
    _children[0].submit([task])
    while not (ended := _children[0].completed(1.0)):
        if told_to_stop():
            _children[0].close(LONGEST)  # the head ends it sooner, and this process with it
            return Ending("interrupted", "was told to stop")
    return ended[0][1]


_children: list[LocalProcesses] = []  # of a process of Ray's, which serves one sweep; ends with it
