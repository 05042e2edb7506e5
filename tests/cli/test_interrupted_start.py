"""Ctrl-C before the command line has been read, and values of it that are more than one."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from shrinkbench.cli.options import parse_settings
from shrinkbench.errors import ShrinkbenchError

_INTERRUPTED = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "shrinkbench.cli.boundary":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder())
from {module} import {function}
{function}()
"""


def test_an_interrupt_while_modules_are_read_ends_in_one_word():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["shrinkbench"].split(":")
    code = _INTERRUPTED.format(module=module, function=function)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (130, "interrupted\n")


def test_a_setting_is_one_value():
    with pytest.raises(ShrinkbenchError, match="more than one line"):
        parse_settings(["seed=0\nname='another'"])
