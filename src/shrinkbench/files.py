"""Files: written in one step, known by their digest, fetched from the network into one cache folder.

What only downloads need is imported by them: it takes longer to load than everything that reads results.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import stat
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without an answer


def cache_folder() -> Path:
    """``$SHRINKBENCH_CACHE``, by default ``~/.cache/shrinkbench``."""
    return Path(os.environ.get("SHRINKBENCH_CACHE") or Path.home() / ".cache" / "shrinkbench").expanduser()


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ShrinkbenchError(f"cannot read {path}: {error.strerror or error}") from None


def write_atomically(path: Path, content: bytes | Callable[[Path], object], *, durable: bool = True) -> None:
    """Write ``path`` so that a reader sees the old file or the new one, never a part.

    ``content`` is the bytes, or a function that writes them to the path that it is given. They are written
    beside ``path`` under a name that no other process or host uses, and renamed; a symbolic link is followed.
    The file's mode is the one that the umask gives. ``durable`` waits until the disk holds file and name; what
    can be made again at any time need not wait. Raises ``ShrinkbenchError`` where ``path`` is a device, pipe,
    socket or folder, or the disk refuses; nothing is left behind then.
    """
    check_target(path)
    try:
        place = Path(os.path.realpath(path))  # a link stays one
        place.parent.mkdir(parents=True, exist_ok=True)
        # Not the umask's own call: it would change that of every thread for a moment.
        temporary = place.with_name(f".{place.name[:100]}.{unique_suffix()}.tmp")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
            os.close(handle)
            _fill(temporary, content, durable=durable)
            temporary.chmod(mode)  # writers of formats may have made it private
            temporary.replace(place)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if durable:
            _sync_folder(place.parent)
    except OSError as error:
        raise _unwritable(path, error) from None


def check_target(path: Path) -> None:
    """Refuse a place that :func:`write_atomically` would refuse, before there is anything to write.

    A rename would put a file in the place of a device, and fails on a folder only after the writing.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(path, error) from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise ShrinkbenchError(f"{path} is {kind}, not a file that can be replaced; name a file to write")


def _unwritable(path: Path, error: OSError) -> ShrinkbenchError:
    return ShrinkbenchError(
        f"cannot write {path}: {error.strerror or error}; choose a folder that can be written"
    )


def unique_suffix() -> str:
    """A part of a name that no other process has, on this host or on one that shares its disk."""
    host = re.sub(r"[^A-Za-z0-9-]", "", platform.node())[:40]
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


def _fill(path: Path, content: bytes | Callable[[Path], object], *, durable: bool) -> None:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    if durable:
        with path.open("rb+") as file:  # a writer may have closed its own handle, or replaced the file
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Wait until the disk holds the new name; where folders cannot be synchronised the file itself is."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def fetch(url: str, target: Path, *, sha256: str | None, instead: str) -> Path:
    """Return ``target``, first fetching it from ``url`` where it is absent.

    ``sha256`` is the whole digest or its leading digits (``None``: none is published). A download that broke
    off is kept as ``NAME.part`` and resumed. Where the network or the digest fails, the ``ShrinkbenchError``
    says which file to fetch by hand, where to put it, and what to do ``instead``.
    """
    import http.client

    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if not target.exists():
                part = target.with_name(target.name + ".part")
                _download(url, part)
                _check(part, url, sha256, remedy=f"fetch it by hand and save it as {target}, or {instead}")
                part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ShrinkbenchError(
            f"cannot download {url} ({reason}); fetch it by hand and save it as {target}, or {instead}"
        ) from None
    _check(target, url, sha256, remedy="the copy was removed: run the command again")
    return target


def _check(path: Path, url: str, sha256: str | None, *, remedy: str) -> None:
    found = sha256_of(path)
    if sha256 and not found.startswith(sha256):
        path.unlink()
        raise ShrinkbenchError(f"{path.name} from {url} has SHA-256 {found}, not {sha256}; {remedy}")


def _download(url: str, part: Path) -> None:
    """Append to ``part`` what it lacks of ``url``; start over where the server ignores ranges."""
    import urllib.error
    import urllib.request

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "shrinkbench"})  # noqa: S310 - from a card
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310 - from a card
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # the part is whole already; the digest decides
        raise
    resumed = response.status == HTTPStatus.PARTIAL_CONTENT
    with response, part.open("ab" if resumed else "wb") as file:
        expected = response.headers.get("Content-Length")
        written = 0
        while chunk := response.read(_CHUNK):
            written += file.write(chunk)
    if expected is not None and written < int(expected):
        raise OSError(f"the connection broke off after {written} of {expected} bytes; run again to resume")
