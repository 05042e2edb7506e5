"""``shrinkbench power``: how many seeds a comparison needs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from shrinkbench.cli.options import AsJson, Source
from shrinkbench.cli.tables import print_texts, tell_doubts
from shrinkbench.errors import ShrinkbenchError, escaped

app = typer.Typer()


@app.command()
def power(
    directory: Source,
    margin: Annotated[float, typer.Option(help="The difference to be found, in points.")] = 1.0,
    chance: Annotated[float, typer.Option("--power", help="With which probability.")] = 0.8,
    form: Annotated[
        Literal["md", "tex", "csv"], typer.Option("--format", help="Markdown, LaTeX or comma-separated.")
    ] = "md",
    as_json: AsJson = False,
) -> None:
    """Tell how many seeds would find a difference between two methods, from the variance that was seen."""
    from shrinkbench.report.power import power_notes, power_tables
    from shrinkbench.report.statistics.observations import observe_bundle
    from shrinkbench.results.bundle import read_source, require_results

    if not 0 < margin < 100:
        raise ShrinkbenchError(f"--margin {margin:g} is no difference in points between 0 and 100")
    if not 0.05 < chance < 1:
        raise ShrinkbenchError(f"--power {chance:g} is no probability between 0.05 and 1")
    bundle = read_source(directory)
    require_results(bundle, "run a sweep into it first")
    tell_doubts(bundle)
    observations = observe_bundle(bundle)
    tables = [*power_tables(observations, margin=margin / 100, power=chance)]
    for note in power_notes(bundle, observations):
        typer.echo(f"note: {escaped(note)}", err=True)
    if not tables:
        raise ShrinkbenchError(f"{directory} holds no comparison of two methods on common seeds and one range")
    print_texts(tables, form, as_json=as_json)
