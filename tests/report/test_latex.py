"""Tables as LaTeX: what they are made of, and that every kind compiles without running over its page."""

import re
import shutil
import subprocess

import made_results
import pytest
from made_results import make_results

from shrinkbench.report.latex import LONG, WIDE, latex, width_of
from shrinkbench.report.pareto import front_tables
from shrinkbench.report.result_tables import all_tables
from shrinkbench.report.short_labels import labels_table
from shrinkbench.report.statistics.fairness import set_up_table
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.tables import Cell, Table

ODD = r'\ & % $ # _ { } ~ ^ | " < > ± × – − … ≥ → µ é ł 漢 — “q” ½ `' + "'"

WIDE_LETTERS = "".join(chr(0xFEE0 + ord(character)) for character in '\\&%$#_{}~^|<>"')
BEGINNINGS = "[", " [", "*", "［", "＊"


def table(rows, *, name="t", columns=("method", "2×"), text="a", caption="A caption."):
    cells = tuple(Cell(f"{text}{index}") for index in range(len(columns)))
    return Table(name, caption, columns, (cells,) * rows)


def kinds():
    """A table of every kind: short, wide, long, both, and one that names all that LaTeX takes amiss."""
    wide = tuple(f"column {index}" for index in range(12))
    long_names = tuple(f"{name}[allocation=pattern:one.json]" for name in made_results.METHODS)
    best = Table("best", "Minus.", ("method", "points"), ((Cell("a"), Cell("−0.41 ± 0.02", best=True)),))
    return [
        table(3),
        table(3, name="wide", columns=wide, text="91.23 ± 0.45 "),
        table(3 * LONG, name="long"),
        table(3 * LONG, name="both", columns=wide[:8], text=long_names[0][:14]),
        table(2, name="odd_näme 1", text=ODD, caption=ODD),
        table(3, name="wide letters", text=WIDE_LETTERS, caption=WIDE_LETTERS),
        *(table(3, name=f"row {index}", text=first) for index, first in enumerate(BEGINNINGS)),
        best,
        labels_table({name: f"M{index}" for index, name in enumerate(long_names)}),
    ]


@pytest.mark.parametrize("made", kinds(), ids=lambda made: made.name)
def test_a_table_has_what_a_paper_needs(made):
    text = made.as_latex()
    first, *rest = text.splitlines()
    assert first.startswith("% needs ")
    body = "\n".join(rest)
    for command, package in (
        ("toprule", "booktabs"),
        ("begin{longtable}", "longtable"),
        ("begin{landscape}", "lscape"),
    ):
        assert (f"\\{command}" in body) == (f"{{{package}}}" in first), package
    assert ("\\resizebox" in body) == ("{graphicx}" in first)
    assert len(re.findall(r"\\caption\{", body)) == len(re.findall(r"\\label\{tab:[A-Za-z0-9.-]+\}", body)) == 1
    assert "\\centering" in body or "\\begin{longtable}" in body  # which centres by itself
    assert ("\\begin{longtable}" in body) == (len(made.rows) > LONG)
    assert ("\\begin{landscape}" in body) == (len(made.rows) > LONG and width_of(made) > WIDE)
    for environment in set(re.findall(r"\\begin\{(\w+)\}", body)):
        assert body.count(f"\\begin{{{environment}}}") == body.count(f"\\end{{{environment}}}")


def test_a_bold_minus_is_bold():
    (made,) = [made for made in kinds() if made.name == "best"]
    assert r"\textbf{\boldmath $-$0.41 $\pm$ 0.02}" in made.as_latex()


def test_text_has_no_character_that_fails():
    text = latex(ODD + "\n\t\x00")
    assert re.fullmatch(r"[ -~éł]*", text)
    assert "U+6F22" in text
    for character in "&%$#_{}":
        assert re.search(rf"\\{re.escape(character)}", text)


def test_wide_letters_and_what_begins_a_row_are_text():
    """A wide % would hide the rest of its row, a wide backslash be a command, [ an option of the row above."""
    assert latex(WIDE_LETTERS) == latex(r"\&%$#_{}~^|<>") + latex('"')
    assert [latex(first + "x") for first in BEGINNINGS] == ["{[}x", "{[}x", "{*}x", "{[}x", "{*}x"]


def run(tex, folder):
    """The log of compiling ``tex``, by whichever of two programs is here."""
    (folder / "t.tex").write_text(tex, encoding="utf-8")
    program = shutil.which("pdflatex") or shutil.which("tectonic")
    if program is None:
        pytest.skip("neither pdflatex nor tectonic is installed")
    options = ["--keep-logs", "--only-cached"] if "tectonic" in program else ["-interaction=nonstopmode"]
    done = subprocess.run(
        [program, *options, "t.tex"], cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
    log = (folder / "t.log").read_text(errors="replace") if (folder / "t.log").exists() else done.stderr
    assert done.returncode == 0, log[-2000:]
    return log


@pytest.mark.slow
def test_every_table_compiles_and_fits(tmp_path):
    runs = make_results(seeds=(0, 1, 2))
    observations = observe(runs)
    tables = [*kinds(), *all_tables(observations), *front_tables(observations), set_up_table(runs)]
    packages = "\n".join(f"\\usepackage{{{name}}}" for name in ("booktabs", "longtable", "lscape", "graphicx"))
    body = "\n\\clearpage\n".join(made.as_latex() for made in tables)
    document = f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    for _ in range(2):  # widths of long tables settle in the second run
        log = run(document, tmp_path)
    assert not re.findall(r"Overfull \\hbox.*", log)
    assert "multiply defined" not in log
    assert (tmp_path / "t.pdf").stat().st_size > 10_000
