"""The one kind of error that a person can cause and mend."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Self


class ShrinkbenchError(Exception):
    """Bad input, told in one sentence: what is wrong, which value, what to do.

    The command line prints the sentence and exits with code 2; it never shows a traceback for it.
    """


class UnknownNameError(ShrinkbenchError):
    """A name that no registry entry carries."""


class LeftWholeWarning(UserWarning):
    """What cannot be pruned or removed and had to stay whole, with the reason."""


class TakenWarning(UserWarning):
    """Which of several things in a file was taken, where nobody said which."""


class CannotMeetTargetError(ShrinkbenchError):
    """A compression target that no mask of the prunable parameters can reach; ``largest`` can be reached.

    ``reason`` says why, and ``least`` of ``total`` parameters have to stay, where that is known.
    """

    reason: str = ""
    total: int = 0
    least: int = 0

    def __init__(self, sentence: str, *, largest: float) -> None:
        super().__init__(sentence)
        self.largest = largest

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), largest=self.largest), self.args, self.__dict__

    @classmethod
    def because(cls, reason: str, *, compression: float, total: int, least: int) -> Self:
        """Name the largest target that can be met when ``least`` of ``total`` parameters have to stay."""
        largest = math.floor(total / least * 1e4) / 1e4
        error = cls(
            f"compression {compression:g} cannot be met: {reason}; the largest possible target is {largest:g}",
            largest=largest,
        )
        error.reason, error.total, error.least = reason, total, least
        return error


def line_in(file: Path, error: BaseException) -> str:
    """Where in ``file`` an error arose: ``" in line 7"``, or nothing where that is not known."""
    if isinstance(error, SyntaxError):
        return f" in line {error.lineno}"
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" in line {lines[-1]}" if lines else ""
