"""``shrinkbench new``: a commented file to start from, which runs as it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from shrinkbench.errors import ShrinkbenchError, escaped
from shrinkbench.files import check_target, write_atomically

app = typer.Typer()

Kind = Literal["experiment", "method", "network", "dataset", "task", "recipe"]
TEMPLATES = Path(__file__).resolve().parent / "templates"


@app.command()
def new(
    kind: Annotated[Kind, typer.Argument(help="What to write a template of.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default my_KIND.py, my_experiment.toml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented template of an experiment, method, network, dataset, task or recipe."""
    suffix = ".toml" if kind == "experiment" else ".py"
    target = out or Path(f"my_{kind}{suffix}")
    if target.suffix != suffix:
        raise ShrinkbenchError(f"--out {target}: a template of this kind is a {suffix} file; name one")
    if not target.name.isprintable() or set(target.name) & set('"\\'):
        raise ShrinkbenchError(
            f"--out {target}: the template tells its name; choose one without quotes and signs that nobody sees"
        )
    if target.exists() and not force:
        raise ShrinkbenchError(f"{target} is there already; choose another file, or overwrite it with --force")
    check_target(target)
    text = (TEMPLATES / f"{kind}{suffix}.txt").read_text(encoding="utf-8")
    write_atomically(target, _named(text, f"FILE{suffix}", target.name).encode())
    typer.echo(escaped(f"{target}: read it, it says how to use it"))


def _named(text: str, placeholder: str, name: str) -> str:
    """``text`` with ``name`` in it, as a shell takes it where a command stands."""

    def quoted(found: re.Match[str]) -> str:
        return shlex.quote(found[0].replace(placeholder, name))

    lines = (
        re.sub(re.escape(placeholder) + r"[\w:]*", quoted, line) if "shrinkbench " in line else line
        for line in text.splitlines(keepends=True)
    )
    return "".join(lines).replace(placeholder, name)
