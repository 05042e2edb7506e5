"""Commands on what has a name: list and describe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from shrinkbench.cli.networks import DatasetName, classes_of, load_named, shape_of
from shrinkbench.cli.options import AsJson, Data, Plugins, load_plugins, parse_shape
from shrinkbench.cli.stored import find_folder, load_folder
from shrinkbench.errors import ShrinkbenchError, UnknownNameError

app = typer.Typer()


@app.command("list")
def list_(
    what: Annotated[
        Literal["methods", "models", "datasets", "recipes", "experiments"],
        typer.Argument(help="Which registry."),
    ],
    as_json: AsJson = False,
    plugins: Plugins = None,
    structure: Annotated[str | None, typer.Option(help="Methods that remove these units alone.")] = None,
    needs: Annotated[
        list[str] | None,
        typer.Option(help="Methods that need this (and maybe more): data, labels, gradients; may be repeated."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Methods that need none of this until masks are decided, by score, schedule or else."
        ),
    ] = None,
    start: Annotated[str | None, typer.Option(help="Methods from trained or from untrained weights.")] = None,
    since: Annotated[int | None, typer.Option(help="Methods of papers from this year on.")] = None,
) -> None:
    """List what can be named: methods, models, datasets, recipes, experiments."""
    from shrinkbench.cli.listing import COLUMNS, entries

    load_plugins(plugins)
    rows = entries(what)
    if what == "methods":
        from shrinkbench.cli.methods import narrow

        rows = narrow(
            rows, structure=structure, needs=needs or (), without=without or (), start=start, since=since
        )
    elif structure or needs or without or start or since is not None:
        raise ShrinkbenchError(
            f"--structure, --needs, --without, --start and --since are of methods, not of {what}"
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    if what == "methods":
        from shrinkbench.cli.methods import print_methods

        print_methods(rows)
        return
    from shrinkbench.cli.tables import print_table

    print_table(rows, COLUMNS[what])


@app.command()
def describe(
    model: Annotated[
        str,
        typer.Argument(
            help="Network, method or value of an axis, by its name, or a folder that holds a network."
        ),
    ],
    input_shape: Annotated[
        str | None, typer.Option(metavar="C,H,W", help="Input other than the card's.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of a network that was made from this one.")
    ] = None,
    dataset: DatasetName = None,
    data: Data = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw a method's schedule into this file (.svg, .pdf or .png).")
    ] = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Say exactly what a network is, with its size by layer, or what a method does, costs and cites."""
    load_plugins(plugins)
    from shrinkbench.cli.listing import describe_model
    from shrinkbench.cli.naming import describe_value, is_method, is_model, print_values, unknown

    if not model.strip():
        raise ShrinkbenchError("an empty name describes nothing; name a network, a method or an axis value")
    place = find_folder(model, None if weights is None else str(weights))
    if weights is not None and place is None:
        raise ShrinkbenchError(f"--weights {weights} is no folder that holds a network; leave other files out")
    if place is None and is_method(model):
        given = {"--input-shape": input_shape, "--dataset": dataset, "--data": data}
        idle = [option for option, value in given.items() if value]
        if idle:
            raise ShrinkbenchError(f"{idle[0]} is for networks, and '{model}' is a method; leave it out")
        _describe_method(model, figure, as_json=as_json)
        return
    if figure is not None:
        if place is None and not is_model(model) and not describe_value(model):
            raise unknown(model)
        raise ShrinkbenchError(f"--figure draws the schedule of a method, and '{model}' is none; leave it out")
    loaded = load_named(dataset, data)
    shape = parse_shape(input_shape) if input_shape else shape_of(loaded)
    stored = None if place is None else load_folder(place[0], network=place[1])[0]
    try:
        description = describe_model(model, shape, classes=classes_of(loaded), stored=stored)
    except UnknownNameError:
        values = describe_value(model)
        if not values:
            raise unknown(model) from None
        if as_json:
            typer.echo(json.dumps(values, indent=1))
        else:
            print_values(values)
        return
    if as_json:
        typer.echo(json.dumps(description, indent=1))
        return
    from shrinkbench.cli.tables import print_description

    print_description(description)


def _describe_method(name: str, figure: Path | None, *, as_json: bool) -> None:
    """Print what a method is, and draw its schedule where a file for that was given."""
    from shrinkbench.cli.methods import describe_method, print_method
    from shrinkbench.pruning.course import course_of, save_course

    found = describe_method(name)
    if figure is not None:
        save_course(course_of(name), figure)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        print_method(found)
