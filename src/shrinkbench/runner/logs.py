"""The diary of one run, for people: ``log.txt`` beside its result."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from shrinkbench.errors import UnwritableError
from shrinkbench.files import append_to, make_folder
from shrinkbench.spec.measures import EpochRecord


class RunLog:
    """Lines with a time, appended one by one, so that what a killed run has come to stays.

    A line that cannot be written is left out: no run fails by its diary, or waits for the reader of a pipe.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, text: str) -> None:
        """Append one line."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            make_folder(self._path.parent)
            append_to(self._path, f"{when} {' '.join(text.split())}\n".encode())
        except (OSError, UnwritableError):
            pass

    def start(self, label: str) -> None:
        """An attempt begins."""
        self.write(f"start: {label}, on {platform.node()}, process {os.getpid()}")

    def epoch(self, record: EpochRecord) -> None:
        """An epoch of any of the run's trainings is over, and its state is on disk."""
        measured = "".join(f", validation {name} {value:.4f}" for name, value in record.validation.items())
        self.write(f"epoch {record.epoch}: training loss {record.train_loss:.4f}{measured}")

    def end(self, kind: str, sentence: str = "") -> None:
        """The attempt is over."""
        self.write(f"end: {kind}{': ' if sentence else ''}{sentence}")
