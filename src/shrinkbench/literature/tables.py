"""Reading and writing CSV files strictly: a damaged file is one sentence with file, row and remedy."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shrinkbench.cells import as_text, from_text
from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import read_file, write_atomically

_LARGEST = 256 << 20  # bytes of a table
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Row:
    """One record of a CSV file; ``number`` counts records with the header as 1, ``line`` is its first line."""

    cells: dict[str, str]
    number: int
    line: int
    path: Path

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def error(self, column: str, problem: str) -> ShrinkbenchError:
        """The sentence for a cell that cannot be read."""
        return ShrinkbenchError(
            f"{self.path}, row {self.number} (line {self.line}), column '{column}': {problem}; correct the cell"
        )


def lies_at(path: Path) -> bool:
    """Whether anything is at ``path``: what is no file, or a link that leads nowhere, is not passed over."""
    return os.path.lexists(path)


def read_table(path: Path, columns: Iterable[str], *, remedy: str) -> list[Row]:
    """Read every record of ``path``; byte-order marks and cells of several lines are understood.

    A text that :func:`write_table` has marked is what it was, and none holds control characters. ``columns``
    must all be in the header. ``remedy`` ends each sentence. Raises ``ShrinkbenchError`` for a file that is
    missing, not UTF-8, cut off, foreign or lacks a column.
    """
    text = _decode(path, remedy)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    header: list[str] | None = None
    line = 1
    while True:
        number = len(rows) + (1 if header is None else 2)
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise ShrinkbenchError(
                f"{path}, row {number} (line {line}): {_name_where_read(error)}; {remedy}"
            ) from None
        if record is None:
            break
        if header is None:
            header = [name.strip() for name in record]
            _check_header(path, header, list(columns), remedy)
        elif record:
            if len(record) != len(header):
                raise ShrinkbenchError(
                    f"{path}, row {number} (line {line}): {len(record)} cells where the header has "
                    f"{len(header)}, as in a file that was cut off; {remedy}"
                )
            cells = {name: from_text(cell.strip()) for name, cell in zip(header, record, strict=True)}
            row = Row(cells=cells, number=number, line=line, path=path)
            _refuse_controls(row)
            rows.append(row)
        line = reader.line_num + 1
    if header is None:
        raise ShrinkbenchError(f"{path}, row 1: the file is empty; {remedy}")
    return rows


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write records to ``path``; missing values become empty cells, and no text is a formula."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({c: _cell_of(row[c]) for c in columns} for row in rows)
    write_atomically(path, text.getvalue().encode(), durable=False)


def _cell_of(value: object) -> object:
    if value is None:
        return ""
    return as_text(value) if isinstance(value, str) else value


def _decode(path: Path, remedy: str) -> str:
    try:
        return read_file(path, most=_LARGEST).decode("utf-8-sig")
    except FileNotFoundError:
        why = "is a link that leads nowhere" if path.is_symlink() else "does not exist"
        raise ShrinkbenchError(f"{path} {why}; {remedy}") from None
    except OSError as error:
        raise ShrinkbenchError(f"cannot read {path}: {error.strerror or error}; {remedy}") from None
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise ShrinkbenchError(
            f"{path}, line {row}: byte {error.start} is not UTF-8 text, so this is no CSV file of the "
            f"corpus; {remedy}"
        ) from None


def _refuse_controls(row: Row) -> None:
    """What acts on a terminal is no part of a text; lines and tabs are."""
    for column, cell in row.cells.items():
        found = _CONTROL.search(cell)
        if found is not None:
            raise row.error(one_line(column, 40), f"the control character {ascii(found[0])[1:-1]} is no text")


def _name_where_read(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "the file ends in the middle of a quoted cell"
    return f"not readable as CSV ({error})"


def _check_header(path: Path, header: list[str], columns: list[str], remedy: str) -> None:
    missing = [name for name in columns if name not in header]
    if not missing:
        repeated = sorted({name for name in header if name and header.count(name) > 1})
        if repeated:
            raise ShrinkbenchError(f"{path}, row 1: the column '{repeated[0]}' stands twice; {remedy}")
        return
    if len(missing) * 2 > len(columns):
        start = ", ".join(header[:4])[:80]
        raise ShrinkbenchError(
            f"{path}, row 1: this is another kind of file (its header starts with '{start}'); {remedy}"
        )
    names = ", ".join(f"'{name}'" for name in missing)
    plural = "s" if len(missing) > 1 else ""
    raise ShrinkbenchError(
        f"{path}, row 1: the column{plural} {names} {'are' if plural else 'is'} missing; {remedy}"
    )
