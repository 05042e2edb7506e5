"""From a plan to stored results."""

from shrinkbench.runner.execution import run
from shrinkbench.runner.executors.performing import stop_after_this_epoch
from shrinkbench.runner.outcomes import doubting
from shrinkbench.runner.planning import plan
from shrinkbench.runner.stored import run_stored
from shrinkbench.runner.sweeping import Prepared, Progress, prepare_sweep, store_plan, sweep
from shrinkbench.runner.workspace import Workspace, resolve_device

__all__ = [
    "Prepared",
    "Progress",
    "Workspace",
    "doubting",
    "plan",
    "prepare_sweep",
    "resolve_device",
    "run",
    "run_stored",
    "stop_after_this_epoch",
    "store_plan",
    "sweep",
]
