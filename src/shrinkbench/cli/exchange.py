"""Commands that pass results on: bundle, merge, diff, leaderboard."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from shrinkbench.cells import say_count
from shrinkbench.cli.options import AsJson, Source, Sources
from shrinkbench.cli.tables import print_folded, tell_doubts, tell_problems, text
from shrinkbench.errors import ShrinkbenchError, escaped, one_line
from shrinkbench.files import absolute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shrinkbench.results.bundle import Bundle
    from shrinkbench.results.difference import CellChange, ResultsDifference

app = typer.Typer()
_SHOWN = 20  # lines of one kind


@app.command()
def bundle(
    source: Source,
    out: Annotated[Path | None, typer.Option(help="File to write; by default NAME.zip.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check what DIR or a bundle says against itself; write nothing.")
    ] = False,
    show_plugins: Annotated[
        bool,
        typer.Option("--show-plugins", help="Print the code from outside that results rest on; write nothing."),
    ] = False,
) -> None:
    """Pack results into one file that others can check, merge and compare.

    With --verify, exit code 2: something contradicts itself; 1: something is implausible.
    """
    from shrinkbench.results.bundle import read_source, write_bundle

    if show_plugins:
        _show_plugins(read_source(source))
    if verify:
        _verify(source)
    if verify or show_plugins:
        return
    target = out or Path(f"{absolute(source).name}.zip")
    written = write_bundle(source, target)
    tell_doubts(written)
    _tell_code(written)
    typer.echo(
        escaped(f"{say_count(len(written.results), 'run', 'runs')} -> {target}, content {written.digest}")
    )


def _verify(source: Path) -> None:
    from shrinkbench.results.bundle import read_source, require_results
    from shrinkbench.results.verification import find_implausible, verify

    found = read_source(source)
    if not found.problems:
        require_results(found, "there is nothing to verify")
    contradictions, doubts = verify(found), find_implausible(found)
    _tell_code(found)
    for sentence in [*contradictions[:_SHOWN], *(f"implausible: {doubt}" for doubt in doubts[:_SHOWN])]:
        typer.echo(escaped(sentence), err=True)
    if contradictions:
        places = "1 place" if len(contradictions) == 1 else f"{len(contradictions)} places"
        raise ShrinkbenchError(
            f"{source} contradicts itself in {places}; ask its author, or leave those runs out"
        )
    runs = say_count(len(found.results), "run", "runs")
    typer.echo(escaped(f"{source}: {runs}, consistent with itself, content {found.digest}"))
    typer.echo("whether it is what its author made, only that digest tells: ask for theirs and compare")
    if doubts:
        typer.echo(
            f"{len(doubts)} result{'s are' if len(doubts) > 1 else ' is'} implausible: ask how they came about",
            err=True,
        )
        raise typer.Exit(1)


def _tell_code(bundle: Bundle) -> None:
    """Name outside code that cannot be read here."""
    for code, runs in bundle.runs_by_code().items():
        lack = bundle.lacks_source(code)
        if lack:
            typer.echo(
                f"{say_count(len(runs), 'run rests', 'runs rest')} on outside code {code[:12]}; {lack}",
                err=True,
            )


def _show_plugins(bundle: Bundle) -> None:
    """Print the files behind every digest; nothing of them is run."""
    used = bundle.runs_by_code()
    if not used:
        typer.echo(escaped(f"{bundle.source}: no run rests on code from outside shrinkbench"))
    for code, runs in used.items():
        methods = ", ".join(sorted({run.spec.method.name for run in runs}))
        typer.echo(f"# code {code}: {say_count(len(runs), 'run', 'runs')} of {methods}")
        lack = bundle.lacks_source(code)
        if lack:
            typer.echo(f"# {lack}")
        for place, content in bundle.sources.get(code, {}).items():
            typer.echo(f"# ---- {place}")
            typer.echo(_shown(content))


def _shown(content: bytes) -> str:
    """Text whose control characters cannot act on a terminal."""
    text = content.decode("utf-8", errors="backslashreplace")
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


@app.command()
def merge(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="Folder for the united results.")] = Path("results/merged"),
) -> None:
    """Unite the results of several folders or bundles in one folder, or unpack one bundle.

    Runs that two sources finished with other numbers are both kept, as a conflict; so are those that finished
    in one and failed in another.
    """
    from shrinkbench.results.conflicts import accuracy_difference, differences, say_conflict
    from shrinkbench.results.merging import merge as unite

    if len(sources) < 2 and not sources[0].is_file():
        raise ShrinkbenchError("merge needs at least two folders or bundles, or one bundle to unpack")
    merged = unite(sources, out)
    tell_problems("left out", merged.problems)
    for source, count in merged.taken:
        typer.echo(escaped(f"{say_count(count, 'run', 'runs')} from {source}"))
    for first, other in sorted(merged.conflicts, key=lambda pair: -abs(accuracy_difference(pair)))[:_SHOWN]:
        metric = first.spec.task.objective.headline
        used = f"{first.headline:.6g}"
        failed = f"failed ({one_line(other.error or '', 80)})"
        told = f"{other.headline:.6g}" if other.status == "done" else failed
        if told == used:  # it is something else that they differ in
            metric, used, told = (one_line(text, 60) for text in differences((first, other))[0])
        typer.echo(
            f"conflict: run {first.key[:12]} has {metric} {used} on {first.provenance.host} and "
            f"{told} on {other.provenance.host}",
            err=True,
        )
    if merged.conflicts:
        largest = merged.largest_difference
        typer.echo(
            f"{say_count(merged.differing, 'run differs', 'runs differ')} between sources, "
            f"{f'by up to {largest:.4g}' if largest else 'and none in what it is judged by'}; the "
            "first source's that finished are used, the others are stored beside them",
            err=True,
        )
    if merged.controls:
        typer.echo(f"conflict: {say_conflict(merged.controls)}", err=True)
    typer.echo(escaped(f"{say_count(merged.runs, 'run', 'runs')} -> {merged.out}"))


@app.command()
def leaderboard(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="Folder for the site.")] = Path("leaderboard"),
) -> None:
    """Write a static site that ranks methods per task, every entry linked to its evidence."""
    from shrinkbench.report.leaderboard import write_leaderboard

    written = write_leaderboard(sources, out)
    tell_problems("left out", written.problems)
    typer.echo(escaped(f"leaderboard -> {written.index}"))


@app.command()
def diff(
    first: Annotated[
        Path, typer.Argument(metavar="A", help="Output folder of a sweep, or a bundle.", show_default=False)
    ],
    second: Annotated[Path, typer.Argument(metavar="B", help="The other.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Tell what differs between two sets of results: runs, numbers, settings, means.

    Exit code 0: the same runs with the same numbers; 1: something differs; 2: one cannot be read.
    """
    from shrinkbench.results.bundle import read_source, require_results
    from shrinkbench.results.difference import difference_of

    bundles = [read_source(first), read_source(second)]
    for each in bundles:
        tell_doubts(each)
        require_results(each, "there is nothing to compare")
    found = difference_of(*bundles)
    if as_json:
        skipped = [[f"{p.path}: {p.sentence}" for p in each.problems] for each in bundles]
        typer.echo(
            json.dumps(
                {**asdict(found), "same": found.is_empty, "skipped": skipped}, indent=1, ensure_ascii=False
            )
        )
    else:
        _print_difference(found, first, second)
    if not found.is_empty or any(each.problems for each in bundles):
        raise typer.Exit(1)


def _print_difference(found: ResultsDifference, first: Path, second: Path) -> None:
    first_runs, second_runs = (say_count(count, "run", "runs") for count in found.runs)
    typer.echo(f"A: {escaped(first)}, {first_runs}\nB: {escaped(second)}, {second_runs}")
    if found.is_empty:
        typer.echo("the same runs with the same numbers in all that is measured but time; provenance aside")
        return
    paired = {key for group in found.settings for pair in group.pairs for key in pair}
    for name, runs in (("A", found.only_first), ("B", found.only_second)):
        alone = [(label, key[:12]) for key, label in runs if key not in paired]
        _print_rows(f"{say_count(len(alone), 'run', 'runs')} only in {name}", ("run", "key"), alone)
    rows = [
        (r.label, _number(r.first), _number(r.second), _signed(r.difference), ", ".join(r.fields))
        for r in found.unequal
    ]
    title = f"{say_count(len(rows), 'run', 'runs')} of one key with other numbers, largest difference first"
    _print_rows(title, ("run", "A", "B", "B - A", "differs in"), rows)
    for group in found.settings:
        differ = say_count(len(group.pairs), "run differs in its", "runs differ in their")
        title = f"{differ} settings, such as\n{fill(group.example, 78)}"
        _print_rows(
            title, ("setting", "A", "B"), [(s.field, text(s.first), text(s.second)) for s in group.settings]
        )
    if found.disputed:
        keys = ", ".join(key[:12] for key in found.disputed[:3])
        more = " and others" if len(found.disputed) > 3 else ""
        typer.echo(
            f"\n{say_count(len(found.disputed), 'run has', 'runs have')} conflicts that are not the same in "
            f"both: {keys}{more}"
        )
    if found.planned:
        those = say_count(len(found.planned), "run is", "runs are")
        typer.echo(f"\n{those} missing from both that one plan asks for, and the other does not")
    means = [
        (c.label, _number(c.first), str(c.first_n), _number(c.second), str(c.second_n), _settings(c))
        for c in found.cells
    ]
    _print_rows(
        f"{say_count(len(means), 'cell', 'cells')} with other means",
        ("cell", "A", "n", "B", "n", "settings"),
        means,
    )


def _settings(cell: CellChange) -> str:
    return "same" if cell.same_settings else "differ"


def _number(value: float | None) -> str:
    return "failed" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def _print_rows(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if rows:
        typer.echo(f"\n{title}")
        print_folded(columns, rows[:_SHOWN])
    if len(rows) > _SHOWN:
        typer.echo(f"and {len(rows) - _SHOWN} more (--json has all)")
