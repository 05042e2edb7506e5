"""``shrinkbench connectivity``: the error along the line between two stored networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shrinkbench.cli.networks import load_named, normalisation_of
from shrinkbench.cli.options import AsJson, Data, Device, Plugins, load_plugins
from shrinkbench.errors import ShrinkbenchError

if TYPE_CHECKING:
    from torch import nn

app = typer.Typer()
Folder = Annotated[Path, typer.Argument(help="Folder of a network, such as a run's that is kept with weights.")]


@app.command()
def connectivity(
    first: Folder,
    second: Folder,
    dataset: Annotated[str, typer.Option(help="As `shrinkbench list datasets` names it.")],
    data: Data = None,
    split: Annotated[Literal["validation", "test"], typer.Option(help="Images to take errors on.")] = "test",
    points: Annotated[int, typer.Option(min=3, max=1001, help="Networks on the line, ends included.")] = 11,
    device: Device = "auto",
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Error (1 - top-1) along the line between two networks, and how high it rises above its ends."""
    load_plugins(plugins)
    import torch

    from shrinkbench.metrics import linear_connectivity
    from shrinkbench.runner import resolve_device
    from shrinkbench.surgery.folders import read_network
    from shrinkbench.training import evaluate

    where = resolve_device(device)
    networks = [read_network(folder) for folder in (first, second)]
    if networks[0].description.is_small or networks[1].description.is_small:
        raise ShrinkbenchError(
            "one of the networks was cut, and there is no line between networks of other shapes; give masked "
            "ones"
        )
    loaded = load_named(dataset, data)
    if loaded is None:
        raise ShrinkbenchError("errors are taken on images; name a dataset with --dataset")
    used = normalisation_of("auto", loaded, networks[0].description.normalisation)
    source = loaded.test if split == "test" else loaded.validation

    def error(module: nn.Module) -> float:
        batches = source.batches(128, normalisation=used, device=where, memory_format=torch.channels_last)
        return 1 - evaluate(module, batches)["top1"]

    ends = [network.module.to(where) for network in networks]
    found = linear_connectivity(ends[0], ends[1], error, points=points)
    if as_json:
        told = {"places": found.places, "errors": found.errors, "barrier": found.barrier}
        typer.echo(json.dumps({**told, "split": split, "images": len(source)}, indent=1))
        return
    for place, value in zip(found.places, found.errors, strict=True):
        typer.echo(f"{place:.3f}  error {value:.4f}")
    typer.echo(f"barrier {found.barrier:.4f}: the highest above the mean of the ends, {len(source):,} images")
