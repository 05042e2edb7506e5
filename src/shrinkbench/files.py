"""Files: read with a limit, written in one step, known by their digest, fetched into one cache folder.

What only downloads need is imported by them: it takes longer to load than everything that reads results.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import secrets
import stat
import tempfile
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from shrinkbench.errors import ShrinkbenchError, UnwritableError
from shrinkbench.links import placed

_CHUNK = 1 << 20
_NOT_PLAIN = "it is a device, pipe or socket; give a plain file"
_TIMEOUT = 30.0  # seconds without an answer
_TEMPORARY = re.compile(r"\..+-[0-9]+-[0-9a-f]{8}\.tmp")
_OPEN_FILES = (Path("/dev/fd"), Path("/proc/self/fd"))
_OUTPUTS = {Path("/dev/stdout"): 1, Path("/dev/stderr"): 2}


def cache_folder() -> Path:
    """``$SHRINKBENCH_CACHE``, by default ``~/.cache/shrinkbench``."""
    return in_home(os.environ.get("SHRINKBENCH_CACHE") or Path.home() / ".cache" / "shrinkbench")


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file; a name that the system refuses to look at is none."""
    return os.path.isfile(path)  # noqa: PTH113 - pathlib raises for names that are too long


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder; a name that the system refuses to look at is none."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def exists(path: Path) -> bool:
    """Whether there is anything at ``path``; a name that the system refuses to look at is nothing."""
    return os.path.exists(path)  # noqa: PTH110 - as above


def in_home(path: Path | str) -> Path:
    """``path`` with a leading ``~`` resolved; that of a person who is not known here stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib raises


def absolute(path: Path | str) -> Path:
    """``path`` from the root, its links kept: the same place whatever folder somebody's code changes to."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - as above


class NotPlainError(OSError):
    """A device, pipe or socket lies where a plain file belongs."""


def require_regular(path: Path) -> None:
    """Raise ``OSError`` for what is no plain file: a device may be read for ever, a pipe waited for."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise NotPlainError(errno.EINVAL, _NOT_PLAIN, str(path))


def append_to(path: Path, content: bytes, *, follow: bool = True) -> None:
    """Add ``content`` to a plain file, which is made where there is none; raises ``OSError`` for any other.

    It never waits for a pipe's reader. A link is refused unless ``follow`` is set.
    """
    placed(path)
    odd = (errno.EINVAL, _NOT_PLAIN, str(path))
    flags = getattr(os, "O_NONBLOCK", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    try:
        handle = os.open(path, flags | os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        raise (NotPlainError(*odd) if error.errno == errno.ENXIO else error) from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise NotPlainError(*odd)
        os.write(handle, content)
    finally:
        os.close(handle)


def open_new(path: Path) -> int:
    """Make and open a file; ``OSError`` where there is anything, or its folder becomes a link meanwhile."""
    real, flags = placed(path.parent), os.O_RDWR | os.O_CREAT | os.O_EXCL
    if os.open not in os.supports_dir_fd:
        return os.open(real / path.name, flags, 0o666)
    folder = os.open(real, os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return os.open(path.name, flags, 0o666, dir_fd=folder)
    finally:
        os.close(folder)


def read_file(path: Path, *, most: int) -> bytes:
    """The content of a plain file of at most ``most`` bytes; raises ``OSError`` for any other."""
    require_regular(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return content


def parse_json(content: bytes | str) -> Any:
    """What JSON text of a stranger says; ``ValueError`` for whatever is wrong with it."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def repeated_name(content: bytes | str) -> str:
    """A name that stands twice in one object of JSON text; empty where none does, or the text is no JSON.

    >>> repeated_name('{"a": 1, "b": {"c": 2, "c": 3}}'), repeated_name('{"a": {"a": 1}}')
    ('c', '')
    """
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) < len(pairs):
            found.append(next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1))
        return names

    try:
        json.loads(content, object_pairs_hook=look)
    except (ValueError, RecursionError):
        return ""
    return found[0] if found else ""


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ShrinkbenchError(f"cannot read {path}: {error.strerror or error}") from None


def git_blob_of(path: Path) -> str:
    """The SHA-1 (hex) by which Git knows the content of a file, ``git hash-object`` of it."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
            while block := file.read(_CHUNK):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise ShrinkbenchError(f"cannot read {path}: {error.strerror or error}") from None


def write_atomically(path: Path, content: bytes | Callable[[Path], object], *, durable: bool = True) -> None:
    """Write ``path`` so that a reader sees the old file or the new one, never a part.

    ``content`` is the bytes, or a function that writes them to the path that it is given. They are written
    beside ``path`` under a name that no other process or host uses, and renamed; a symbolic link is followed,
    unless it leads out of a confined folder (links.py).
    The file's mode is the one that the umask gives. ``durable`` waits until the disk holds file and name; what
    can be made again at any time need not wait. What takes a stream (``/dev/null``, ``/dev/stdout``, a pipe
    that somebody reads) is written to and stays what it is. Raises ``ShrinkbenchError`` where ``path`` is
    anything else than a file, or the disk refuses; nothing is left behind then.
    """
    check_target(path, given=False)
    try:
        place = placed(path)  # a link stays one
        if _takes_a_stream(path):
            _write_to_stream(path, content)
            return
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


def check_target(path: Path, *, given: bool = True) -> None:
    """Refuse a place that :func:`write_atomically` would refuse, before there is anything to write.

    A rename would put a file in the place of a device, and fails on a folder only after the writing. A file
    that a person has protected is not replaced where it is ``given`` by one.
    """
    if not path.name:  # "" is the folder that one is in
        raise ShrinkbenchError(f"'{path}' names a folder, not a file that can be written; name a file to write")
    try:
        mode = path.stat().st_mode
        streamed = _takes_a_stream(path)
    except FileNotFoundError:
        _check_parent(path)
        return
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from None
    if not stat.S_ISREG(mode) and not streamed:
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or socket"
        raise ShrinkbenchError(f"{path} is {kind}, not a file that can be replaced; name a file to write")
    if given and stat.S_ISREG(mode) and not mode & 0o222:  # a rename would replace it all the same
        raise ShrinkbenchError(f"{path} is protected from writing; allow that, or name another file")


def _check_parent(path: Path) -> None:
    """Refuse a file below what is no folder, or a name that is too long."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - links stay, as below
    try:
        above = next(parent for parent in whole.parents if parent.exists())
    except OSError as error:
        raise _unwritable(path, error) from None
    longest = os.pathconf(above, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if any(len(os.fsencode(part)) > longest for part in path.parts):
        raise _unwritable(path, OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)))
    if not above.is_dir():
        raise _unwritable(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))


def check_folder(path: Path) -> None:
    """Refuse a place where no folder can be, before there is anything to write into it."""
    check_target(path / "file")


def _takes_a_stream(path: Path) -> bool:
    """Whether bytes are written into what lies there, in place of putting a file there."""
    if _open_file(path) is not None:
        return path.exists()
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _write_to_stream(path: Path, content: bytes | Callable[[Path], object]) -> None:
    if callable(content):
        with tempfile.TemporaryDirectory(prefix="shrinkbench-") as scratch:
            draft = Path(scratch) / "draft"
            content(draft)
            content = draft.read_bytes()
    number = _open_file(path)
    if number is not None:  # opened anew it would have a position of its own
        handle = os.dup(number)
    else:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)  # fails where nobody reads a pipe
        os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)


def _open_file(path: Path) -> int | None:
    """The number of the open file that ``/dev/stdout``, ``/dev/fd/3`` and the like stand for."""
    place = Path(os.path.abspath(path))  # noqa: PTH100 - their links lead to what they stand for
    if place.parent in _OPEN_FILES and place.name.isdecimal():
        return int(place.name)
    return _OUTPUTS.get(place)


def _unwritable(path: Path, error: OSError | ValueError) -> UnwritableError:
    reason = getattr(error, "strerror", None) or error
    return UnwritableError(f"cannot write {path}: {reason}; choose a folder that can be written")


def unique_suffix() -> str:
    """A part of a name that no other process has, on this host or on one that shares its disk."""
    host = re.sub(r"[^A-Za-z0-9-]", "", platform.node())[:40]
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that :func:`write_atomically` writes before it renames it."""
    return _TEMPORARY.fullmatch(name) is not None


def make_folder(path: Path) -> None:
    """Make ``path`` a folder, with those above it, unless it is one; raises ``OSError`` where that fails."""
    placed(path).mkdir(parents=True, exist_ok=True)


def remove_file(path: Path) -> None:
    """Remove the file ``path``, or the link, where there is one; raises ``OSError`` where that fails."""
    (placed(path.parent) / path.name).unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what writers that were killed have left in ``folder``, where nobody else writes now."""
    with contextlib.suppress(OSError, UnwritableError):
        for path in [each for each in placed(folder).iterdir() if is_temporary(each.name)]:
            path.unlink(missing_ok=True)


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


def fetch(url: str, target: Path, *, sha256: str | None, instead: str, git_blob: str | None = None) -> Path:
    """Return ``target``, first fetching it from ``url`` where it is absent.

    ``sha256`` is the whole digest or its leading digits (``None``: none is published), ``git_blob`` what Git
    knows the content by. A download that broke off is kept as ``NAME.part`` and resumed. Where the network or
    the digest fails, the ``ShrinkbenchError`` says which file to fetch, where to put it and what ``instead``.
    """
    import http.client

    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if not target.exists():
                part = target.with_name(target.name + ".part")
                _download(url, part)
                remedy = f"fetch it by hand and save it as {target}, or {instead}"
                _check(part, url, sha256, git_blob, remedy=remedy)
                part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ShrinkbenchError(
            f"cannot download {url} ({reason}); fetch it by hand and save it as {target}, or {instead}"
        ) from None
    _check(target, url, sha256, git_blob, remedy="the copy was removed: run the command again")
    return target


def _check(path: Path, url: str, sha256: str | None, git_blob: str | None, *, remedy: str) -> None:
    for name, of, told in (("SHA-256", sha256_of, sha256), ("Git's SHA-1", git_blob_of, git_blob)):
        if told and not (found := of(path)).startswith(told):
            path.unlink()
            raise ShrinkbenchError(
                f"{path.name} from {url} has {name} {found[:16]}..., not {told[:16]}...; {remedy}"
            )


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
