"""From a plan to stored results."""

from shrinkbench.runner.plan import plan
from shrinkbench.runner.run import run
from shrinkbench.runner.sweep import Progress, sweep
from shrinkbench.runner.workspace import Workspace, resolve_device

__all__ = ["Progress", "Workspace", "plan", "resolve_device", "run", "sweep"]
