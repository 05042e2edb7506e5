"""One writer at a time where a file of a results folder is read, changed and written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from shrinkbench.errors import ShrinkbenchError, UnwritableError
from shrinkbench.files import make_folder
from shrinkbench.links import placed
from shrinkbench.results.layout import LOCK_NAME

__all__ = ["LOCK_NAME", "hold_lock"]

_PATIENCE = 120.0  # seconds; what is done under the lock takes fractions of one


@contextmanager
def hold_lock(root: Path, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Hold the lock of the folder ``root``; a process that ends gives it back.

    Not to be nested. Raises ``ShrinkbenchError`` where it does not come free within ``patience`` seconds.
    """
    path = root / LOCK_NAME
    try:
        make_folder(root)
        placed(path)
        lock = FileLock(path, timeout=patience)
        lock.acquire()
    except Timeout:
        raise ShrinkbenchError(
            f"{path} has been held by another process for {patience:g} s; stop the process that hangs there, "
            "or remove the file if there is none"
        ) from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnwritableError(f"cannot write {path}: {reason}; choose a folder that can be written") from None
    try:
        yield
    finally:
        lock.release()
