"""Where everything lies in a results folder, and in a bundle, which is laid out alike."""

from __future__ import annotations

import re
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import unique_suffix
from shrinkbench.links import placed

PLAN_NAME = "plan.json"
RESULT_NAME = "result.json"
BESIDE_NAME = "workspace.json"  # where what runs need lies
LOCK_NAME = ".lock"
LOG_NAME = "log.txt"
NETWORK_NAME = "network.json"  # what the tensors of a kept network belong to
FAILURE_NAME = "failure.json"  # of a later attempt at a run that is done
AGAIN = "again"  # empty: the run is asked for once more, and its result stands until then
CONFLICTS = "conflicts"
PLUGINS = "plugins"
RESULT_FILE = re.compile(rf"runs/(?P<key>[0-9a-f]{{64}})/({RESULT_NAME}|{CONFLICTS}/[0-9a-f]{{64}}\.json)")
PLUGIN_FILE = re.compile(
    rf"{PLUGINS}/(?P<digest>[0-9a-f]{{64}})/(?P<file>([A-Za-z0-9_][A-Za-z0-9_.-]{{0,99}}/){{0,8}}[A-Za-z0-9_][A-Za-z0-9_.-]{{0,99}})"
)
PLUGIN_FOLDER = re.compile("[0-9a-f]{64}")
LARGEST_SOURCE = 4 << 20
"""Bytes of a file of outside code, or of data that it reads: a larger one is not kept."""
LARGEST_PLAN, LARGEST_RESULT = 160 << 20, 8 << 20  # bytes of a file that is read; a run takes 4 KiB of a plan
LARGEST_BESIDE, LARGEST_CARD = 32 << 20, 16 << 20
LEFT_OUT = ".sha256"
"""What the name of such a file gets: its checksum is kept in its stead."""


def result_file(key: str) -> str:
    """The file of a run's result."""
    return f"runs/{key}/{RESULT_NAME}"


def conflict_file(key: str, numbers: str) -> str:
    """The file of another result of a run, by the digest of its numbers."""
    return f"runs/{key}/{CONFLICTS}/{numbers}.json"


def plugin_file(digest: str, file: str) -> str:
    """The file of a plug-in's source, by the digest that keys name and its place relative to the plug-in."""
    return f"{PLUGINS}/{digest}/{file}"


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that it neither counts nor is lost; returns its new place."""
    placed(path.parent)
    aside = path.with_name(f"{path.name}.damaged-{unique_suffix()}")
    try:
        path.replace(aside)
    except FileNotFoundError:  # another process was quicker
        pass
    except OSError as error:
        raise ShrinkbenchError(f"cannot rename {path}: {error.strerror}; rename it by hand") from None
    return aside
