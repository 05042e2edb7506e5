"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from shrinkbench.cli.notes import tell_notes
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import exists

Source = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="Output folder of a sweep, or a bundle (.zip).", show_default=False),
]
Sources = Annotated[
    list[Path],
    typer.Argument(metavar="A B ...", help="Output folders of sweeps, or bundles (.zip).", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Model = Annotated[
    str, typer.Option("--model", help="Network, as `shrinkbench list models` names it, or FILE.py:NAME.")
]
ModelOrFolder = Annotated[
    str, typer.Option("--model", help="Network by name, FILE.py:NAME, or a folder that holds a network.")
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="DIR", help="Folder of the data; NAME=DIR for one dataset of several."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
SweepsDevice = Annotated[
    str | None, typer.Option("--device", help="auto, cpu or cuda; by default that of the sweep.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1)]
TaskName = Annotated[
    str | None,
    typer.Option("--task", help="A task by name, or your own as FILE.py:NAME; by default the dataset's."),
]
Devices = Annotated[
    int, typer.Option("--devices", min=1, help="GPUs, or processes on CPUs, that carry one run out together.")
]
NumNodes = Annotated[
    int, typer.Option("--num-nodes", min=1, help="Machines with as many --devices each (docs/clusters.md).")
]
LogTo = Annotated[
    str | None,
    typer.Option("--log-to", metavar="TOOL", help="Tell every epoch to tensorboard, mlflow or wandb as well."),
]
TrainSmaller = Annotated[
    bool,
    typer.Option(
        "--train-smaller", help="Train pruned units out of the way where that is the same computation."
    ),
]
SweepsTrainSmaller = Annotated[
    bool | None,
    typer.Option(
        "--train-smaller/--train-masked",
        help="Train the physically smaller networks, or not; by default as the sweep does.",
        show_default=False,
    ),
]
Compile = Annotated[
    Literal["off", "on", "auto"],
    typer.Option("--compile", help="Compile training steps; auto: where the sweep takes less time for it."),
]
SweepsCompile = Annotated[
    Literal["off", "on"] | None,
    typer.Option("--compile", help="Compile training steps; by default as the sweep does.", show_default=False),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file of your own: methods, networks, datasets, ..."),
]


def parse_data(texts: list[str] | None) -> dict[str, Path]:
    """``DIR`` stands for every dataset (key ``""``), ``NAME=DIR`` for one."""
    places: dict[str, Path] = {}
    for text in texts or []:
        name, separator, folder = text.partition("=")
        if separator and not exists(Path(text)):
            places[name] = Path(folder)
        else:
            places[""] = Path(text)
    for path in places.values():
        if not exists(path):
            raise ShrinkbenchError(f"--data {path}: there is no such file or folder; check the path")
    return places


def parse_settings(texts: list[str] | None) -> dict[str, Any]:
    """``key=value`` pairs; the value is read as TOML and taken as text where it is none.

    >>> parse_settings(["seed=[0, 1]", "finetune.epochs=2", "method=random"])
    {'seed': [0, 1], 'finetune.epochs': 2, 'method': 'random'}
    """
    from shrinkbench.spec.value import parse_toml

    settings: dict[str, Any] = {}
    for text in texts or []:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ShrinkbenchError(f"--set {text}: write key=value, for example --set seed=[0,1]")
        try:
            parsed = parse_toml(f"value = {value}")
        except tomllib.TOMLDecodeError:
            settings[key.strip()] = value.strip()
        except ValueError as error:
            raise ShrinkbenchError(f"--set {key}: {error}; write a plain value") from None
        else:
            settings[key.strip()] = parsed.pop("value")
            if parsed:
                raise ShrinkbenchError(
                    f"--set {key} has more than one line; give --set once more for each value"
                )
    return settings


def parse_shape(text: str) -> tuple[int, ...]:
    """``C,H,W`` as numbers.

    >>> parse_shape("3,32,32")
    (3, 32, 32)
    """
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if not shape or any(n < 1 for n in shape):
        raise ShrinkbenchError(f"--input-shape {text}: write positive numbers C,H,W, for example 3,32,32")
    return shape


def load_plugins(paths: list[Path] | None) -> None:
    """Register what installed packages and plug-in files offer."""
    from shrinkbench.pruning import load_entry_points, load_plugin

    with tell_notes():
        load_entry_points()
        for path in paths or []:
            load_plugin(path)


CorpusDir = Annotated[
    Path | None,
    typer.Option(
        "--corpus",
        metavar="DIR",
        help="The published CSV export (or a checkout that holds it), or a corpus in our format; "
        "without it, the bundled tables of Liu et al. 2019.",
    ),
]
