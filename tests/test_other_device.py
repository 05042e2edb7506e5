"""The walk on a device that refuses what a GPU refuses, in a process of its own.

torch learns of a new device once for a whole process, and before any gradients are taken.
"""

import subprocess
import sys
from pathlib import Path

import pytest

WALK = Path(__file__).with_name("walk_on_other_device.py")


@pytest.mark.parametrize("marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_nothing_is_on_the_wrong_device(marked):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marked, str(WALK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
