"""Tables that fit a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shrinkbench.errors import escaped

if TYPE_CHECKING:
    from shrinkbench.report.tables import Table as ReportTable
    from shrinkbench.results.bundle import Bundle
    from shrinkbench.results.store import Problem


def tell_problems(what: str, problems: Iterable[Problem]) -> None:
    """Name the files of a source that could not be used."""
    for problem in problems:
        typer.echo(escaped(f"{what} {problem.path}: {problem.sentence}"), err=True)


def tell_doubts(bundle: Bundle) -> None:
    """Name the files that were skipped, and say where another source has other numbers."""
    from shrinkbench.results.conflicts import say_conflict

    tell_problems("skipped", bundle.problems)
    conflicts = (*bundle.conflicts, *bundle.differing_controls)
    if conflicts:
        typer.echo(f"conflict: {say_conflict(conflicts)}", err=True)


def text(value: object) -> str:
    """A cell: numbers with thousands separators, lists joined, absent values blank."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ("x" if value and all(isinstance(v, int) for v in value) else ", ").join(str(v) for v in value)
    return str(value)


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print ``columns`` of ``rows``, numbers to the right; where they do not fit, each row as a paragraph."""
    console = Console(highlight=False)
    cells = [[text(row.get(column)) for column in columns] for row in rows]
    heads = [column.replace("_", " ") for column in columns]
    widths = [
        min(max([len(head), *(len(line[i]) for line in cells)]), 32 if i else 60)
        for i, head in enumerate(heads)
    ]
    if sum(widths) + 2 * len(columns) > console.width:
        for name, *others in cells:
            told = "; ".join(f"{head} {cell}" for head, cell in zip(heads[1:], others, strict=True) if cell)
            console.print(Text(name, overflow="fold"))
            console.print(Padding(Text(told, style="dim", overflow="fold"), (0, 0, 0, 4)))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, (column, head) in enumerate(zip(columns, heads, strict=True)):
        numeric = bool(rows) and all(isinstance(row.get(column), int | float | None) for row in rows)
        table.add_column(
            head,
            justify="right" if numeric else "left",
            overflow="fold",
            min_width=min(widths[i], 12),
            no_wrap=i == 0,
        )
    for line in cells:
        table.add_row(*map(Text, line))
    console.print(table)


def print_texts(tables: Sequence[ReportTable], form: str, *, as_json: bool) -> None:
    """Print a report's tables with their captions in a format of ``TEXTS``, or their cells' texts as JSON."""
    from shrinkbench.report.tables import TEXTS

    if as_json:
        rows = {
            t.name: [dict(zip(t.columns, (c.text for c in r), strict=True)) for r in t.rows] for t in tables
        }
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for number, table in enumerate(tables):
        typer.echo(f"{chr(10) if number else ''}{table.caption}\n")
        typer.echo(TEXTS[form](table))


def print_folded(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of texts whole: in a narrow terminal the first column and the last fold."""
    console = Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        folds = i == 0 or (i == len(columns) - 1 and i > 1)
        table.add_column(column, justify="left" if folds else "right", overflow="fold", no_wrap=not folds)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def print_description(description: dict[str, Any]) -> None:
    """Print a network's card and its layers."""
    console = Console(highlight=False)
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for key in (
        *("name", "definition", "reference", "input_shape"),
        *("parameters", "parameters_kept", "multiply_adds"),
    ):
        if key in description:  # what is kept is of folders alone
            facts.add_row(key.replace("_", " "), text(description[key]))
    facts.add_row("agrees with", description["agrees_with"])
    facts.add_row("classifier", text(description["classifier"]))
    for name, difference in description["namesakes"].items():
        facts.add_row("not to be mixed up with", f"{name}: {difference}")
    if description["published_as"]:
        facts.add_row("in papers", text(description["published_as"]))
    if description["pruned_from"]:
        facts.add_row("pruned from", description["pruned_from"])
    for entry in description["weights"]:
        facts.add_row("weights", _weights(entry))
    if description["weights_note"]:
        facts.add_row("on weights", description["weights_note"])
    console.print(facts)
    console.print()
    print_table(description["layers"], ("name", "shape", "parameters", "multiply_adds", "output_shape"))


def _weights(entry: dict[str, Any]) -> str:
    parts = [f"{entry['name']} ({entry['dataset']}; {entry['source']}; {entry['licence']})"]
    if entry["published_top1"] is not None:
        parts.append(f"published top-1 {entry['published_top1']:.4f}")
    parts += [f"measured {value:.4f} on {where}" for where, value in entry["measured_top1"].items()]
    return ", ".join(parts) + (f". {entry['note']}" if entry["note"] else "")


def print_pruned(report: dict[str, Any]) -> None:
    """Print what is left of a pruned network."""
    console = Console(highlight=False)
    console.print(
        f"parameters {report['parameters_kept']:,} of {report['parameters']:,} "
        f"(compression {report['compression']:.4f})"
    )
    console.print(
        f"multiply-adds {report['multiply_adds_kept']:,} of {report['multiply_adds']:,} "
        f"(theoretical speedup {report['theoretical_speedup']:.4f})"
    )
    rows = [
        {"layer": name, "kept": layer["kept"], "of": layer["total"], "density": layer["kept"] / layer["total"]}
        for name, layer in report["layers"].items()
    ]
    print_table(rows, ("layer", "kept", "of", "density"))
