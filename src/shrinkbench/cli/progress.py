"""How far a sweep is: a bar on a terminal, a line for every finished task elsewhere."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shrinkbench.cells import say_count
from shrinkbench.errors import escaped

if TYPE_CHECKING:
    from shrinkbench.runner import Progress
    from shrinkbench.spec import Objective

_MINUTE, _HOUR = 60.0, 3600.0


class Display:
    """A progress bar with time left on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True)
        self._begun = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("planning", total=None, count="")

    def __enter__(self) -> Display:
        with _terminal_may_close():
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the terminal as it was."""
        with _terminal_may_close():
            self._bar.stop()

    def start(self, total: int, todo: int) -> None:
        """The plan is made."""
        self._begun = time.monotonic()
        self.note(f"{say_count(total, 'run', 'runs')} planned, {todo} to do")

    def note(self, text: str) -> None:
        """Something that a person should know meanwhile."""
        with _terminal_may_close():
            self._console.print(escaped(text), highlight=False, markup=False, soft_wrap=True)

    def advance(self, progress: Progress) -> None:
        """One task has ended."""
        text = _describe(progress)
        failed = progress.result is not None and progress.result.status == "failed"
        if not self._console.is_terminal:
            self.note(text + say_left(progress.share, time.monotonic() - self._begun))
        elif failed:
            self.note(text)
        count = f"{progress.done}/{progress.total}"
        with _terminal_may_close():
            self._bar.update(
                self._task, completed=progress.share, total=1.0, description=progress.label, count=count
            )


@contextlib.contextmanager
def _terminal_may_close() -> Iterator[None]:
    """What runs goes on without its terminal, of which nobody reads any more: what it finds is stored."""
    try:
        yield
    except OSError as error:
        gone = [number for number in (1, 2) if stat.S_ISCHR(os.fstat(number).st_mode)]
        if error.errno != errno.EIO or not gone:
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in gone:
            os.dup2(nowhere, number)
        os.close(nowhere)


def _describe(progress: Progress) -> str:
    """One line about a task that has ended."""
    text = f"[{progress.done}/{progress.total}] {progress.kind} {progress.label}"
    result = progress.result
    if result is not None and result.headline is not None:
        text += f": {_named(result.spec.task.objective, result.headline)}, {result.provenance.seconds:.1f} s"
    elif result is not None and result.error:
        text += f": failed: {result.error}"
    return text


def _named(objective: Objective, value: float) -> str:
    """The value that comparisons lead with, worded as a report words it."""
    from shrinkbench.report.statistics.metrics import metric_of  # read once a run has ended, not to start

    return metric_of(objective.metric(objective.headline)).named(value)


def say_left(share: float, seconds: float) -> str:
    """How long the rest takes, if this ``share`` of the work took ``seconds``.

    >>> say_left(1 / 3, 100.0), say_left(1.0, 100.0)
    ('; about 3 min left', '')
    """
    if not 0 < share < 1:
        return ""
    return f"; about {say_duration(seconds / share * (1 - share))} left"


def say_duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, then hours.

    >>> say_duration(61), say_duration(200), say_duration(9000)
    ('61 s', '3 min', '2.5 h')
    """
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
