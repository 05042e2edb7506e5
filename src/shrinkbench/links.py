"""Who made a folder must not decide which files of its reader are overwritten: links that lead out of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from shrinkbench.errors import UnwritableError, one_line

_CONFINED: set[Path] = set()


def confine(folder: Path) -> None:
    """Write, move and remove nothing below ``folder`` through a link out of it, as long as this process lives.

    ``folder`` itself may be a link, which is a person's choice.
    """
    _CONFINED.update((Path(os.path.abspath(folder)), Path(os.path.realpath(folder))))  # noqa: PTH100 - keeps it


def placed(path: Path) -> Path:
    """Where ``path`` really lies, its links followed; one that leads out of a confined folder is refused.

    It is asked right before each write: a folder may become a link while work in it goes on.
    """
    real, whole = Path(os.path.realpath(path)), Path(os.path.abspath(path))  # noqa: PTH100 - keeps links
    for folder in whole.parents:
        if folder in _CONFINED and not real.is_relative_to(os.path.realpath(folder)):
            below = [*reversed(whole.parents), whole]
            _refuse_ways_out(folder, below[below.index(folder) + 1 :], folder)
    return real


def check_links(folder: Path, *, within: Path | None = None) -> None:
    """Refuse to write into ``folder`` where it, or a link in it, leads out of ``within``, by default itself."""
    _refuse_ways_out(folder, (folder, *_links_in(folder)), within or folder)


def _refuse_ways_out(folder: Path, places: Iterable[Path], within: Path) -> None:
    home = os.path.realpath(within)
    for place in places:
        real = os.path.realpath(place)
        if not Path(real).is_relative_to(home):
            name = f"the link {one_line(str(place.relative_to(folder)), 100)} in " if place != folder else ""
            raise UnwritableError(
                f"{name}{one_line(str(folder), 60)} leads out of {'it' if name else 'its place'}, to "
                f"{one_line(real, 50)}; nothing is written through it: remove the link, or name another folder"
            )


def _links_in(folder: Path | str) -> Iterator[Path]:
    """Symbolic links in ``folder`` and below, none of them followed; what cannot be listed is passed over."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                yield from _links_in(entry.path)
