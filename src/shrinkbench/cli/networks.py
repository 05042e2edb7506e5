"""Commands on single networks: prune and evaluate, and what they share with others."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shrinkbench.cli.notes import tell_notes
from shrinkbench.cli.options import (
    AsJson,
    Data,
    Device,
    Model,
    ModelOrFolder,
    Plugins,
    Seed,
    TaskName,
    load_plugins,
    parse_data,
)
from shrinkbench.cli.stored import find_folder, load_folder
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import check_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from shrinkbench.datasets import Batch, Dataset
    from shrinkbench.models import ModelCard, WeightsFile
    from shrinkbench.network.inputs import Inputs
    from shrinkbench.pruning import Masks
    from shrinkbench.spec import Amount, Normalisation
    from shrinkbench.surgery.folders import StoredNetwork

app = typer.Typer()

NOTABLE = 0.1
"""A compression further from what was asked for than this share is pointed out."""

Weights = Annotated[
    str | None,
    typer.Option("--weights", help="Weights file, or a name that `shrinkbench describe MODEL` lists."),
]
Entry = Annotated[
    str | None,
    typer.Option("--weights-entry", help="Entry or prefix of the weights in their file, such as model_ema."),
]
DatasetName = Annotated[str | None, typer.Option("--dataset", help="As `shrinkbench list datasets` names it.")]


@app.command()
def prune(
    model: Model,
    method: Annotated[
        str | None, typer.Option(help="As `shrinkbench list methods` names it.", show_default=False)
    ] = None,
    compression: Annotated[
        float | None, typer.Option(help="Original / kept parameters of the whole network, at least 1.")
    ] = None,
    fraction_per_layer: Annotated[
        float | None, typer.Option(help="Fraction of the units of every layer to remove.")
    ] = None,
    channels: Annotated[float | None, typer.Option(help="Fraction of all channels to remove.")] = None,
    speedup: Annotated[
        float | None, typer.Option(help="Original / kept multiply-adds of the whole network, above 1.")
    ] = None,
    latency_speedup: Annotated[
        float | None, typer.Option(help="Dense / small wall time on this machine, above 1.")
    ] = None,
    latency_batch: Annotated[int, typer.Option(min=1, help="Images per batch of --latency-speedup.")] = 1,
    round_to: Annotated[
        int | None, typer.Option(min=1, help="Channels of every group in multiples of this.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Layer (path or glob) that stays whole; may be repeated.")
    ] = None,
    max_ratio: Annotated[float | None, typer.Option(help="Largest fraction of a layer to remove.")] = None,
    one_shot: Annotated[
        bool, typer.Option("--one-shot", help="Masks alone, by a method that trains as it prunes, or rewinds.")
    ] = False,
    weights: Weights = None,
    weights_entry: Entry = None,
    imported: Annotated[
        Path | None,
        typer.Option("--import", help="Take weights and masks from a checkpoint of torch.nn.utils.prune."),
    ] = None,
    dataset: DatasetName = None,
    data: Data = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that scoring looks at.")] = 64,
    seed: Seed = 0,
    prune_classifier: Annotated[bool, typer.Option(help="Prune the layer that makes the logits too.")] = False,
    prune_biases: Annotated[bool, typer.Option(help="Prune biases too.")] = False,
    prune_embeddings: Annotated[bool, typer.Option(help="Prune embeddings too.")] = False,
    out: Annotated[Path | None, typer.Option(help="Pruned weights (.safetensors).")] = None,
    masks_out: Annotated[Path | None, typer.Option(help="Masks (.safetensors), name -> bool.")] = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Prune a network without training and say how small it gets."""
    load_plugins(plugins)
    import torch

    from shrinkbench.metrics.latency import Conditions
    from shrinkbench.models import get_model
    from shrinkbench.pruning import METHODS, amount_of, import_masks
    from shrinkbench.pruning import prune as find_masks
    from shrinkbench.seeds import stream
    from shrinkbench.surgery.latency import prune_to_latency
    from shrinkbench.tasks import objective_for, scoring_loss, split_for, task_of

    for target in (out, masks_out):
        if target is not None:
            check_target(target)
    if out is not None and masks_out is not None and out.resolve() == masks_out.resolve():
        raise ShrinkbenchError(f"--out and --masks-out both name {out}; give each a file of its own")
    if imported is not None:
        amounts = (compression, fraction_per_layer, channels, speedup, latency_speedup)
        bounds = (round_to, ignore, max_ratio)
        if any(given is not None for given in (method, weights, *amounts, *bounds)):
            raise ShrinkbenchError(
                "--import brings masks and weights; leave out method, amount, bounds and --weights"
            )
        card = get_model(model)
        loaded = load_named(dataset, data)
        module, _ = build_named(model, None, loaded, seed)
        with tell_notes():
            masks = import_masks(module, imported, entry=weights_entry)
        _finish(
            module,
            card,
            example_of_named(card, loaded),
            masks,
            out=out,
            masks_out=masks_out,
            as_json=as_json,
        )
        return
    if method is None:
        raise ShrinkbenchError("name a method with --method, or a file of masks with --import")
    chosen = METHODS.get(method)
    stated: dict[str, Any] = {
        "compression": compression,
        "fraction_per_layer": fraction_per_layer,
        "channels": channels,
        "speedup": speedup,
    }
    if latency_speedup is not None and any(value is not None for value in stated.values()):
        raise ShrinkbenchError("--latency-speedup says how much is to go; leave other amounts out")
    amount = None if latency_speedup is not None else amount_of(chosen, **stated)
    card = get_model(model)  # a wrong name is told before any data are read
    loaded = load_named(dataset, data)
    if loaded is None and "data" in chosen.needs_to_decide:
        raise ShrinkbenchError(f"method '{method}' scores weights on data; name it with --dataset (and --data)")
    module, file = build_named(model, weights, loaded, seed, entry=weights_entry)
    example = example_of_named(card, loaded)
    learned = task_of(objective_for(None if loaded is None else loaded.card.task))
    with tell_notes():
        settings: dict[str, Any] = {
            "round_to": round_to,
            "ignore": ignore or (),
            "max_ratio": max_ratio,
            "batches": None
            if loaded is None
            else (split_for(learned, b) for b in _scoring_batches(loaded, file, batch_size, seed)),
            "input_shape": example,
            "loss": scoring_loss(learned),
            "generator": torch.Generator().manual_seed(stream(seed, "scoring", 0)),
            "prune_classifier": prune_classifier,
            "prune_biases": prune_biases,
            "prune_embeddings": prune_embeddings,
            "one_shot": one_shot,
        }
        if latency_speedup is None:
            masks = find_masks(module, chosen, **stated, **settings)
        else:
            conditions = Conditions(latency_batch)
            module.eval()
            masks = prune_to_latency(module, chosen, latency_speedup, conditions=conditions, **settings)
    reached = _finish(module, card, example, masks, out=out, masks_out=masks_out, as_json=as_json)
    if amount is not None:
        _note_distance(chosen.name, amount, reached)


def _finish(
    module: nn.Module,
    card: ModelCard,
    example: Inputs,
    masks: Masks,
    *,
    out: Path | None,
    masks_out: Path | None,
    as_json: bool,
) -> float:
    """Apply ``masks``, write what is asked for, print the sizes and return the compression."""
    from shrinkbench.metrics import layer_densities, measure_size
    from shrinkbench.pruning import save_tensors

    masks.apply(module)
    size = measure_size(module, example, masks)
    if out is not None:
        save_tensors(module.state_dict(), out)
    if masks_out is not None:
        masks.save(masks_out, network=card.name)
    layers = {name: density.model_dump() for name, density in layer_densities(module, masks).items()}
    report = {**size.model_dump(), "layers": layers}
    if as_json:
        typer.echo(json.dumps(report, indent=1))
    else:
        from shrinkbench.cli.tables import print_pruned

        print_pruned(report)
    return size.compression


def _note_distance(method: str, amount: Amount, reached: float) -> None:
    """Point out a compression that is far from what was asked for."""
    from shrinkbench.spec import Compression

    if isinstance(amount, Compression) and abs(reached / amount.ratio - 1) > NOTABLE:
        typer.echo(
            f"note: {method} was asked for compression {amount.ratio:g} and reached {reached:.4g}", err=True
        )


@app.command()
def evaluate(
    model: ModelOrFolder,
    dataset: Annotated[str, typer.Option(help="As `shrinkbench list datasets` names it.")],
    weights: Weights = None,
    weights_entry: Entry = None,
    masks: Annotated[Path | None, typer.Option(help="Masks, as `prune --masks-out` writes them.")] = None,
    data: Data = None,
    split: Annotated[Literal["test", "validation"], typer.Option()] = "test",
    normalisation: Annotated[
        Literal["auto", "dataset", "imagenet"],
        typer.Option(help="auto: the weights' own where it is known, else the dataset's."),
    ] = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    task: TaskName = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Measure top-1, top-5 and loss of a network on a split."""
    import torch

    from shrinkbench.models import get_model
    from shrinkbench.pruning import Masks
    from shrinkbench.runner import resolve_device
    from shrinkbench.runner.deriving import threads_of
    from shrinkbench.tasks import objective_for, task_of
    from shrinkbench.training import evaluate as measure
    from shrinkbench.training.evaluation import require_runs

    load_plugins(plugins)
    where = resolve_device(device)
    place = find_folder(model, weights)
    stored, result = (None, None) if place is None else load_folder(place[0], network=place[1])
    name = get_model(model).name if stored is None else stored.description.network
    loaded = load_named(dataset, data)  # after a wrong name was told
    if loaded is None:
        raise ShrinkbenchError("name a dataset with --dataset")
    if stored is None:
        module, file = build_named(model, weights, loaded, seed, entry=weights_entry)
        known = file.normalisation if file is not None else None
    else:
        _check_classes(stored, loaded)
        module, known = stored.module, stored.description.normalisation
    if masks is not None:
        with tell_notes():
            Masks.load(masks, network=name).apply(module)
    used = normalisation_of(normalisation, loaded, known)
    source = loaded.test if split == "test" else loaded.validation
    batches = source.batches(128, normalisation=used, device=where, memory_format=torch.channels_last)
    learned = task_of(objective_for(task or loaded.card.task))
    one = source.subset(1).batches(1, normalisation=used, device=where)
    require_runs(module.to(where), one, task=learned, network=name, dataset=loaded.card.name)
    with nullcontext() if result is None else threads_of(result):  # as it was measured then
        quality = measure(
            module.to(where).to(memory_format=torch.channels_last),
            batches,
            precision="float32" if result is None else result.spec.recipe.precision,
            task=learned,
        )
    if as_json:
        where_measured = {"split": split, "normalisation": used.model_dump(mode="json")}
        typer.echo(json.dumps({**quality.metrics, "images": quality.examples, **where_measured}, indent=1))
        return
    words = {"top1": "top-1", "top5": "top-5"}
    found = ", ".join(f"{words.get(name, name)} {value:.4f}" for name, value in quality.metrics.items())
    counted = "tokens" if learned.objective.headline == "perplexity" else "images"
    typer.echo(f"{found} over {quality.examples:,} {split} {counted}")


def load_named(name: str | None, data: list[str] | None) -> Dataset | None:
    """The dataset of ``--dataset`` and ``--data``; ``None`` without a name."""
    if name is None:
        if data:
            raise ShrinkbenchError("--data was given without --dataset; say which dataset lies there")
        return None
    from shrinkbench.datasets import DATASETS, load_dataset

    places = parse_data(data)
    return load_dataset(name, places.get(DATASETS.get(name).name, places.get("")))


def example_of_named(card: ModelCard, dataset: Dataset | None) -> Inputs:
    """What the network takes: of the data where they say it, else of the card's own input shape."""
    from shrinkbench.models import example_for, shape_for
    from shrinkbench.runner.workspace import example_of

    return example_for(card, shape_for(card, None)) if dataset is None else example_of(card, dataset)


def shape_of(dataset: Dataset | None) -> tuple[int, ...] | None:
    """The shape of one input; ``None`` where that is not known."""
    return dataset.card.image_shape if dataset is not None else None


def classes_of(dataset: Dataset | None) -> int | None:
    """The number of classes that a network for ``dataset`` tells apart; ``None`` without a dataset."""
    return len(dataset.class_names) if dataset is not None else None


def build_named(
    model: str, weights: str | None, dataset: Dataset | None, seed: int, *, entry: str | None = None
) -> tuple[nn.Module, WeightsFile | None]:
    """The network for the classes of ``dataset``, and the file of weights that it has, if any."""
    from shrinkbench.models import build, get_model, load_weights
    from shrinkbench.runner.planning import check_compatible
    from shrinkbench.seeds import stream

    card = get_model(model)
    if dataset is not None:
        check_compatible(dataset, card)
    module = build(model, num_classes=classes_of(dataset), seed=stream(seed, "initialisation"))
    if weights is None:
        return module, None
    with tell_notes():
        return module, load_weights(module, weights, card=card, entry=entry)


def _check_classes(stored: StoredNetwork, dataset: Dataset) -> None:
    """Refuse a stored network that tells other classes apart than the dataset has, or takes other inputs."""
    description, classes, shape = stored.description, len(dataset.class_names), dataset.card.image_shape
    if description.num_classes != classes:
        raise ShrinkbenchError(
            f"the network in {stored.folder} was made for {description.num_classes} classes, and "
            f"'{dataset.card.name}' has {classes}; name the dataset that it was made for"
        )
    images = description.takes is None  # of tokens there may be any number
    if images and shape is not None and shape[0] != description.input_shape[0]:
        raise ShrinkbenchError(
            f"the network in {stored.folder} takes inputs of shape {description.input_shape}, and "
            f"'{dataset.card.name}' has {shape}; name the dataset that it was made for"
        )


def normalisation_of(choice: str, dataset: Dataset, of_weights: Normalisation | None) -> Normalisation:
    """The normalisation that ``auto`` (the weights' own, where known), ``dataset`` or ``imagenet`` means."""
    from shrinkbench.runner.workspace import normalisation_for
    from shrinkbench.spec import IMAGENET_NORMALISATION

    if choice == "imagenet":
        return IMAGENET_NORMALISATION
    return normalisation_for(dataset, of_weights if choice == "auto" else None)


def _scoring_batches(dataset: Dataset, file: WeightsFile | None, size: int, seed: int) -> Iterator[Batch]:
    """Training images in the order that ``seed`` gives."""
    import torch

    from shrinkbench.seeds import stream

    return dataset.train.batches(
        size,
        normalisation=normalisation_of("auto", dataset, file.normalisation if file is not None else None),
        generator=torch.Generator().manual_seed(stream(seed, "scoring-batch")),
    )
