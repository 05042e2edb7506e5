"""Texts in tables that a spreadsheet opens, where none of them is a formula, and numbers in sentences."""

from __future__ import annotations

import re

_FORMULA = tuple("=+-@\t\r")
_NUMBER = re.compile(r"[+-]?[0-9.,]+([ ±–-]+[0-9.,]+)*( ?%)?$")


def as_text(cell: str) -> str:
    """``cell`` so that a spreadsheet takes it for text: what looks like a formula gets an apostrophe.

    >>> as_text("=1+1"), as_text("random"), as_text("-0.3"), as_text("+0.1 %")
    ("'=1+1", 'random', '-0.3', '+0.1 %')
    """
    return f"'{cell}" if cell[:1] in _FORMULA and not _NUMBER.match(cell) else cell


def from_text(cell: str) -> str:
    """What :func:`as_text` was given."""
    return cell[1:] if cell[:1] == "'" and as_text(cell[1:]) == cell else cell


def say_count(count: int, one: str, many: str) -> str:
    """A number with what it counts, and the verb that goes with it.

    >>> say_count(1, "run is", "runs are"), say_count(1200, "run", "runs")
    ('1 run is', '1,200 runs')
    """
    return f"{count:,} {one if count == 1 else many}"
