"""What the process that workers are forked from reads (fork_server.py): importing this is all that it does."""

import importlib

from shrinkbench.processes import killed_with_starter, never_collected

killed_with_starter()

with never_collected():
    for heavy in ("shrinkbench.runner.executors.local", "torch._dynamo", "torch._inductor", "torch._refs"):
        importlib.import_module(heavy)
