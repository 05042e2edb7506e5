"""Commands that read results: report, status, checklist, bundle, merge, leaderboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

StoreDir = Annotated[Path, typer.Argument(help="Output folder of a sweep.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
) -> None:
    """Write the report: index.html, figures (SVG, PDF, PNG), results.csv and results.parquet."""
    from shrinkbench.report.html import write_report

    written = write_report(directory, out or directory / "report")
    for problem in written.problems:
        typer.echo(f"skipped {problem}", err=True)
    typer.echo(f"{written.runs} runs -> {written.index}")
