"""Tables for pages and papers: one value, four formats."""

from __future__ import annotations

import csv
import hashlib
import html
import io
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from shrinkbench.cells import as_text
from shrinkbench.report.latex import latex_table
from shrinkbench.report.statistics.curves import SAME


@dataclass(frozen=True)
class Cell:
    """One entry: its text, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A named table; every row has one cell per column, the first ``stubs`` columns are row headings.

    ``group`` is the heading under which a page shows it.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    stubs: int = 1
    group: str = ""

    def relabelled(self, labels: Mapping[str, str]) -> Table:
        """The same with ``labels`` in place of the row headings that have one."""
        rows = tuple(
            (*(Cell(labels.get(c.text, c.text), c.best) for c in row[: self.stubs]), *row[self.stubs :])
            for row in self.rows
        )
        return replace(self, rows=rows)

    def as_html(self) -> str:
        """A table element with scoped headings; the caption is left to the page, which must not clip it."""
        kinds = (' class="text"' if i < self.stubs else "" for i in range(len(self.columns)))
        head = "".join(
            f'<th scope="col"{kind}>{html.escape(c)}</th>' for kind, c in zip(kinds, self.columns, strict=True)
        )
        body = "".join(f"<tr>{''.join(map(self._html_cell, range(len(row)), row))}</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _html_cell(self, index: int, cell: Cell) -> str:
        text = html.escape(cell.text)
        if index < self.stubs:
            return f'<th scope="row">{text.replace("_", "_<wbr>")}</th>'
        return f"<td><strong>{text}</strong></td>" if cell.best else f"<td>{text}</td>"

    def as_markdown(self) -> str:
        """A pipe table; the best entries are bold."""
        lines = [self.columns, tuple("---" if i < self.stubs else "---:" for i in range(len(self.columns)))]
        lines += [tuple(f"**{c.text}**" if c.best else c.text for c in row) for row in self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def as_latex(self) -> str:
        """A booktabs table with caption and label; the best entries are bold. See :func:`latex_table`."""
        return latex_table(self)

    def as_csv(self) -> str:
        """Comma-separated values, as shown."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(map(as_text, self.columns))
        writer.writerows([as_text(cell.text) for cell in row] for row in self.rows)
        return text.getvalue()


TEXTS: dict[str, Callable[[Table], str]] = {
    "tex": Table.as_latex,
    "md": Table.as_markdown,
    "csv": Table.as_csv,
}


def plus_minus(mean: float, std: float, *, percent: bool) -> str:
    """Mean and sample standard deviation with fitting digits; a single run has no deviation.

    >>> plus_minus(0.91234, 0.0031, percent=True), plus_minus(0.5, float("nan"), percent=False)
    ('91.23 ± 0.31', '0.500')
    """
    if not math.isfinite(mean):
        return "–"
    scale, digits = (100, 2) if percent else (1, 3)
    text = f"{scale * mean:.{digits}f}"
    return f"{text} ± {scale * std:.{digits}f}" if math.isfinite(std) else text


def p_value(p: float) -> str:
    """A p-value to print.

    >>> p_value(0.0001), p_value(0.034), p_value(float("nan"))
    ('< 0.001', '0.034', '–')
    """
    if not math.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def amount_text(amount: str, target: float | None) -> str:
    """How much was asked for, by its label: a compression as a number, anything else in words.

    >>> amount_text("4x", 4.0), amount_text("60% of channels", float("nan"))
    ('4×', '60% of channels')
    """
    return f"{target:g}×" if target is not None and amount == f"{target:g}x" else amount


def ratio_text(ratio: float) -> str:
    """A compression or speedup.

    >>> ratio_text(31.623), ratio_text(8.0)
    ('31.6×', '8×')
    """
    return f"{ratio:.3g}×"


def achieved_text(target: float | None, achieved: float) -> str:
    """What was achieved, in brackets, where it does not follow from what was asked for.

    >>> achieved_text(4.0, 4.01), achieved_text(4.0, 5.0), achieved_text(None, 3.21)
    ('', ' (5×)', ' (3.21×)')
    """
    if not math.isfinite(achieved) or (target and abs(achieved / target - 1) < SAME):
        return ""
    return f" ({achieved:.3g}×)"


def effect(value: float, low: float, high: float) -> str:
    """An effect size with its interval; beyond 10 the number says nothing more.

    >>> effect(1.23, 0.4, 2.2), effect(-42.0, -80.0, -9.0), effect(float("nan"), 0, 0)
    ('1.2 [0.4, 2.2]', '< −10 [< −10, −9.0]', '–')
    """
    if not math.isfinite(value):
        return "–"
    if not (math.isfinite(low) and math.isfinite(high)):
        return _cap(value)
    return f"{_cap(value)} [{_cap(low)}, {_cap(high)}]"


def _cap(value: float) -> str:
    if abs(value) > 10:
        return "> 10" if value > 0 else "< −10"
    return f"{value:.1f}".replace("-", "−")


def interval(low: float, high: float, digits: int = 2) -> str:
    """An interval in brackets, or nothing where it is undefined."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")


_LONGEST_NAME = 140  # bytes; a file's name has 255, with what stands before and behind


def slug(text: str) -> str:
    """A name for files: letters, digits and hyphens; a long one is cut, and ends with a digest.

    >>> slug("cifar10 / ResNet-20")
    'cifar10-resnet-20'
    """
    words = "".join(c if c.isalnum() or c == "." else " " for c in text.lower()).split()
    name = "-".join(words)
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    begin = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f"{begin}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def slugs(texts: Iterable[str]) -> dict[str, str]:
    """A name for files of each text; those that would share one are numbered.

    >>> slugs(["cifar10 / resnet20", "cifar10 / ResNet20"])
    {'cifar10 / resnet20': 'cifar10-resnet20', 'cifar10 / ResNet20': 'cifar10-resnet20-2'}
    """
    names: dict[str, str] = {}
    for text in texts:
        stem = slug(text)
        tries = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        names[text] = next(name for name in tries if name not in names.values())
    return names
