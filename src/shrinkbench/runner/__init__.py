"""From a plan to stored results."""

from shrinkbench.runner.execution import run
from shrinkbench.runner.planning import plan
from shrinkbench.runner.sweeping import Progress, sweep
from shrinkbench.runner.workspace import Workspace, resolve_device

__all__ = ["Progress", "Workspace", "plan", "resolve_device", "run", "sweep"]
