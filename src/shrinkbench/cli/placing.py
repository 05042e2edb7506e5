"""From options to the executor that they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shrinkbench.cli.fork_server import begin_fork_server
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.processes import never_collected

if TYPE_CHECKING:
    from shrinkbench.runner.executors import Executor


@dataclass(frozen=True)
class RunPlace:
    """Where runs are to be carried out, as options say it; ``time_limit`` in minutes."""

    executor: Literal["local", "ray", "submitit"] = "local"
    workers: int | None = None
    device: str = "auto"
    time_limit: float | None = None
    address: str | None = None
    cluster: Literal["slurm", "local"] | None = None
    partition: str | None = None
    cpus: int = 1
    gpus: int = 0
    runs_per_job: int = 1
    devices: int = 1
    num_nodes: int = 1


_OPTIONS = {
    "workers": ("--workers", ("local",)),
    "devices": ("--devices", ("local",)),
    "num_nodes": ("--num-nodes", ("local",)),
    "address": ("--address", ("ray",)),
    "cluster": ("--cluster", ("submitit",)),
    "partition": ("--slurm-partition", ("submitit",)),
    "cpus": ("--cpus-per-run", ("ray", "submitit")),
    "gpus": ("--gpus-per-run", ("ray", "submitit")),
    "runs_per_job": ("--runs-per-job", ("submitit",)),
}


def executor_of(place: RunPlace, *, soon: bool = True) -> Executor:
    """The executor of ``place``; options that have no say there, and numbers that are none, are refused.

    Where it is to work ``soon``, what it begins with is begun, before torch is read here.
    """
    _check(place)
    forks = soon and place.executor == "local" and place.devices * place.num_nodes == 1
    method = begin_fork_server(place.device) if forks else "spawn"
    with never_collected():
        from shrinkbench.runner.executors import LocalProcesses, RayCluster, SubmititJobs
        from shrinkbench.runner.sweeping import train_together
        from shrinkbench.runner.workspace import gpus_of

    seconds = place.time_limit * 60 if place.time_limit is not None else None
    if place.executor == "ray":
        return RayCluster(place.address, cpus=place.cpus, gpus=place.gpus, time_limit=seconds)
    if place.executor == "submitit":
        own = {"slurm_partition": place.partition} if place.partition is not None else {}
        return SubmititJobs(
            place.cluster,
            time_limit=seconds,
            cpus=place.cpus,
            gpus=place.gpus,
            runs_per_job=place.runs_per_job,
            parameters=dict(own),
        )
    if place.devices * place.num_nodes != 1:
        if place.time_limit is not None:
            raise ShrinkbenchError(
                "--time-limit ends single processes, and --devices makes several of one run; leave one out"
            )
        return train_together(place.workers, place.device, place.devices, place.num_nodes)
    gpus = gpus_of(place.device)
    workers = max(1, len(gpus)) if place.workers is None else place.workers
    return LocalProcesses(workers, time_limit=seconds, gpus=gpus, method=method)


def _check(place: RunPlace) -> None:
    for name, (option, executors) in _OPTIONS.items():
        if getattr(place, name) != getattr(RunPlace(), name) and place.executor not in executors:
            raise ShrinkbenchError(
                f"{option} has no say with --executor {place.executor}; leave it out, or give --executor "
                f"{' or '.join(executors)}"
            )
