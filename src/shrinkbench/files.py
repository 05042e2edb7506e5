"""Files from the network: checked against a digest, resumed where they stopped, kept in one cache folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock

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


def fetch(url: str, target: Path, *, sha256: str | None, instead: str) -> Path:
    """Return ``target``, first fetching it from ``url`` where it is absent.

    ``sha256`` is the whole digest or its leading digits (``None``: none is published). A download that broke
    off is kept as ``NAME.part`` and resumed. Where the network or the digest fails, the ``ShrinkbenchError``
    says which file to fetch by hand, where to put it, and what to do ``instead``.
    """
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
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "shrinkbench"})  # noqa: S310 - from a card
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310 - from a card
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # the part is whole already; the digest decides
        raise
    resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
    with response, part.open("ab" if resumed else "wb") as file:
        expected = response.headers.get("Content-Length")
        written = 0
        while chunk := response.read(_CHUNK):
            written += file.write(chunk)
    if expected is not None and written < int(expected):
        raise OSError(f"the connection broke off after {written} of {expected} bytes; run again to resume")
