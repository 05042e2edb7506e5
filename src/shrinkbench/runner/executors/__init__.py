"""Where tasks run: here, in processes of this machine, on a Ray cluster, or as jobs of a scheduler."""

from shrinkbench.runner.executors.inline import InProcess
from shrinkbench.runner.executors.local import LocalProcesses
from shrinkbench.runner.executors.on_ray import RayCluster
from shrinkbench.runner.executors.on_submitit import SubmititJobs
from shrinkbench.runner.executors.protocol import Ending, Executor, Setting, Task
from shrinkbench.runner.executors.together import Together

__all__ = [
    "Ending",
    "Executor",
    "InProcess",
    "LocalProcesses",
    "RayCluster",
    "Setting",
    "SubmititJobs",
    "Task",
    "Together",
]
