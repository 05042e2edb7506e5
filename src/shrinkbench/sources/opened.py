"""What a plug-in opens beside itself by path: code that it runs without importing it, and data."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from shrinkbench.errors import InputError
from shrinkbench.sources.imports import home_of
from shrinkbench.sources.origin import (
    file_of,
    forget_passing,
    is_known,
    is_own,
    is_standard,
    note_opened,
    opened_by,
    unchanged,
)

_CODE = (".py", ".pyc")
_LOADING: list[Path] = []
_ROOTS: set[Path] = set()
_watches = False


@contextmanager
def watch(file: Path) -> Iterator[None]:
    """Note what is opened beside ``file`` while it is loaded, for its digest; later, check what it opens."""
    global _watches
    if not _watches:
        sys.addaudithook(_on_event)  # there is no way to take it off again
        _watches = True
    _ROOTS.add(home_of(file).root)
    _LOADING.append(file)
    try:
        yield
    finally:
        _LOADING.remove(file)
        forget_passing()


def _on_event(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not _ROOTS or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    opener = None if _LOADING else next(_files_on_stack(sys._getframe(1)), None)
    if not _LOADING and (opener is None or not is_known(opener)):
        return  # first, as every file that this process opens comes here
    mode, flags = arguments[1], arguments[2]
    if any(c in mode for c in "wax") if isinstance(mode, str) else int(str(flags)) & os.O_WRONLY:
        return
    try:
        path = _source_of(Path(os.path.realpath(os.fsdecode(arguments[0]))))
    except (OSError, ValueError):  # whoever opens it is told of that
        return
    if any(_is_beside(path, root) for root in _ROOTS) and path.is_file():
        _look_at(path, opener, sys._getframe(1))


def _is_beside(path: Path, root: Path) -> bool:
    """Whether ``path`` lies in ``root`` or below, and in no hidden folder: of caches, or of installations."""
    if not path.is_relative_to(root) or is_standard(str(path)):
        return False
    return not any(part.startswith(".") for part in path.relative_to(root).parts[:-1])


def _source_of(path: Path) -> Path:
    """The text of which ``path`` is the bytecode, or ``path`` itself."""
    if path.suffix == ".pyc" and path.parent.name == "__pycache__":
        return path.parent.with_name(f"{path.name.partition('.')[0]}.py")
    return path


def _look_at(path: Path, file: Path | None, frame: FrameType) -> None:
    """Note ``path``, or check it where ``file``, which is outside code and not being loaded, opens it."""
    if _is_digesting(frame):
        return
    if _LOADING:
        for opener in {*_LOADING, *_files_on_stack(frame)}:
            if path != opener and home_of(opener).holds(path):
                with suppress(OSError):  # it cannot be opened then either
                    note_opened(opener, path)
        return
    if file is None or path == file or not home_of(file).holds(path):
        return
    if path in opened_by(file):
        unchanged(path)
    elif path.suffix in _CODE and not is_known(path):
        raise InputError(
            f"{file} runs {path.name} beside it, which it did not open while it was loaded, so that no "
            "run's key depends on it; open it at the top of the file, or import it"
        )


def _is_digesting(frame: FrameType | None) -> bool:
    """Whether it is this package that reads a file, to take its content down or to import it."""
    while frame is not None and is_standard(frame.f_code.co_filename):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__package__") == __package__


def _files_on_stack(frame: FrameType | None) -> Iterator[Path]:
    """Files of outside code from the innermost on, up to this package's own."""
    while frame is not None:
        if is_own(frame.f_globals.get("__name__")):
            return
        if not is_standard(frame.f_code.co_filename):
            file = file_of(frame.f_code)
            if file is not None and home_of(file).package is None:
                yield file
        frame = frame.f_back
