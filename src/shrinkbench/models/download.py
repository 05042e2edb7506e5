"""Files from the network: checked against a digest, resumed where they stopped, kept in one cache folder."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError

_CHUNK = 1 << 20


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


def fetch(url: str, *, sha256: str | None, name: str | None = None) -> Path:
    """Return the file behind ``url`` from the cache, fetching it first where it is absent.

    ``sha256`` is the whole digest or its leading digits; ``name`` the file's name in the cache, by default the
    last part of ``url``. A file that broke off is kept as ``NAME.part`` and
    resumed. Raises ``ShrinkbenchError`` where the network or the digest fails; the message says which file to
    fetch by hand and where to put it.
    """
    target = cache_folder() / "weights" / (name or url.rsplit("/", 1)[-1])
    if target.exists():
        if sha256 and not sha256_of(target).startswith(sha256):
            raise ShrinkbenchError(f"{target} is not the published file (SHA-256 {sha256}...); delete it")
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part)
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise ShrinkbenchError(
            f"cannot download {url} ({reason}); fetch it by hand and save it as {target}, "
            "or pass its path with --weights FILE"
        ) from None
    found = sha256_of(part)
    if sha256 and not found.startswith(sha256):
        part.unlink()
        raise ShrinkbenchError(
            f"{url} has SHA-256 {found}, not {sha256}; the download was discarded: try again, or fetch the "
            f"published file by hand and save it as {target}"
        )
    part.replace(target)
    return target


def _download(url: str, part: Path) -> None:
    """Append what is missing of ``url`` to ``part``; start over where the server ignores ranges."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "shrinkbench"})  # noqa: S310 - https only
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=30)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the part is already whole
            return
        raise
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        expected = response.headers.get("Content-Length")
        written = 0
        while chunk := response.read(_CHUNK):
            written += file.write(chunk)
    if expected is not None and written < int(expected):
        raise OSError(f"the connection broke off after {written} of {expected} bytes")
