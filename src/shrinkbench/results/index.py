"""What is known of each stored result without reading it: ``index.jsonl``, one line for every result written.

A line is believed only while its file has the size and the time of change that it names; a file that no line
describes is read in full. So the index may lag behind, be cut short or be lost: it saves time, and its
checksums tell bytes that have changed by themselves from those that were written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shrinkbench.errors import ShrinkbenchError, UnwritableError
from shrinkbench.files import NotPlainError, append_to, require_regular
from shrinkbench.results.conflicts import numbers_of
from shrinkbench.results.record import RunResult

INDEX_NAME = "index.jsonl"
_HEXADECIMAL = re.compile("[0-9a-f]{64}")
_MOST = 64 << 20  # bytes that are read, the last ones: seven lines for each of 40,000 runs
_LINE = re.compile(rb"^\{.{150,8000}\}$", re.MULTILINE)  # two digests at least, and batch sizes


@dataclass(frozen=True)
class IndexEntry:
    """A readable result: size and time of change of its file, its checksum, and what decides on running again.

    ``timed`` are the batch sizes at which the network was timed. ``control`` names a control, with a digest of
    what was measured, whatever method stored it; it is empty of other runs.
    """

    key: str
    size: int
    mtime_ns: int
    sha256: str
    status: Literal["done", "failed"]
    timed: tuple[int, ...] = ()
    control: str = ""

    @classmethod
    def of(cls, result: RunResult, content: bytes, stat: os.stat_result) -> IndexEntry:
        """The entry of ``result``, which lies on disk as ``content``."""
        timed = tuple(sorted({latency.batch_size for latency in result.provenance.latency}))
        digest = hashlib.sha256(content).hexdigest()
        control = f"{result.spec.control.key} {numbers_of(result)}" if result.spec.is_control else ""
        return cls(result.key, stat.st_size, stat.st_mtime_ns, digest, result.status, timed, control)

    def is_sound(self) -> bool:
        """Whether every part is of its kind: a line may be a stranger's."""
        names, numbers = (self.key, self.sha256), (self.size, self.mtime_ns, *self.timed)
        return (
            all(isinstance(name, str) and _HEXADECIMAL.fullmatch(name) for name in names)
            and all(type(number) is int for number in numbers)
            and self.status in ("done", "failed")
            and isinstance(self.control, str)
        )

    def describes(self, stat: os.stat_result) -> bool:
        """Whether the file is still the one that this was written for."""
        return (self.size, self.mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def have_differing_controls(entries: Iterable[IndexEntry]) -> bool:
    """Whether copies of one control may contradict each other: only reading them tells how."""
    known = {entry.control for entry in entries if entry.control}
    return len({control.partition(" ")[0] for control in known}) < len(known)


def read_index(root: Path) -> dict[str, IndexEntry]:
    """The last entry of every key; lines that are none are passed over."""
    entries: dict[str, IndexEntry] = {}
    for line in lines_of_index(root):
        with contextlib.suppress(
            ValueError, KeyError, TypeError, RecursionError
        ):  # cut short, or of another version
            fields = json.loads(line)
            entry = IndexEntry(**fields | {"timed": tuple(fields["timed"]), "control": fields["control"]})
            if entry.is_sound():
                entries[entry.key] = entry
    return entries


def lines_of_index(root: Path) -> list[bytes]:
    """The lines of the index that may be entries, of its last 64 MiB; none where it cannot be read."""
    path = root / INDEX_NAME
    try:
        require_regular(path)
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _MOST))
            return _LINE.findall(file.read(_MOST))
    except OSError:
        return []


def append_index(root: Path, entries: Iterable[IndexEntry]) -> None:
    """Add ``entries``; a folder that cannot be written goes without.

    Raises ``ShrinkbenchError`` where the index is a device, pipe or socket.
    """
    text = "".join(f"{_line(entry)}\n" for entry in entries)
    if text:
        try:
            append_to(root / INDEX_NAME, text.encode(), follow=False)  # the folder may be a stranger's
        except NotPlainError as error:
            raise ShrinkbenchError(
                f"{root / INDEX_NAME} is a device, pipe or socket; move it away, and give the command again"
            ) from error
        except (OSError, UnwritableError):
            pass


def text_of_index(entries: Iterable[IndexEntry]) -> bytes:
    """A whole index of ``entries``."""
    return "".join(f"{_line(entry)}\n" for entry in entries).encode()


def _line(entry: IndexEntry) -> str:
    return json.dumps(vars(entry), separators=(",", ":"))
