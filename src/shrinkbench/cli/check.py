"""``shrinkbench check``: the laws of pruning methods, for those of a plug-in."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from shrinkbench.cli.options import AsJson

app = typer.Typer()


@app.command()
def check(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE ...", help="Python files that register methods; they are run."),
    ],
    as_json: AsJson = False,
) -> None:
    """Check that the methods of a plug-in meet budgets, repeat, leave no trace, ... in seconds.

    Exit code 1: a method breaks a law.
    """
    from shrinkbench.pruning.conformance import check as find

    found = find(*files)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        for finding in found:
            reason = f": {finding.reason}" if finding.reason else ""
            typer.echo(f"{finding.method}: {finding.law}: {finding.outcome}{reason}")
    if any(finding.outcome == "failed" for finding in found):
        raise typer.Exit(1)
