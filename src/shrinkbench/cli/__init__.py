"""The command line: it parses, delegates and prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import typer

from shrinkbench.cli import (
    check,
    connectivity,
    detect,
    exchange,
    export,
    literature,
    networks,
    new,
    patterns,
    power,
    pretrain,
    registries,
    report,
    sensitivity,
    stores,
    structured,
    sweeps,
)
from shrinkbench.cli.boundary import check_call, run_guarded

app = typer.Typer(
    name="shrinkbench",
    help="Honest, repeatable comparison of neural network pruning methods.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (
    sweeps.app,
    pretrain.app,
    report.app,
    power.app,
    exchange.app,
    registries.app,
    networks.app,
    check.app,
    structured.app,
    sensitivity.app,
    connectivity.app,
    export.app,
    patterns.app,
    detect.app,
    new.app,
):
    app.registered_commands += part.registered_commands
app.add_typer(stores.app, name="store", help="Look after a results folder.")
app.add_typer(literature.app, name="literature", help="The published results, as data.")


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit code 2."""
    os.environ["SHRINKBENCH_COMMAND"] = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    run_guarded(_call)


def _call() -> int | None:
    check_call(sys.argv[1:])
    name = Path(sys.argv[0]).name
    command = typer.main.get_command(app)
    # Not command.main(): it ends without a word at Ctrl-C, and with 1, which says much, where nobody reads on.
    try:
        with command.make_context(
            "python -m shrinkbench" if name == "__main__.py" else name, sys.argv[1:]
        ) as call:
            code: int | None = command.invoke(call)
    except typer.Exit as leaving:
        return leaving.exit_code
    return code
