"""Commands on the pruning literature, from counting a corpus to laying own results over it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrinkbench.cli.literature_told import (
    print_candidates,
    print_graph,
    print_paper,
    print_summary,
    write_graph,
)
from shrinkbench.cli.options import AsJson, CorpusDir
from shrinkbench.cli.tables import tell_doubts
from shrinkbench.errors import ShrinkbenchError, escaped
from shrinkbench.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd


app = typer.Typer(
    name="literature",
    help="Published pruning results as data: counts, figures, checks, and your own results beside them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

OutDir = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write files to this folder.")]
Keep = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="NAME", help="Do not apply this named exclusion; repeat for several."),
]

AsPrinted = Annotated[
    bool, typer.Option("--as-printed", help="Read the corpus without its listed errata (`literature errata`).")
]


@app.command()
def summary(
    corpus: CorpusDir = None,
    out: OutDir = None,
    as_json: AsJson = False,
    keep: Keep = None,
    as_printed: AsPrinted = False,
) -> None:
    """Count papers, datasets, networks, pairs and comparisons, with every exclusion and its count."""
    from shrinkbench.literature.store import load_corpus
    from shrinkbench.literature.summary import summarise_corpus

    found = summarise_corpus(load_corpus(corpus, as_printed=as_printed), keep=keep or ())
    text = json.dumps(found.as_json(), indent=2, ensure_ascii=False)
    if out is not None:
        write_atomically(out / "summary.json", (text + "\n").encode())
    if as_json:
        typer.echo(text)
    else:
        print_summary(found)


@app.command()
def table1(corpus: CorpusDir = None, out: OutDir = None, as_json: AsJson = False, keep: Keep = None) -> None:
    """List the (dataset, architecture) pairs that at least four papers use."""
    from shrinkbench.cli.tables import print_table
    from shrinkbench.literature.store import load_corpus
    from shrinkbench.literature.summary import TABLE1_MINIMUM, summarise_corpus
    from shrinkbench.literature.tables import write_table

    found = summarise_corpus(load_corpus(corpus), keep=keep or ())
    rows = [asdict(row) for row in found.table1]
    columns = ("dataset", "architecture", "papers")
    if out is not None:
        write_table(out / "table1.csv", columns, rows)
        lines = [f"{row['dataset']} & {row['architecture']} & {row['papers']} \\\\" for row in rows]
        head = "\\begin{tabular}{llr}\nDataset & Architecture & Papers \\\\\n\\hline\n"
        write_atomically(out / "table1.tex", (head + "\n".join(lines) + "\n\\end{tabular}\n").encode())
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if rows:
        print_table(rows, columns)
    else:
        typer.echo(f"no pair is used by {TABLE1_MINIMUM} papers or more; the corpus surveys {found.papers}")
    for applied in found.exclusions["counts"]:
        typer.echo(f"left out: {applied}")


@app.command()
def figures(
    corpus: CorpusDir = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Write the figures to this folder.")] = Path(
        "literature-figures"
    ),
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="svg, pdf or png; repeat for several, by default all.")
    ] = None,
    as_json: AsJson = False,
    keep: Keep = None,
    as_printed: AsPrinted = False,
) -> None:
    """Draw Figures 1 to 5 and the graph of comparisons, with their data as CSV and captions."""
    from shrinkbench.literature.figures import write_figures
    from shrinkbench.literature.store import load_corpus
    from shrinkbench.plotting import FORMATS

    loaded = load_corpus(corpus, as_printed=as_printed)
    written = write_figures(loaded, out, keep=keep or (), formats=tuple(formats or FORMATS))
    if as_json:
        entries = [
            {"figure": plate.name, "caption": plate.caption, "files": [str(path) for path in paths]}
            for plate, paths in written
        ]
        typer.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    for plate, paths in written:
        typer.echo(f"{plate.name}: {', '.join(path.name for path in paths) or plate.caption}")
    typer.echo(escaped(f"captions, with what is left out: {out / 'captions.md'}"))
    if loaded.errata_told:
        typer.echo(loaded.errata_told)


@app.command()
def graph(
    corpus: CorpusDir = None,
    out: OutDir = None,
    as_json: AsJson = False,
    dataset: Annotated[str, typer.Option(help="With --architecture: what must a new paper compare to?")] = "",
    architecture: Annotated[str, typer.Option(help="Network of the new paper, as Table 1 names it.")] = "",
    paper: Annotated[str, typer.Option(help="One paper: whom it compares to, and who compares to it.")] = "",
    keep: Keep = None,
) -> None:
    """Show who compares to whom, whom nobody compares to, and what a new paper must compare to."""
    from shrinkbench.literature.graph import comparison_graph
    from shrinkbench.literature.store import load_corpus

    if bool(dataset) != bool(architecture):
        missing = "--architecture" if dataset else "--dataset"
        raise ShrinkbenchError(f"--dataset and --architecture belong together; add {missing}")
    loaded = load_corpus(corpus)
    comparisons = comparison_graph(loaded)
    if dataset:
        print_candidates(loaded, dataset, architecture, keep or [], as_json=as_json)
    elif paper:
        print_paper(loaded, comparisons, paper, as_json=as_json)
    else:
        print_graph(comparisons, as_json=as_json)
    if out is not None:
        write_graph(comparisons, out)


@app.command()
def methods(
    corpus: CorpusDir = None,
    as_json: AsJson = False,
    least: Annotated[int, typer.Option(min=0, help="Papers that at least as many others compare to.")] = 2,
    dataset: Annotated[str, typer.Option(help="With --architecture: papers with results there.")] = "",
    architecture: Annotated[str, typer.Option(help="Network, as Table 1 names it.")] = "",
) -> None:
    """Show the papers that one has to compare to, and the method here that is theirs, or why there is none."""
    from shrinkbench.cli.tables import print_folded
    from shrinkbench.literature.methods import often_compared_to, on_this_network
    from shrinkbench.literature.store import load_corpus

    if bool(dataset) != bool(architecture):
        missing = "--architecture" if dataset else "--dataset"
        raise ShrinkbenchError(f"--dataset and --architecture belong together; add {missing}")
    loaded = load_corpus(corpus)
    if dataset:
        found = on_this_network(loaded, dataset, architecture)
    else:
        found = often_compared_to(loaded, least=least)
    rows = [
        {
            "paper": standing.paper.key,
            "label": standing.paper.label,
            "year": standing.paper.year,
            "title": standing.paper.title,
            "compared_to_by": standing.compared_to_by,
            "methods": list(standing.methods),
            "why_not": standing.why_not,
        }
        for standing in found
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    with_method = sum(bool(standing.methods) for standing in found)
    typer.echo(f"{len(found)} papers, {with_method} with a method here:")
    print_folded(
        ("paper", "compared to by", "method here, or why not"),
        [(s.paper.label, str(s.compared_to_by), " ".join(s.methods) or f"none: {s.why_not}") for s in found],
    )


@app.command()
def lint(
    corpus: CorpusDir = None,
    out: OutDir = None,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 where anything is found.")] = False,
    as_printed: AsPrinted = False,
) -> None:
    """Find entries that are inconsistent, impossible or ambiguous."""
    from shrinkbench.literature.linting import lint as run_checks
    from shrinkbench.literature.store import load_corpus

    loaded = load_corpus(corpus, as_printed=as_printed)
    findings = run_checks(loaded)
    rows = [asdict(finding) for finding in findings]
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    if out is not None:
        write_atomically(out / "lint.json", (text + "\n").encode())
    if as_json:
        typer.echo(text)
    else:
        for finding in findings:
            typer.echo(f"{finding.check}: {finding.where}: {finding.message}")
        typer.echo(f"{len(findings)} finding{'' if len(findings) == 1 else 's'}")
        if loaded.errata_told:
            typer.echo(loaded.errata_told)
    if strict and findings:
        raise typer.Exit(1)


@app.command()
def errata(corpus: CorpusDir = None, out: OutDir = None, as_json: AsJson = False) -> None:
    """List the corrections of a corpus: record, value as printed, value corrected, reason and source.

    Without --corpus: those that come with shrinkbench, for the published export.
    """
    from shrinkbench.literature.errata import ERRATA_FILE, Erratum, shipped_errata
    from shrinkbench.literature.store import load_corpus
    from shrinkbench.literature.tables import write_table

    listed = shipped_errata() if corpus is None else load_corpus(corpus).errata
    rows = [erratum.model_dump(mode="json") for erratum in listed]
    if out is not None:
        write_table(out / ERRATA_FILE, list(Erratum.model_fields), rows)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for erratum in listed:
        typer.echo(str(erratum))
    count = f"{len(listed)} {'erratum' if len(listed) == 1 else 'errata'}"
    if corpus is None:
        typer.echo(f"{count} of the published export, applied where it is read; the bundled tables have none")
    else:
        typer.echo(escaped(f"{count}, applied where {corpus} is read; --as-printed reads it without"))


@app.command()
def overlay(
    results: Annotated[
        Path,
        typer.Argument(
            help="Output folder of a sweep, a bundle (.zip), or results.csv or .parquet of a report.",
            show_default=False,
        ),
    ],
    corpus: CorpusDir = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Write figures and notes here.")] = Path(
        "literature-overlay"
    ),
    as_json: AsJson = False,
    keep: Keep = None,
    as_printed: AsPrinted = False,
) -> None:
    """Lay your own results over published curves: figure, points and notes on what differs."""
    from shrinkbench.literature.overlay import overlay as lay_over
    from shrinkbench.literature.overlay_figure import write_overlay
    from shrinkbench.literature.store import load_corpus

    laid = lay_over(_own_table(results), load_corpus(corpus, as_printed=as_printed), keep=keep or ())
    if not laid.found:
        raise ShrinkbenchError(
            f"nothing to lay over: {'; '.join(laid.unmatched)}; give another corpus with --corpus"
        )
    entries: list[dict[str, Any]] = [
        {
            "task": found.task,
            "published": [list(pair) for pair in found.pairs],
            "notes": list(found.notes),
            "files": [str(path) for path in write_overlay(found, out)],
        }
        for found in laid.found
    ]
    if as_json:
        typer.echo(
            json.dumps({"overlays": entries, "unmatched": list(laid.unmatched)}, indent=2, ensure_ascii=False)
        )
        return
    for entry in entries:
        typer.echo(f"{entry['task']}: {', '.join(Path(path).name for path in entry['files'])}")
        for note in entry["notes"]:
            typer.echo(f"  {note}")
    for reason in laid.unmatched:
        typer.echo(f"not laid over: {reason}")


def _own_table(path: Path) -> pd.DataFrame:
    """The result table of a sweep's folder or a bundle, or as a report has written it."""
    from zipfile import is_zipfile

    from shrinkbench.literature.overlay import read_own
    from shrinkbench.results.bundle import read_source, require_results
    from shrinkbench.results.frame import to_frame

    if (path / "runs").is_dir() or (path.is_file() and is_zipfile(path)):
        bundle = read_source(path)
        tell_doubts(bundle)
        require_results(bundle, "run a sweep into it first")
        return to_frame(bundle.results)
    return read_own(path)


@app.command()
def convert(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the corpus.", show_default=False)
    ],
    corpus: CorpusDir = None,
    as_printed: AsPrinted = False,
) -> None:
    """Write a corpus in our own format: one fact per row, with its source."""
    from shrinkbench.literature.store import load_corpus, write_corpus

    loaded = load_corpus(corpus, as_printed=as_printed)
    paths = write_corpus(loaded, out)
    names = ", ".join(path.name for path in paths)
    typer.echo(escaped(f"{len(loaded.papers)} papers, {len(loaded.facts)} facts -> {names} in {out}"))
    if loaded.errata_told:
        typer.echo(loaded.errata_told)
