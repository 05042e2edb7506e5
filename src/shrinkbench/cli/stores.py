"""``shrinkbench store``: looking after a results folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from shrinkbench.cli.options import AsJson
from shrinkbench.errors import escaped

app = typer.Typer(no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a sweep.")]


@app.command()
def verify(directory: Folder, as_json: AsJson = False) -> None:
    """Read and check every file of the folder; what is damaged is named, with exit code 1.

    What is not there, though the plan or a result names it, is named too, and is no damage.
    """
    from shrinkbench.results.absent import find_absent
    from shrinkbench.results.store import existing_store
    from shrinkbench.results.upkeep import sentences_of, verify_store

    store = existing_store(directory)
    found, absent = sentences_of(verify_store(store), store.root), find_absent(store)
    if as_json:
        typer.echo(json.dumps({"damaged": found, "absent": absent}))
    else:
        for sentence in (*found, *absent):
            typer.echo(escaped(sentence))
        count = f"{len(found)} damaged file{'s' * (len(found) != 1)}"
        typer.echo(count if found else "all results, networks and code that are there are as they were written")
    if found:
        raise typer.Exit(1)


@app.command()
def repair(
    directory: Folder,
    wait: Annotated[
        float,
        typer.Option(
            help="Seconds to watch claims of other hosts for a heartbeat; they last 60.", min=0, max=86400
        ),
    ] = 0.0,
) -> None:
    """Set damaged files aside, and remove claims, temporary files and checkpoints that are left over."""
    from shrinkbench.results.store import Problem, existing_store
    from shrinkbench.results.upkeep import repair_store

    store = existing_store(directory)
    done = False
    for sentence in repair_store(store, wait=wait):
        typer.echo(escaped(sentence))
        done = True
    if not isinstance(store.find_plan(), Problem):  # else a sweep refuses the folder
        typer.echo("give the sweep again to make what is missing" if done else "nothing to repair")


@app.command()
def compact(directory: Folder) -> None:
    """Remove checkpoints of finished runs and empty folders, and rewrite the index."""
    from shrinkbench.results.store import existing_store
    from shrinkbench.results.upkeep import compact_store, disk_use, say_bytes

    store = existing_store(directory)
    before = sum(disk_use(store.root).values())
    for sentence in compact_store(store):
        typer.echo(escaped(sentence))
    after = disk_use(store.root)
    typer.echo(f"{before} bytes before, {sum(after.values())} after: {say_bytes(after)}")
