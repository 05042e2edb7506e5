"""The command line as a person types it: in this process, or in one of its own where code from outside runs."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from shrinkbench.cli import main

_PROGRAM = "import sys; from shrinkbench.cli import main; sys.argv = ['shrinkbench', *sys.argv[1:]]; main()"


def shrinkbench(*arguments, cwd="."):
    """Call the command in this process: ``returncode``, ``stdout`` and ``stderr`` as a process gives them."""
    out, err = io.StringIO(), io.StringIO()
    code, before = 0, sys.argv
    sys.argv = ["shrinkbench", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(cwd):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.argv = before
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def shrinkbench_apart(*arguments, cwd=None):
    """Call the command in a process of its own, so that what a plug-in registers is in no registry here."""
    command = [sys.executable, "-c", _PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def living(mark):
    """Processes with ``mark`` (NAME=VALUE) in their environment, as those have that a marked one starts."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes():
                found.append(place.name)
        except OSError:
            continue
    return found
