"""What lies in a results folder where something of another kind belongs: a file for a folder, a pipe for one.

Nothing of this kind is a finding about a run, so it is looked for before anything runs, and told.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import is_file
from shrinkbench.links import check_links
from shrinkbench.results.claims import CLAIMS
from shrinkbench.results.index import INDEX_NAME
from shrinkbench.results.layout import (
    AGAIN,
    BESIDE_NAME,
    CONFLICTS,
    FAILURE_NAME,
    LOCK_NAME,
    LOG_NAME,
    NETWORK_NAME,
    PLAN_NAME,
    PLUGINS,
    RESULT_NAME,
)
from shrinkbench.results.reading import Problem

_FOLDERS = ("runs", "shared", CLAIMS, PLUGINS)
_FILES = (PLAN_NAME, INDEX_NAME, BESIDE_NAME, LOCK_NAME)
_KIND, _KEY = re.compile("[a-z]{1,40}"), re.compile("[0-9a-f]{64}")
_IN_A_FOLDER = re.compile(
    r"((weights|masks|(epoch|step)-[0-9]+)\.safetensors|(card|step-[0-9]+)\.json|checkpoint[^/]*\.pt"
    rf"|traceback\.txt|{AGAIN}|"
    + "|".join(map(re.escape, (FAILURE_NAME, LOG_NAME, NETWORK_NAME, RESULT_NAME)))
    + ")"
)
_Wanted = Literal["folder", "file"]


def check_output(path: Path) -> None:
    """Refuse to write what a person has asked for in the place of what a results folder holds itself."""
    try:
        place = Path(os.path.realpath(path))
    except (OSError, ValueError):  # no path at all, which is told where it is written to
        return
    for folder in place.parents:
        own = place.relative_to(folder).parts[0]
        if own in (*_FOLDERS, *_FILES) and is_file(folder / PLAN_NAME):
            raise ShrinkbenchError(
                f"--out {path} lies where the results folder {folder} has its own {own}; choose another place"
            )


def find_misplaced(root: Path, runs: Iterable[str] | None = None) -> Iterator[Problem]:
    """What is of another kind than its place asks for; of runs those of the keys ``runs``, or all."""
    for name in _FOLDERS:
        yield from _look(root / name, "folder")
    for name in _FILES:
        yield from _look(root / name, "file")
    for code in _names_in(root / PLUGINS, _KEY):
        yield from _look(root / PLUGINS / code, "folder")
    for kind in _names_in(root / "shared", _KIND):
        yield from _look(root / "shared" / kind, "folder")
        for key in _names_in(root / "shared" / kind, _KEY):
            yield from _look_in(root / "shared" / kind / key)
    for key in _names_in(root / "runs", _KEY) if runs is None else runs:
        yield from _look_in(root / "runs" / key)
        yield from _look(root / "runs" / key / CONFLICTS, "folder")


def check_places(root: Path, runs: Iterable[str]) -> None:
    """Refuse to work in ``root`` on ``runs`` where a link leads out of it, or something is in the way.

    A result that is none is not: it is set aside, and the run carried out again.
    """
    check_links(root)
    for problem in find_misplaced(root, runs):
        if problem.path.name != RESULT_NAME or problem.path.parent.parent.name != "runs":
            place = one_line(str(problem.path), 200)
            raise ShrinkbenchError(f"{place} {problem.sentence}; move it away, and give the command again")


def _look_in(folder: Path) -> Iterator[Problem]:
    yield from _look(folder, "folder")
    for name in _names_in(folder, _IN_A_FOLDER):
        yield from _look(folder / name, "file")


def _names_in(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - ten thousand names, no paths
    except OSError:  # not there, or none: its own look tells
        return []
    return sorted(filter(pattern.fullmatch, names))


def _look(path: Path, wanted: _Wanted) -> Iterator[Problem]:
    found = _kind_at(path)
    # Where a link leads nowhere a file can be written; a folder cannot be made.
    if found and found != f"a {wanted}" and (found != _DANGLING or wanted == "folder"):
        yield Problem(path, f"is {found}, where a {wanted} belongs")


_DANGLING = "a link that leads nowhere"


def _kind_at(path: Path) -> str:
    """What lies at ``path``, in words; empty where nothing does, or it cannot be told."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return _DANGLING if path.is_symlink() else ""
    except NotADirectoryError:  # what is above it is told
        return ""
    except OSError:
        return "a link that leads back to itself" if path.is_symlink() else ""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")
