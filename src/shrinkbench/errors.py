"""The one kind of error that a person can cause and mend."""

from __future__ import annotations

import math
from typing import Self


class ShrinkbenchError(Exception):
    """Bad input, told in one sentence: what is wrong, which value, what to do.

    The command line prints the sentence and exits with code 2; it never shows a traceback for it.
    """


class UnknownNameError(ShrinkbenchError):
    """A name that no registry entry carries."""


class CannotMeetTargetError(ShrinkbenchError):
    """A compression target that no mask of the prunable parameters can reach."""

    @classmethod
    def because(cls, reason: str, *, compression: float, total: int, least: int) -> Self:
        """Name the largest target that can be met when ``least`` of ``total`` parameters have to stay."""
        largest = math.floor(total / least * 1e4) / 1e4
        return cls(
            f"compression {compression:g} cannot be met: {reason}; the largest possible target is {largest:g}"
        )
