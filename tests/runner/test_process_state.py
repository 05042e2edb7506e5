"""What a process that carries tasks out sets for itself."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from shrinkbench.runner.executors.process_state import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()

def work(rounds):  # blocks of a size that the C library always takes from the system, and gives back
    for _ in range(rounds):
        blocks = [torch.ones(48 << 20, dtype=torch.uint8) for _ in range(2)]
        del blocks

work(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work(10)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library is told")
def test_memory_that_is_freed_is_used_again_without_page_faults() -> None:
    def faults(mode: str) -> int:
        command = [sys.executable, "-c", FAULTS, mode]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("kept") < faults("left") / 10
