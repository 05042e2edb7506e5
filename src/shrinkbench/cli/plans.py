"""What a sweep would do and how long that takes, before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from shrinkbench.cli.progress import say_duration
from shrinkbench.errors import ShrinkbenchError

if TYPE_CHECKING:
    from shrinkbench.runner.sweeping import Prepared
    from shrinkbench.spec import ExperimentSpec


def print_plan(
    specs: tuple[ExperimentSpec, ...], target: Path, options: dict[str, Any], *, processes: int = 1
) -> None:
    """Tell what a sweep would do, and how long that takes by what is stored; refuse what it would refuse."""
    from shrinkbench.report.repairing import expect
    from shrinkbench.results.places import check_places
    from shrinkbench.results.store import ResultStore
    from shrinkbench.runner import prepare_sweep
    from shrinkbench.runner.fixed_rules import check_rules
    from shrinkbench.runner.forecast import costly_methods, forecast
    from shrinkbench.runner.sweeping import check_shares

    prepared = prepare_sweep(specs, target, **options)
    check_places(target, (spec.key for spec in prepared.todo))
    check_shares(prepared.todo, processes)
    check_rules(prepared.store, [spec for spec, _ in prepared.plans])
    found = forecast(prepared)
    tasks = ", ".join(f"{count} of kind {kind}" for kind, count in found.tasks.items() if kind != "run")
    typer.echo(f"{found.planned} runs planned, {len(prepared.todo)} to do{f'; first {tasks}' if tasks else ''}")
    typer.echo(f"{found.epochs} epochs, {found.images} training images, by the recipes")
    groups = expect(prepared.todo, ResultStore(target).results()[0])
    known = [group.seconds for group in groups if group.seconds is not None]
    unknown = [key for group in groups if group.seconds is None for key in group.keys]
    finished = sum(group.finished for group in groups)
    if known:
        typer.echo(
            f"about {say_duration(sum(known))} for {len(prepared.todo) - len(unknown)} runs one after another, "
            f"by the mean of {finished} finished ones"
        )
    if unknown:
        typer.echo(_say_timed(prepared, unknown))
    for line in costly_methods(prepared.todo):
        typer.echo(line)
    for spec in specs:
        if spec.until_decided is not None and prepared.todo:
            typer.echo(_say_first_look(prepared, spec.seed[: spec.until_decided.first_look], found.images))


def _say_first_look(prepared: Prepared, seeds: Sequence[int], images: int) -> str:
    """What a comparison costs at least, of the ``images`` of the largest plan; it may be undecided then."""
    from shrinkbench.runner.forecast import forecast

    first = replace(prepared, todo=tuple(spec for spec in prepared.todo if spec.seed in seeds))
    share = forecast(first).images / max(images, 1)
    return (
        f"until decided: the first look is at {len(seeds)} seeds, after {len(first.todo)} of these "
        f"{len(prepared.todo)} runs and {share:.0%} of their training images; decided there, the rest is saved"
    )


def compiling_pays(specs: tuple[ExperimentSpec, ...], target: Path, options: dict[str, Any]) -> bool:
    """Whether the sweep takes less time with compiled steps, which is told."""
    from shrinkbench.runner import prepare_sweep
    from shrinkbench.runner.calibrating import seconds_of_compiling

    prepared = prepare_sweep(specs, target, **options)
    if not prepared.todo:
        return False
    try:
        plain, compiled = seconds_of_compiling(prepared)
    except ShrinkbenchError as error:  # no compiler, or a network that cannot be timed
        typer.echo(f"steps are not compiled: {error}", err=True)
        return False
    found = "compiled" if compiled < plain else "not compiled"
    seconds = f"{say_duration(plain)} as they are, {say_duration(compiled)} compiled"
    typer.echo(f"steps are {found}: about {seconds}, by a few timed here just now", err=True)
    return compiled < plain


def _say_timed(prepared: Prepared, keys: Sequence[str]) -> str:
    """How long runs take of whose kind none is finished."""
    from shrinkbench.runner.calibrating import expected_seconds

    try:
        seconds = expected_seconds(prepared, keys)
    except ShrinkbenchError as error:  # the sweep tells it of each run
        return f"time unknown for {len(keys)} runs: {error}"
    return (
        f"about {say_duration(seconds)} of training and evaluation for {len(keys)} runs one after another, by "
        "steps timed here just now; deciding masks, loading and storing come to it"
    )
