"""Tables as LaTeX: they compile as they are, fit on a page, and go on over pages where they are long."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shrinkbench.report.tables import Cell, Table

LONG = 40
"""A table of more rows goes on over pages."""
WIDE = 90
"""A long table of more characters across lies on its side, since no page's width holds it in small print."""

_MATH = {
    "±": "\\pm",
    "×": "\\times",
    "−": "-",
    "<": "<",
    ">": ">",
    "≤": "\\le",
    "≥": "\\ge",
    "→": "\\to",
    "≈": "\\approx",
    "·": "\\cdot",
    "µ": "\\mu",
}
_TEXT = {
    "\\": "\\textbackslash{}",
    "&": "\\&",
    "%": "\\%",
    "$": "\\$",
    "#": "\\#",
    "_": "\\_",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "|": "\\textbar{}",
    '"': "''",
    "–": "--",
    "…": "\\dots{}",
    "—": "---",
    "’": "'",
    "“": "``",
    "”": "''",
    "●": "$\\bullet$",
}


def latex(text: str) -> str:
    """Text with all that LaTeX would not print as it stands written otherwise.

    Letters beyond Latin ones, which common fonts lack, are given by their numbers. A bracket or a star that
    begins a row would be taken for an option of the end of the one above.

    >>> latex("50 % of w|1 ± 2 ¼"), latex("[x]")
    ('50 \\\\% of w\\\\textbar{}1 $\\\\pm$ 2 1/4', '{[}x]')
    """
    found = "".join(map(_character, unicodedata.normalize("NFC", text).lstrip()))
    return f"{{{found[0]}}}{found[1:]}" if found[:1] in ("[", "*") else found


def _character(character: str) -> str:
    if character in _MATH:
        return f"${_MATH[character]}$"
    if character in _TEXT:
        return _TEXT[character]
    if character.isspace():
        return " "
    if " " <= character <= "~" or ("À" <= character <= "ſ" and character.isalpha()):
        return character
    plain = unicodedata.normalize("NFKC", character).replace("⁄", "/")
    if plain.isascii() and plain.isprintable():  # a wide % is a %
        return "".join(_TEXT.get(part, f"${_MATH[part]}$" if part in _MATH else part) for part in plain)
    return f"(U+{ord(character):04X})"


def latex_table(table: Table) -> str:
    """A booktabs table with caption and label; a long one goes on over pages, on its side where it is wide.

    Numbers are bold in mathematics too, so that a minus sign is as bold as its digits. A short table is made
    smaller only where it would be wider than the text. The first line names the packages that it needs.
    """
    head = " & ".join(map(latex, table.columns)) + " \\\\"
    rows = [" & ".join(map(_cell, row)) + " \\\\" for row in table.rows]
    breakable = latex(table.caption).replace("\\_", "\\_\\allowbreak{}")
    named = (f"\\caption{{{breakable}}}", f"\\label{{tab:{_label(table.name)}}}")
    alignment = "l" * table.stubs + "r" * (len(table.columns) - table.stubs)
    if len(rows) <= LONG:
        packages, lines = ["booktabs", "graphicx"], _short(alignment, head, rows, named)
    else:
        packages, lines = ["booktabs", "longtable"], _long(alignment, head, rows, named)
        if width_of(table) > WIDE:
            packages, lines = (
                [*packages, "lscape"],
                ["\\begin{landscape}", *lines, "\\end{landscape}"],
            )
    needed = " ".join(f"\\usepackage{{{package}}}" for package in packages)
    return "\n".join([f"% needs {needed}", *lines])


def width_of(table: Table) -> int:
    """How many characters ``table`` has across, with two between columns."""
    texts = zip(table.columns, *([cell.text for cell in row] for row in table.rows), strict=True)
    return sum(max(map(len, column)) + 2 for column in texts)


def _short(alignment: str, head: str, rows: Sequence[str], named: Sequence[str]) -> list[str]:
    return [
        "\\begin{table}",
        "\\centering",
        *named,
        "\\smallskip",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{alignment}}}",
        *("\\toprule", head, "\\midrule", *rows, "\\bottomrule"),
        "\\end{tabular}}",
        "\\end{table}",
    ]


def _long(alignment: str, head: str, rows: Sequence[str], named: Sequence[str]) -> list[str]:
    return [
        "\\begingroup\\scriptsize\\setlength{\\tabcolsep}{3pt}",
        f"\\begin{{longtable}}{{{alignment}}}",
        "".join(named) + "\\\\",
        *("\\toprule", head, "\\midrule", "\\endfirsthead"),
        f"\\multicolumn{{{len(alignment)}}}{{l}}{{Table \\thetable, continued}}\\\\",
        *("\\toprule", head, "\\midrule", "\\endhead"),
        *("\\bottomrule", "\\endfoot"),
        *rows,
        "\\end{longtable}",
        "\\endgroup",
    ]


def _cell(cell: Cell) -> str:
    return f"\\textbf{{\\boldmath {latex(cell.text)}}}" if cell.best else latex(cell.text)


def _label(name: str) -> str:
    """A name of ASCII letters, digits, points and hyphens."""
    return "".join(c if c.isascii() and (c.isalnum() or c in ".-") else "-" for c in name)
