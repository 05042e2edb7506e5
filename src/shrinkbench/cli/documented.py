"""What docs/methods.md says of an axis value: its formula or rule, and how it differs from the paper.

The tables of that page are the one place where this is written; the page is part of the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SECTIONS = {
    "Scores": "score",
    "Structures": "structure",
    "Allocations": "allocation",
    "Schedules": "schedule",
    "Fine-tuning modes": "finetuning",
}
"""Headings of the page, and the axes that they are of."""
_PLACE = re.compile(r"\d+|\b[A-Z]\b")
"""What stands for a number in the name of a family: ``iterative-P``, ``halve-in-K``, ``2:4``."""


def note_of(axis: str, name: str) -> dict[str, str]:
    """The row of ``name`` by column (``formula``, ``source``, ``notes``, ...), empty cells left out.

    A member of a family (``iterative-30``) has the family's row; what has none has no columns.

    >>> note_of("schedule", "soft-from-scratch")
    {'when': 'as `soft`, in a training from initial weights'}
    """
    rows = _rows()
    for key in (name, _PLACE.sub("#", name), f"{name.partition(':')[0]}:"):
        if (axis, key) in rows:
            return rows[axis, key]
    return {}


def plain(text: str) -> str:
    """``text`` without the marks of the languages that it is written in.

    >>> plain("``|w|`` (see :func:`balance` and [structures](structured-pruning.md))")
    '|w| (see balance and structures)'
    """
    text = re.sub(r":[a-z]+:`~?([^`]+)`", r"\1", text).replace("``", "")
    return re.sub(r"\[([^\]]+)\]\([^)\s]+\)", r"\1", text)


@cache
def _rows() -> dict[tuple[str, str], dict[str, str]]:
    inside = Path(__file__).with_name("methods.md")
    path = inside if inside.is_file() else Path(__file__).resolve().parents[3] / "docs" / "methods.md"
    if not path.is_file():
        return {}
    found: dict[tuple[str, str], dict[str, str]] = {}
    families: dict[tuple[str, str], dict[str, str]] = {}
    for axis, cells, columns in _cells(path.read_text(encoding="utf-8")):
        told = {column: cell for column, cell in zip(columns[1:], cells[1:], strict=True) if cell}
        for name in re.findall(r"`([^`]+)`", cells[0]):
            found[axis, name] = told
            families[axis, _PLACE.sub("#", name)] = told
            families[axis, f"{name.partition(':')[0]}:"] = told
    return {**families, **found}


def _cells(page: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Axis, cells and columns of each row of the page's tables."""
    axis = ""
    columns: list[str] = []
    for line in page.splitlines():
        if line.startswith("#"):
            axis, columns = SECTIONS.get(line.lstrip("# "), ""), []
        elif axis and line.startswith("|"):
            cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
            if not columns:
                columns = cells
            elif not set(cells[0]) <= {"-", " "}:
                yield axis, cells, columns
