"""Who works on what: one file per claim, so that many processes on many hosts share one results folder.

A claim on ``KEY`` is the file ``claims/KEY.N.json`` with the highest ``N``. It is made with ``O_EXCL``, which
is atomic on network file systems too; no hard links, renames or advisory locks are needed. Its owner writes a
counter into it every few seconds, through the handle it was made with, so that a heartbeat never reaches
somebody else's file. Whoever has seen the same bytes for as long as the claim lasts, or sees on the same
machine that the owner's process is gone, takes over by making number ``N + 1``: of several, one succeeds.

Why no two take it: who makes ``N + 1`` looks again, and steps back unless its number is the highest and the
file ``N`` that it saw expire is still there, unchanged. Contents carry a random token, so a number that was
removed and made anew is no "unchanged" file. An owner that was suspended beyond its time finds a higher number
at its next heartbeat and is ``lost``.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from shrinkbench.errors import ShrinkbenchError, UnwritableError
from shrinkbench.files import make_folder, open_new, read_file, remove_file
from shrinkbench.links import confine
from shrinkbench.processes import birth_of

CLAIMS = "claims"
EXPIRES_AFTER = 60.0
"""Seconds without a heartbeat after which others may take a claim over."""
_BEATS = 6  # heartbeats in that time
_SIZE = 1024  # bytes of every claim file: heartbeats overwrite in place, and need no room on the disk
_LARGEST = 1 << 20  # of one that somebody else has put there
_HIGHEST = 999_999_999  # number of a claim
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,150}")
_FILE = re.compile(rf"(?P<key>{_KEY.pattern})\.(?P<number>[1-9][0-9]{{0,8}})\.json")


@dataclass(frozen=True)
class Holder:
    """What a claim file says: who works on ``key``. ``alive`` is ``None`` where this machine cannot tell."""

    key: str
    host: str = "an unknown host"
    pid: int = 0
    heartbeat: str = ""
    expires_after: float = EXPIRES_AFTER
    alive: bool | None = None


class RunClaim:
    """The right to work on ``key``, until it is released or ``lost``."""

    def __init__(self, claims: RunClaims, key: str, *, number: int, handle: int, token: str) -> None:
        self.key = key
        self.number = number
        self._claims = claims
        self._handle: int | None = handle
        self._file = _file_behind(handle)
        self._token = token
        self._count = 0
        self._lost = False
        self._guard = threading.Lock()  # the heartbeat's thread and the owner's
        self._beaten = time.monotonic()

    @property
    def lost(self) -> bool:
        """Whether another has taken this claim over, as of the last heartbeat: work is done twice then."""
        return self._lost

    def beat(self) -> bool:
        """Tell the others that work goes on; returns whether the claim is still this owner's."""
        with self._guard:
            if self._handle is None or self._lost or _file_behind(self._handle) != self._file:
                return False  # of the last: somebody's code has closed it, and the number may be another file's
            self._count += 1
            try:
                _write(self._handle, self._content())
                self._beaten = time.monotonic()
            except OSError:  # tried again at the next beat; nobody can rely on it once it has expired
                self._lost = time.monotonic() - self._beaten > self._claims.expires_after
            numbers = self._claims.numbers(self.key)
            self._lost = self._lost or numbers[-1:] != [self.number] or not self._is_own()
            return not self._lost

    def release(self) -> None:
        """Give the claim back; what was taken over is left to its new owner."""
        self._claims.forget(self)
        with self._guard:
            if self._handle is None:
                return
            try:
                with contextlib.suppress(ShrinkbenchError):  # of a folder that is gone
                    numbers = self._claims.numbers(self.key)
                    if numbers[-1:] == [self.number] and self._is_own():
                        for number in numbers:  # the own one last: before that nobody else may own this key
                            _remove(self._claims.root / f"{self.key}.{number}.json")
            finally:
                if _file_behind(self._handle) == self._file:
                    os.close(self._handle)
                self._handle = None

    def _is_own(self) -> bool:
        fields = _parse(_read(self._claims.root / f"{self.key}.{self.number}.json"))
        return fields is not None and fields.get("token") == self._token

    def _content(self) -> bytes:
        return _content_of(self.key, self._token, count=self._count, expires_after=self._claims.expires_after)

    def __enter__(self) -> RunClaim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class RunClaims:
    """The claims in the folder ``claims`` of a store; one object serves all threads of a process.

    ``expires_after`` is how many seconds a claim of this process lasts without a heartbeat.
    """

    def __init__(self, store: Path, *, expires_after: float = EXPIRES_AFTER) -> None:
        confine(store)
        self.root = Path(store) / CLAIMS
        self.expires_after = expires_after
        self._held: set[RunClaim] = set()
        self._seen: dict[str, tuple[int, bytes, float]] = {}  # number and bytes, and since when they stand
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, key: str) -> RunClaim | None:
        """The claim on ``key``, or ``None`` where somebody else has it. Does not wait.

        Ask again from time to time: a claim whose owner is gone is taken over once it has not changed for its
        time between two calls on this object. Raises ``ShrinkbenchError`` where the disk refuses.
        """
        if not _KEY.fullmatch(key):
            raise ShrinkbenchError(f"'{key[:60]}' cannot be claimed; name a key of letters, digits, - and _")
        numbers = self.numbers(key)
        base, before = 0, None
        if numbers:
            base = numbers[-1]
            why = self._why_no_claim(key, base)
            if why:
                raise ShrinkbenchError(
                    f"{self._path(key, base)} {why}: it would block its run for good; `store repair` "
                    "sets it aside"
                )
            before = self._expired(key, base)
            if before is None:
                return None
        claim = self._make(key, base + 1)
        if claim is None:
            return None
        if self.numbers(key)[-1:] != [base + 1] or (base and _read(self._path(key, base)) != before):
            self._step_back(claim)
            return None
        self._hold(claim)
        return claim

    def holder(self, key: str) -> Holder | None:
        """Who has the claim on ``key``, as far as its file tells."""
        numbers = self.numbers(key)
        return _holder(key, _read(self._path(key, numbers[-1]))) if numbers else None

    def holders(self) -> list[Holder]:
        """All claims, in order of key; whether they have expired only time tells."""
        names = {key for key, _ in self._files()}
        blocked = {key for key, _, _ in self.obstacles()}
        found = [self.holder(key) for key in sorted(names - blocked)]
        return [holder for holder in found if holder is not None]

    def obstacles(self) -> list[tuple[str, Path, str]]:
        """What has the place of the claim that counts and is none, so that it never expires: key, file, why."""
        last = dict(sorted(self._files()))
        found = ((key, self._path(key, n), self._why_no_claim(key, n)) for key, n in last.items())
        return [each for each in found if each[2]]

    def _why_no_claim(self, key: str, number: int) -> str:
        try:
            place = self._path(key, number).lstat()
        except OSError:  # released in this moment
            return ""
        if not stat.S_ISREG(place.st_mode):
            return "is a link, folder, pipe or device, and no claim"
        if place.st_size > _LARGEST:
            return f"is larger than {_LARGEST:,} bytes, and no claim"
        return "has the highest number that a claim can have" if number >= _HIGHEST else ""

    def remove_stale(self, *, wait: float = 0.0) -> list[Holder]:
        """Remove the claims whose owner is gone, and return them.

        On this machine that is seen at once; of other hosts after ``wait`` seconds without a heartbeat.
        """
        found = {holder.key: holder for holder in self.holders()}
        removed: list[Holder] = []
        end = time.monotonic() + wait
        while found:
            for key, holder in list(found.items()):
                claim = self.take(key)
                if claim is not None:
                    claim.release()
                    removed.append(holder)
                if claim is not None or not self.numbers(key):
                    del found[key]
            if time.monotonic() >= end:
                break
            time.sleep(min(1.0, max(0.01, end - time.monotonic())))
        return sorted(removed, key=lambda holder: holder.key)

    def numbers(self, key: str) -> list[int]:
        """The numbers of the claim files of ``key``, rising: the last one counts."""
        return sorted(number for found, number in self._files() if found == key)

    def forget(self, claim: RunClaim) -> None:
        """Send no more heartbeats for ``claim``."""
        with self._guard:
            self._held.discard(claim)

    def _files(self) -> Iterator[tuple[str, int]]:
        try:
            names = os.listdir(self.root)  # noqa: PTH208 - names only, and fresh after a file was made there
        except FileNotFoundError:
            return
        except OSError as error:
            raise _refused(self.root, error) from None
        for name in names:
            match = _FILE.fullmatch(name)
            if match is not None:
                yield match["key"], int(match["number"])

    def _path(self, key: str, number: int) -> Path:
        return self.root / f"{key}.{number}.json"

    def _expired(self, key: str, number: int) -> bytes | None:
        """The bytes of a claim whose owner is gone; ``None`` where it may live."""
        content = _read(self._path(key, number))
        if content is None:  # released in this moment
            return None
        holder = _holder(key, content)
        if holder.alive is False:
            return content
        now = time.monotonic()
        with self._guard:
            seen = self._seen.get(key)
            if seen is None or seen[:2] != (number, content):
                self._seen[key] = (number, content, now)
                return None
        return content if now - seen[2] > holder.expires_after else None

    def _make(self, key: str, number: int) -> RunClaim | None:
        path, token = self._path(key, number), secrets.token_hex(16)
        try:
            make_folder(self.root)
            handle = open_new(path)
        except FileExistsError:
            return None
        except OSError as error:
            raise _refused(path, error) from None
        try:
            _write(handle, _content_of(key, token, count=0, expires_after=self.expires_after))
        except OSError as error:
            os.close(handle)
            _remove(path)
            raise _refused(path, error) from None
        return RunClaim(self, key, number=number, handle=handle, token=token)

    def _step_back(self, claim: RunClaim) -> None:
        """Remove a claim that was made too late, and nothing else."""
        _remove(self._path(claim.key, claim.number))
        claim.release()

    def _hold(self, claim: RunClaim) -> None:
        with self._guard:
            self._seen.pop(claim.key, None)
            self._held.add(claim)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._keep_beating, daemon=True, name="claims")
                self._thread.start()

    def _keep_beating(self) -> None:
        while not self._wake.wait(self.expires_after / _BEATS):
            with self._guard:
                held = list(self._held)
                if not held:
                    self._thread = None
                    return
            for claim in held:
                with contextlib.suppress(ShrinkbenchError):  # the folder cannot be listed now; perhaps later
                    claim.beat()


def _content_of(key: str, token: str, *, count: int, expires_after: float) -> bytes:
    fields = {
        "key": key,
        "token": token,
        "host": platform.node()[:200],
        "pid": os.getpid(),
        "machine": _machine(),
        "born": birth_of(os.getpid()),
        "count": count,
        "heartbeat": datetime.now(UTC).isoformat(timespec="seconds"),
        "expires_after": expires_after,
    }
    return json.dumps(fields).encode().ljust(_SIZE - 1)[: _SIZE - 1] + b"\n"


def _file_behind(handle: int) -> tuple[int, int] | None:
    """What tells the open file from others; nothing where it is closed."""
    with contextlib.suppress(OSError):
        return (place := os.fstat(handle)).st_dev, place.st_ino
    return None


def _write(handle: int, content: bytes) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    if os.write(handle, content) < len(content):
        raise OSError(28, "No space left on device")
    os.fsync(handle)  # other hosts see it once the server has it


def _read(path: Path) -> bytes | None:
    try:
        return read_file(path, most=_LARGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(path, error) from None


def _parse(content: bytes | None) -> dict[str, Any] | None:
    try:
        fields = json.loads(content or b"")
    except (ValueError, RecursionError):  # being written, or damaged: only time tells
        return None
    return fields if isinstance(fields, dict) else None


def _holder(key: str, content: bytes | None) -> Holder:
    fields = _parse(content)
    if fields is None:
        return Holder(key)
    pid, expires = fields.get("pid"), fields.get("expires_after")
    number = pid if type(pid) is int and 0 < pid < 2**31 else 0
    alive = None
    if number and fields.get("machine") and fields["machine"] == _machine():
        alive = birth_of(number) == fields.get("born")
    return Holder(
        key,
        host=str(fields.get("host") or Holder.host)[:200],
        pid=number,
        heartbeat=str(fields.get("heartbeat", ""))[:40],
        expires_after=float(expires)
        if isinstance(expires, (int, float)) and 0 < expires <= 3600
        else EXPIRES_AFTER,
        alive=alive,
    )


@cache
def _machine() -> str:
    """What process numbers are unique in: a boot of a kernel, and a container on it; empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - no path, a name in brackets
    except (OSError, ValueError):
        return ""


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError, UnwritableError):
        remove_file(path)


def _refused(path: Path, error: OSError) -> ShrinkbenchError:
    why = error.strerror or error
    return ShrinkbenchError(f"cannot use {path}: {why}; choose a folder that can be written")
