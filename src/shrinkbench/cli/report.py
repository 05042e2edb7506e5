"""Commands that read results: report, status, checklist, bundle, merge, leaderboard."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shrinkbench.cells import say_count
from shrinkbench.cli.options import AsJson, CorpusDir, Data, Device, Plugins, Source
from shrinkbench.cli.tables import print_texts, tell_doubts, tell_problems
from shrinkbench.errors import ShrinkbenchError, escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shrinkbench.report.checklist import Line
    from shrinkbench.report.gaps import Repair
    from shrinkbench.report.grids import Definition

app = typer.Typer()

Proposed = Annotated[
    list[str] | None,
    typer.Option("--method", help="Method that the checklist judges; by default all but the baselines."),
]


@app.command()
def status(
    directory: Source,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Tell again until no run is missing.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="With --watch: seconds in between.")
    ] = 10.0,
) -> None:
    """Tell how many planned runs are done, failed and missing, and how much room a folder takes."""
    from shrinkbench.results.upkeep import disk_use, say_bytes

    while True:
        counts = _count(directory)
        typer.echo(json.dumps(counts) if as_json else ", ".join(f"{n} {name}" for name, n in counts.items()))
        if not watch or not counts["missing"]:
            break
        time.sleep(interval)
    if directory.is_dir() and not as_json:
        typer.echo(f"disk: {say_bytes(disk_use(directory))}")


def _count(directory: Path) -> dict[str, int]:
    from shrinkbench.results.bundle import read_source
    from shrinkbench.results.index import have_differing_controls
    from shrinkbench.results.store import ResultStore, status_of

    store, outline = ResultStore(directory), None
    if directory.is_dir() and not store.has_second_outcomes():
        with contextlib.suppress(ShrinkbenchError):  # told below, where all is read
            outline = store.outline()
    if outline is not None:
        entries, problems = store.entries()  # what the index knows is not read
        if not have_differing_controls(entries):
            tell_problems("skipped", problems)
            return status_of(entries, outline).as_dict()
    bundle = read_source(directory)
    tell_doubts(bundle)
    return bundle.status.as_dict()


@app.command()
def report(
    directory: Source,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; by default DIR/report, of NAME.zip NAME-report.")
    ] = None,
    proposed: Proposed = None,
    figures: Annotated[
        Literal["main", "all", "none"],
        typer.Option(help="Figures for papers: of the leading metric, of others too, or none."),
    ] = "main",
    corpus: CorpusDir = None,
) -> None:
    """Write the report: one offline page, figures (SVG, PDF, PNG), tables, results.csv, results.parquet."""
    from shrinkbench.report.page.html import write_report

    beside = directory / "report" if directory.is_dir() else directory.with_name(f"{directory.stem}-report")
    written = write_report(directory, out or beside, proposed=proposed or (), figures=figures, corpus=corpus)
    for problem in written.problems:
        typer.echo(escaped(f"skipped {problem}"), err=True)
    runs = say_count(written.runs, "run", "runs")
    files = say_count(len(written.problems), "file", "files")
    typer.echo(escaped(f"{runs}, {files} skipped -> {written.index}"))


@app.command()
def scratch(
    directory: Source,
    form: Annotated[
        Literal["md", "tex", "csv"], typer.Option("--format", help="Markdown, LaTeX or comma-separated.")
    ] = "md",
    margin: Annotated[
        float, typer.Option(min=0.0, help="Points within which from scratch matches fine-tuned.")
    ] = 0.5,
    as_json: AsJson = False,
) -> None:
    """Print pruned networks beside the same networks trained from scratch (Liu et al. 2019)."""
    from shrinkbench.report.scratch import scratch_tables
    from shrinkbench.results.bundle import read_source

    bundle = read_source(directory)
    tell_doubts(bundle)
    tables = scratch_tables(bundle.results, margin=margin)
    if not tables:
        raise ShrinkbenchError(
            f"{directory} holds no pruned network that was trained from scratch; sweep a method with "
            "[finetuning=scratch-e] or [finetuning=scratch-b] into it first"
        )
    print_texts(tables, form, as_json=as_json)


@app.command()
def checklist(
    directory: Source,
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
    from shrinkbench.results.bundle import read_source, require_results

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
    bundle = read_source(directory)
    require_results(bundle, "run a sweep into it first")
    tell_doubts(bundle)
    lines = checklists.judge(
        bundle.results,
        proposed=proposed or (),
        missing=bundle.missing,
        disputed=bundle.disputed,
        sequential=bundle.sequential,
    )
    if as_json:
        skipped = [{"path": str(p.path), "problem": p.sentence} for p in bundle.problems]
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

    if directory.is_file():
        raise ShrinkbenchError(
            f"--fix runs what is missing in a folder, and {directory} is a file; unpack a bundle with "
            f"`shrinkbench merge {directory} --out DIR`"
        )
    store = existing_store(directory)
    planned = store.read_plan()  # told before anything heavy starts
    load_plugins(plugins)
    from shrinkbench.runner.own_parts import require_own_parts

    require_own_parts(planned, store)
    from shrinkbench.runner import Workspace, plan, sweep
    from shrinkbench.runner.beside_plan import read_beside

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
            train_smaller=read_beside(directory).train_smaller,
            compiled=read_beside(directory).compiled,
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
    from shrinkbench.results.bundle import read_source
    from shrinkbench.results.store import ResultStore

    bundle = read_source(directory)  # a bundle's plan and results say what is missing as well as a folder's
    if bundle.plan is None:
        if not directory.is_file():
            ResultStore(directory).read_plan()  # says what is wrong with it
        raise ShrinkbenchError(f"{directory} holds no plan that can be read; bundle the folder of a sweep")
    planned, results = bundle.plan, bundle.results
    load_plugins(plugins)
    from shrinkbench.runner import Workspace, plan
    from shrinkbench.runner.own_parts import require_own_parts

    require_own_parts(planned, ResultStore(directory))

    workspace = Workspace(root=directory, data=parse_data(data))
    tell_problems("skipped", bundle.problems)
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
    typer.echo(say_count(repair.runs, "run is", "runs are") + " missing" + (":" if repair.runs else "."))
    for line in [*say_expected(groups), *(f"for {reason}" for reason in repair.reasons)]:
        typer.echo(f"  {line}")
    for note in repair.notes:
        typer.echo(f"note: {note}")
    if repair.runs:
        typer.echo("Nothing was trained. Larger compressions may follow until accuracy collapses.")


def _print_missing(missing: Repair) -> None:
    typer.echo(f"{say_count(missing.runs, 'run is', 'runs are')} missing:", err=True)
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
            typer.secho(f"\n{escaped(line.source)}: {line.group}", bold=True)
        mark, colour = _MARKS[line.status]
        typer.echo(typer.style(f" {mark} ", fg=colour, bold=True) + escaped(line.text))
        for fact in line.evidence:
            typer.echo(f"     {escaped(fact)}")
        if line.needed:
            lack = "to supply" if line.status == "undecidable" else "missing"
            typer.echo(f"     {lack}: {escaped(line.needed)}")
    counts = {status: sum(line.status == status for line in lines) for status in _MARKS}
    typer.echo(f"\n{', '.join(f'{count} {status}' for status, count in counts.items())}")
