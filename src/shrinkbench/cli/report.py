"""Commands that read results: report, status, checklist, bundle, merge, leaderboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shrinkbench.cli.options import AsJson, CorpusDir, Data, Device, Plugins
from shrinkbench.errors import ShrinkbenchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shrinkbench.report.checklist import Line
    from shrinkbench.report.gaps import Repair
    from shrinkbench.report.grids import Definition
    from shrinkbench.results.store import Problem

app = typer.Typer()

StoreDir = Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a sweep.", show_default=False)]
Sources = Annotated[
    list[Path],
    typer.Argument(metavar="A B ...", help="Output folders of sweeps, or bundles.", show_default=False),
]
Proposed = Annotated[
    list[str] | None,
    typer.Option("--method", help="Method that the checklist judges; by default all but the baselines."),
]


@app.command()
def status(directory: StoreDir, as_json: AsJson = False) -> None:
    """Tell how many planned runs are done, failed and missing."""
    from shrinkbench.results.store import existing_store

    counts = existing_store(directory).status().as_dict()
    if as_json:
        typer.echo(json.dumps(counts))
    else:
        typer.echo(", ".join(f"{count} {name}" for name, count in counts.items()))


@app.command()
def report(
    directory: StoreDir,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; by default DIR/report.")] = None,
    proposed: Proposed = None,
    figures: Annotated[bool, typer.Option(help="Draw the figures for papers too.")] = True,
    corpus: CorpusDir = None,
) -> None:
    """Write the report: one offline page, figures (SVG, PDF, PNG), tables, results.csv, results.parquet."""
    from shrinkbench.report.page.html import write_report

    written = write_report(
        directory, out or directory / "report", proposed=proposed or (), with_figures=figures, corpus=corpus
    )
    for problem in written.problems:
        typer.echo(f"skipped {problem}", err=True)
    typer.echo(f"{written.runs} runs, {len(written.problems)} files skipped -> {written.index}")


def _tell(what: str, problems: Iterable[Problem]) -> None:
    """Name the files of a store that could not be used."""
    for problem in problems:
        typer.echo(f"{what} {problem.path}: {problem.sentence}", err=True)


@app.command()
def scratch(
    directory: StoreDir,
    form: Annotated[
        Literal["md", "tex", "csv"], typer.Option("--format", help="Markdown, LaTeX or comma-separated.")
    ] = "md",
    as_json: AsJson = False,
) -> None:
    """Print pruned networks beside the same networks trained from scratch (Liu et al. 2019)."""
    from shrinkbench.report.scratch import scratch_tables
    from shrinkbench.report.tables import TEXTS
    from shrinkbench.results.store import existing_store

    results, problems = existing_store(directory).results()
    _tell("skipped", problems)
    tables = scratch_tables(results)
    if not tables:
        raise ShrinkbenchError(
            f"{directory} holds no pruned network that was trained from scratch; sweep a method with "
            "[finetuning=scratch-e] or [finetuning=scratch-b] into it first"
        )
    if as_json:
        rows = {
            t.name: [dict(zip(t.columns, (c.text for c in r), strict=True)) for r in t.rows] for t in tables
        }
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for number, table in enumerate(tables):
        typer.echo(f"{chr(10) if number else ''}{table.caption}\n")
        typer.echo(TEXTS[form](table))


@app.command()
def checklist(
    directory: StoreDir,
    as_json: AsJson = False,
    fix: Annotated[bool, typer.Option("--fix", help="Plan and run exactly the missing runs.")] = False,
    proposed: Proposed = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option("--pair", metavar="DATASET:NETWORK", help="With --fix: a further pair to add."),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="With --fix: tell the runs and their expected time; train nothing.")
    ] = False,
    workers: Annotated[int, typer.Option(help="With --fix: processes.")] = 1,
    device: Device = "auto",
    data: Data = None,
    plugins: Plugins = None,
) -> None:
    """Judge every line of Appendix B and Section 6 of Blalock et al. (2020), and two of Liu et al. (2019)."""
    from shrinkbench.report import checklist as checklists
    from shrinkbench.results.store import existing_store

    store = existing_store(directory)
    if pairs and not fix:
        raise ShrinkbenchError("--pair names what --fix adds; give --fix as well, or leave --pair out")
    if plan_only and not fix:
        raise ShrinkbenchError("--plan tells what --fix would run; give --fix as well")
    if fix:
        asked = [_pair(text) for text in pairs or ()]
        if plan_only:
            _print_plan(
                directory, proposed=proposed or (), pairs=asked, data=data, plugins=plugins, as_json=as_json
            )
            return
        sweeping = {"workers": workers, "device": device}
        _fix(
            directory,
            proposed=proposed or (),
            pairs=asked,
            sweep_options=sweeping,
            data=data,
            plugins=plugins,
        )
    results, problems = store.results()
    if not results:
        raise ShrinkbenchError(f"{directory} holds no results; run a sweep into it first")
    _tell("skipped", problems)
    lines = checklists.judge(results, proposed=proposed or ())
    if as_json:
        skipped = [{"path": str(p.path), "problem": p.sentence} for p in problems]
        typer.echo(json.dumps(checklists.as_json(lines) | {"skipped": skipped}, indent=1))
    else:
        _print_lines(lines)


def _pair(text: str) -> tuple[str, str]:
    dataset, separator, network = text.partition(":")
    if not (separator and dataset and network):
        raise ShrinkbenchError(f"--pair {text}: write DATASET:NETWORK, for example cifar10:resnet20")
    return dataset, network


def _fix(
    directory: Path,
    *,
    proposed: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    sweep_options: dict[str, Any],
    data: list[str] | None,
    plugins: list[Path] | None,
) -> None:
    """Run what is missing, and say what no run can mend."""
    from shrinkbench.cli.options import load_plugins, parse_data
    from shrinkbench.report.repairing import repair
    from shrinkbench.results.store import existing_store

    store = existing_store(directory)
    store.read_plan()  # told before anything heavy starts
    load_plugins(plugins)
    from shrinkbench.runner import Workspace, plan, sweep

    places = parse_data(data)
    workspace = Workspace(root=directory, data=places)
    notes = repair(
        store,
        resolve=lambda experiment: plan(experiment, workspace).runs,
        sweep=lambda experiment: sweep(
            experiment,
            directory,
            data=places,
            plugins=plugins or (),
            retry_failed=True,
            on_progress=lambda p: typer.echo(f"[{p.done}/{p.total}] {p.kind} {p.label}", err=True),
            **sweep_options,
        ),
        define=_definition,
        proposed=proposed,
        pairs=pairs,
        on_round=_print_missing,
    )
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def _print_plan(
    directory: Path,
    *,
    proposed: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    data: list[str] | None,
    plugins: list[Path] | None,
    as_json: bool,
) -> None:
    """Tell which runs --fix would add at once, how long they take, and why; train nothing."""
    from shrinkbench.cli.options import load_plugins, parse_data
    from shrinkbench.report.gaps import plan_repair
    from shrinkbench.report.repairing import expect, expected_as_json, say_expected
    from shrinkbench.results.store import existing_store

    store = existing_store(directory)
    planned = store.read_plan()
    load_plugins(plugins)
    from shrinkbench.runner import Workspace, plan

    workspace = Workspace(root=directory, data=parse_data(data))
    results, problems = store.results()
    _tell("skipped", problems)
    repair = plan_repair(
        planned,
        results,
        resolve=lambda experiment: plan(experiment, workspace).runs,
        define=_definition,
        proposed=proposed,
        pairs=pairs,
    )
    groups = expect(repair.missing, results)
    if as_json:
        found = expected_as_json(groups) | {"reasons": repair.reasons, "notes": repair.notes}
        typer.echo(json.dumps(found, indent=1))
        return
    typer.echo(f"{repair.runs} runs are missing" + (":" if repair.runs else "."))
    for line in [*say_expected(groups), *(f"for {reason}" for reason in repair.reasons)]:
        typer.echo(f"  {line}")
    for note in repair.notes:
        typer.echo(f"note: {note}")
    if repair.runs:
        typer.echo("Nothing was trained. Larger compressions may follow until accuracy collapses.")


def _print_missing(missing: Repair) -> None:
    typer.echo(f"{missing.runs} runs are missing:", err=True)
    for reason in missing.reasons:
        typer.echo(f"  {reason}", err=True)


def _definition(name: str) -> Definition | None:
    """What the library has under a method's name, if anything."""
    from shrinkbench.pruning import METHODS

    try:
        method = METHODS.get(name)
    except ShrinkbenchError:
        return None
    return method.spec, method.amount


_MARKS = {
    "satisfied": ("✓", "green"),
    "violated": ("✗", "red"),
    "undecidable": ("?", "yellow"),
    "inapplicable": ("–", "white"),
}


def _print_lines(lines: Sequence[Line]) -> None:
    group = None
    for line in lines:
        if (line.source, line.group) != group:
            group = (line.source, line.group)
            typer.secho(f"\n{line.source}: {line.group}", bold=True)
        mark, colour = _MARKS[line.status]
        typer.echo(typer.style(f" {mark} ", fg=colour, bold=True) + line.text)
        for fact in line.evidence:
            typer.echo(f"     {fact}")
        if line.needed:
            typer.echo(f"     {'to supply' if line.status == 'undecidable' else 'missing'}: {line.needed}")
    counts = {status: sum(line.status == status for line in lines) for status in _MARKS}
    typer.echo(f"\n{', '.join(f'{count} {status}' for status, count in counts.items())}")


@app.command()
def bundle(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Output folder of a sweep; with --verify a bundle.", show_default=False
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="File to write; by default NAME.zip.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check instead of writing.")] = False,
) -> None:
    """Pack results into one file that others can check, merge and compare."""
    from shrinkbench.results import bundle as bundles

    if verify:
        found = bundles.read_source(source)
        contradictions = bundles.verify(found)
        for sentence in contradictions[:20]:
            typer.echo(sentence, err=True)
        if contradictions:
            raise ShrinkbenchError(f"{source} contradicts itself in {len(contradictions)} places")
        typer.echo(f"{source}: {len(found.results)} runs, all consistent, content {found.digest}")
        return
    target = out or Path(f"{source.resolve().name}.zip")
    written = bundles.write_bundle(source, target)
    _tell("left out", written.problems)
    typer.echo(f"{len(written.results)} runs -> {target}, content {written.digest}")


@app.command()
def merge(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="Folder for the united results.")] = Path("results/merged"),
) -> None:
    """Unite the results of several folders or bundles."""
    from shrinkbench.results.bundle import merge as unite

    if len(sources) < 2:
        raise ShrinkbenchError("merge needs at least two folders or bundles")
    merged = unite(sources, out)
    _tell("left out", merged.problems)
    for source, count in merged.taken:
        typer.echo(f"{count} runs from {source}")
    if merged.differing:
        points = f"{100 * merged.largest_difference:.2f} points of top-1"
        typer.echo(
            f"{merged.differing} runs differ between sources, by up to {points}; the first source's are kept",
            err=True,
        )
    typer.echo(f"{merged.runs} runs -> {merged.out}")


@app.command()
def leaderboard(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="Folder for the site.")] = Path("leaderboard"),
) -> None:
    """Write a static site that ranks methods per task, every entry linked to its evidence."""
    from shrinkbench.report.leaderboard import write_leaderboard

    written = write_leaderboard(sources, out)
    _tell("left out", written.problems)
    typer.echo(f"leaderboard -> {written.index}")
