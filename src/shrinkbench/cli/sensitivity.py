"""``shrinkbench sensitivity``: what each layer alone can lose, on validation images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrinkbench.cli.networks import DatasetName, Entry, Weights, build_named, load_named, normalisation_of
from shrinkbench.cli.notes import tell_notes
from shrinkbench.cli.options import AsJson, Data, Device, Model, Plugins, TaskName, load_plugins
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import check_folder

if TYPE_CHECKING:
    import torch

    from shrinkbench.datasets import Batch
    from shrinkbench.results.sensitivity import Sensitivity

app = typer.Typer()


@app.command()
def sensitivity(
    model: Model,
    method: Annotated[str, typer.Option(help="A method of one step, as `shrinkbench list methods` names it.")],
    dataset: DatasetName = None,
    fractions: Annotated[
        str, typer.Option(metavar="F,F,...", help="Fractions of a layer's units to keep.")
    ] = "1,0.75,0.5,0.25,0.1,0.05",
    weights: Weights = None,
    weights_entry: Entry = None,
    data: Data = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Validation images to measure on; by default all.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that scoring looks at.")] = 64,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, max=2**63 - 1, help="Of draws and of scoring data; repeat it for several."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Layer (path or glob) to pass over; may be repeated.")
    ] = None,
    prune_classifier: Annotated[
        bool, typer.Option(help="Look at the layer that makes the logits too.")
    ] = False,
    prune_biases: Annotated[bool, typer.Option(help="Look at biases too.")] = False,
    prune_embeddings: Annotated[bool, typer.Option(help="Look at embeddings too.")] = False,
    most_lost: Annotated[
        float,
        typer.Option(help="How much of the metric a layer alone may lose in the bounds that are printed."),
    ] = 0.01,
    task: TaskName = None,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for sensitivity.csv, .svg, .pdf and .png.")] = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Prune one layer at a time, all others whole, and measure the network on validation images."""
    load_plugins(plugins)
    import torch

    from shrinkbench.models import get_model
    from shrinkbench.pruning import METHODS
    from shrinkbench.pruning.layer_sensitivity import check_method
    from shrinkbench.pruning.layer_sensitivity import sensitivity as find
    from shrinkbench.results.sensitivity import check_densities
    from shrinkbench.runner import resolve_device
    from shrinkbench.runner.workspace import example_of
    from shrinkbench.tasks import objective_for, task_of

    if out is not None:
        check_folder(out)
    densities = check_densities(_numbers(fractions))
    if not 0 <= most_lost < float("inf"):
        raise ShrinkbenchError(f"--most-lost {most_lost} bounds nothing; give a finite number of at least 0")
    chosen = METHODS.get(method)
    check_method(chosen)
    where, card, draws = resolve_device(device), get_model(model), tuple(dict.fromkeys(seed or [0]))
    loaded = load_named(dataset, data)
    if loaded is None:
        raise ShrinkbenchError("layers are measured on validation images; name a dataset with --dataset")
    module, file = build_named(model, weights, loaded, draws[0], entry=weights_entry)
    used = normalisation_of("auto", loaded, None if file is None else file.normalisation)
    source = loaded.validation
    if images is not None and images > len(source):
        raise ShrinkbenchError(f"--images {images} is more than the {len(source)} validation images there are")
    source = source if images is None else source.subset(images)

    def validation() -> Iterator[Batch]:
        return source.batches(128, normalisation=used, device=where, memory_format=torch.channels_last)

    def scoring(generator: torch.Generator) -> Iterator[Batch]:
        return loaded.train.batches(batch_size, normalisation=used, generator=generator, device=where)

    with tell_notes(), _progress() as advance:
        found = find(
            module.to(where).to(memory_format=torch.channels_last),
            chosen,
            validation=validation,
            densities=densities,
            batches=scoring,
            input_shape=example_of(card, loaded),
            seeds=draws,
            ignore=ignore or (),
            prune_classifier=prune_classifier,
            prune_biases=prune_biases,
            prune_embeddings=prune_embeddings,
            task=task_of(objective_for(task or loaded.card.task)),
            on_point=advance,
        )
    if out is not None:
        _write(found, out)
    if as_json:
        typer.echo(json.dumps(_report(found, most_lost), indent=1))
    else:
        _print(found, most_lost)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, which is gone afterwards."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("layers", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ShrinkbenchError(f"--fractions {text}: write numbers with commas, for example 0.5,0.25") from None


def _write(found: Sensitivity, out: Path) -> None:
    from shrinkbench.files import write_atomically
    from shrinkbench.plotting import save
    from shrinkbench.report.sensitivity_figure import sensitivity_figure
    from shrinkbench.results.frame import as_csv

    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "sensitivity.csv", as_csv(found.to_frame()).encode())
    save(sensitivity_figure(found), out / "sensitivity")


def _report(found: Sensitivity, most_lost: float) -> dict[str, Any]:
    name = found.metric.name
    return {
        "method": found.method,
        "metric": name,
        "whole": found.whole.metrics,
        "images": found.whole.examples,
        "layers": [
            {
                "layer": group.name,
                "layers": list(group.layers),
                "units": group.units,
                "lost": found.area(group.name),
                "max_ratio": found.allowed(group.name, most_lost),
                name: {f"{d:g}": list(found.values(group.name, d)) for d in found.densities},
            }
            for group in found.ranked()
        ],
        "bounds": found.bounds(most_lost).model_dump(mode="json"),
    }


def _print(found: Sensitivity, most_lost: float) -> None:
    """The layers, most sensitive first, and the bounds as lines of an experiment."""
    from statistics import fmean

    from shrinkbench.cli.tables import print_folded

    metric = found.metric
    seeds = f", mean over {len(found.seeds)} seeds" if len(found.seeds) > 1 else ""
    typer.echo(
        f"{metric.name} {found.whole[metric.name]:.4f} over {found.whole.examples:,} validation images; "
        f"below, with one layer pruned by {found.method} to a fraction of its units{seeds}"
    )
    coupled = any(len(group.layers) > 1 for group in found.groups)
    rows = [
        (
            group.name,
            f"{found.area(group.name):.4f}",
            *(f"{fmean(found.values(group.name, d)):.3f}" for d in found.densities),
            *([", ".join(group.layers[1:])] if coupled else []),
            *([] if coupled else [f"{found.allowed(group.name, most_lost):g}"]),
        )
        for group in found.ranked()
    ]
    last = "pruned with" if coupled else "max ratio"
    print_folded(("layer", "lost", *(f"{density:g}" for density in found.densities), last), rows)
    bounds = found.bounds(most_lost)
    typer.echo(f"no layer alone loses more than {most_lost:g} of {metric.name} within")
    if bounds.ignore:
        typer.echo(f"ignore = {json.dumps(list(bounds.ignore))}")
    if bounds.max_ratio is not None:
        typer.echo(f"max_ratio = {bounds.max_ratio:g}")
