"""What files hold, by SHA-256: hashed once, and again wherever their state on disk is another.

The *state* of a file is its inode, size, time of change and time of status change: whoever writes into a file,
replaces it or sets its clock back changes one of them. Hashes are remembered in the cache beside the state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from shrinkbench.errors import InputError, ShrinkbenchError
from shrinkbench.files import cache_folder, write_atomically

State = tuple[int, int, int, int]
Entry = tuple[State, str]  # state and SHA-256 (hex)

# A file that changed this recently may change once more within one tick of the disk's clock: its state is not
# relied on. Two seconds is the coarsest tick in use (FAT).
TICK = 2 * 10**9  # nanoseconds
_NO_STATE: State = (-1, -1, -1, -1)
_THREADS = 8


@dataclass(frozen=True)
class Contents:
    """The files ``names`` below ``root`` as they were when they were hashed."""

    root: Path
    names: tuple[str, ...]
    states: np.ndarray = field(repr=False)  # int64 (N, 4); arrays, for there may be a million files
    digests: np.ndarray = field(repr=False)  # uint8 (N, 32)

    def digest(self, row: int) -> str:
        """SHA-256 (hex) of one file."""
        return bytes(self.digests[row]).hex()

    def read(self, row: int) -> bytes:
        """The bytes of one file; others than those that were hashed are refused."""
        path = self.root / self.names[row]
        try:
            with path.open("rb") as file:
                content = file.read()
                state = state_of(os.fstat(file.fileno()))
        except OSError as error:
            raise _unreadable(path, error) from None
        if state != tuple(self.states[row].tolist()):
            self._compare(row, hashlib.sha256(content).hexdigest())
        return content

    def check(self, row: int) -> None:
        """Refuse a file whose bytes are others than those that were hashed."""
        path = self.root / self.names[row]
        try:
            if state_of(path.stat()) != tuple(self.states[row].tolist()):
                self._compare(row, hash_file(path)[1])
        except OSError as error:
            raise _unreadable(path, error) from None

    def _compare(self, row: int, found: str) -> None:
        if found != self.digest(row):
            raise InputError(
                f"{self.root / self.names[row]} has changed since it was hashed: its SHA-256 begins with "
                f"{found[:12]}, not {self.digest(row)[:12]}; put the old file back, or start again with the new"
            )


def contents_of(root: Path, names: Sequence[str]) -> Contents:
    """Hash the files ``names`` below ``root``; what was hashed before and has the same state is not read."""
    entries: list[Entry] = []
    for folder, group in groupby(names, key=lambda name: name.rpartition("/")[0]):
        entries += _entries(root / folder, [name.rpartition("/")[2] for name in group])
    return Contents(
        root,
        tuple(names),
        np.array([state for state, _ in entries], dtype=np.int64).reshape(-1, 4),
        np.frombuffer(bytes.fromhex("".join(sha256 for _, sha256 in entries)), np.uint8).reshape(-1, 32),
    )


def _entries(folder: Path, names: Sequence[str]) -> list[Entry]:
    memory = cache_folder() / "digests" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()}.json"
    known = _remembered(memory)
    unknown = []
    prefix = f"{folder}/"
    for name in names:
        try:
            state = state_of(os.stat(prefix + name))  # noqa: PTH116 - a path object takes longer
            if name not in known or known[name][0] != state:
                unknown.append(folder / name)
        except OSError as error:
            raise _unreadable(folder / name, error) from None
    if unknown:
        found = _hash_all(unknown)
        known = {**known, **found}
        lasting = {name: entry for name, entry in known.items() if entry[0] != _NO_STATE}
        with contextlib.suppress(ShrinkbenchError):  # without a cache the next start only takes longer
            write_atomically(memory, json.dumps(lasting).encode(), durable=False)
    return [known[name] for name in names]


def _remembered(memory: Path) -> Mapping[str, Entry]:
    try:
        return {
            name: (tuple(state), sha256) for name, (state, sha256) in json.loads(memory.read_bytes()).items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _hash_all(paths: Sequence[Path]) -> dict[str, Entry]:
    def part(start: int) -> list[tuple[str, Entry]]:
        return [(path.name, hash_file(path)) for path in paths[start::_THREADS]]

    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(entry for found in pool.map(part, range(min(_THREADS, len(paths)))) for entry in found)


def hash_file(path: Path) -> Entry:
    """State and SHA-256 (hex) of a file; a state of -1 where it changed too recently to be relied on."""
    try:
        with path.open("rb") as file:
            now = time.time_ns()
            state = state_of(os.fstat(file.fileno()))
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None
    return (state if now - max(state[2:]) > TICK else _NO_STATE), sha256


def state_of(found: os.stat_result) -> State:
    """What of a file's status tells that it is another, or has been written to."""
    return found.st_ino & (2**63 - 1), found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot read the file {path} ({error.strerror or error}); put it back")
