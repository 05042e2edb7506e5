"""What the registries hold, as plain rows for tables and JSON."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from shrinkbench.cli.methods import method_row

if TYPE_CHECKING:
    from shrinkbench.spec import ExperimentSpec
    from shrinkbench.surgery.folders import StoredNetwork

Row = dict[str, Any]

COLUMNS: dict[str, tuple[str, ...]] = {
    "models": ("name", "input_shape", "num_classes", "parameters", "multiply_adds", "weights"),
    "datasets": ("name", "image_shape", "num_classes", "recipe", "description"),
    "recipes": ("name", "optimizer", "learning_rate", "batch_size", "epochs", "schedule", "selection"),
    "experiments": ("name", "runs", "description"),
}


def entries(what: str) -> list[Row]:
    """All rows of one registry."""
    return {
        "methods": _methods,
        "models": _models,
        "datasets": _datasets,
        "recipes": _recipes,
        "experiments": _experiments,
    }[what]()


def _methods() -> list[Row]:
    from shrinkbench.pruning import METHODS
    from shrinkbench.spec.targets import TARGETS

    targets = ((target, METHODS.get(target)) for target in TARGETS)
    return [method_row(name, method) for name, method in (*METHODS.items(), *targets)]


def _models() -> list[Row]:
    from shrinkbench.models import MODELS
    from shrinkbench.models.own import figures_of

    return [
        {
            "name": name,
            "family": card.family,
            "definition": card.definition,
            "reference": card.reference,
            "input_shape": list(card.input_shape),
            "num_classes": card.num_classes,
            **dict(zip(("parameters", "multiply_adds"), figures_of(card), strict=True)),
            "weights": [entry.name for entry in card.weights],
            "published_as": list(card.published_as),
        }
        for name, card in MODELS.items()
    ]


def _datasets() -> list[Row]:
    from shrinkbench.datasets import DATASETS

    return [
        {
            "name": name,
            "description": card.description,
            "reference": card.reference,
            "licence": card.licence,
            "num_classes": card.num_classes,
            "image_shape": list(card.image_shape) if card.image_shape else None,
            "splits": card.splits,
            "augmentation": card.augmentation,
            "normalisation": card.normalisation.model_dump(mode="json"),
            "recipe": card.recipe,
            "pretrain_recipe": card.pretrain_recipe,
        }
        for name, card in DATASETS.items()
    ]


def _recipes() -> list[Row]:
    from shrinkbench.training import RECIPES

    return [recipe.model_dump(mode="json") for _, recipe in RECIPES.items()]


def _experiments() -> list[Row]:
    from shrinkbench.cli.sweeps import experiment_folder
    from shrinkbench.spec import read_experiments

    rows = []
    for path in sorted(experiment_folder().glob("*.toml")):
        grids = read_experiments(path)
        runs = 0
        for spec in grids:
            axes = (spec.dataset, spec.model, spec.weights, spec.seed)
            runs += prod(len(axis) for axis in axes) * sum(_runs_of(spec, name) for name in spec.method)
        row = {"name": path.stem, "runs": runs, "description": grids[0].description, "file": str(path)}
        rows.append({**row, "parts": [g.name.removeprefix(f"{path.stem}-") for g in grids if len(grids) > 1]})
    return rows


def _runs_of(spec: ExperimentSpec, name: str) -> int:
    """How many runs a method of a grid has of one network and seed; a pattern's file need not be there."""
    from shrinkbench.pruning import METHODS

    base, _, changed = name.partition("[")
    amounts = len((*spec.compression, *spec.fraction_per_layer, *spec.channels, *spec.speedup))
    if METHODS.get(base).amount is not None:  # it brings that along, beside the control
        amounts = (1 in spec.compression) + 1
    trains = "pattern:" in changed or METHODS.get(name).finetuning.recipe == "finetuning"
    return amounts * (len(spec.recipe or ("default",)) if trains else 1)


def describe_model(
    name: str,
    input_shape: tuple[int, ...] | None,
    *,
    classes: int | None = None,
    stored: StoredNetwork | None = None,
) -> Row:
    """A network's card, its counts at ``input_shape``, and one row per weighted layer.

    Of a ``stored`` network it is the card of the one that it was made from, and what masks keep of it.
    """
    from shrinkbench.metrics import count_kept, count_parameters
    from shrinkbench.models import build, example_for, get_model, shape_for
    from shrinkbench.network.probe import classifier_of, trace
    from shrinkbench.network.weights import layer_of

    if stored is None:
        card, module = get_model(name), build(name, num_classes=classes)
        shape, of_folder = shape_for(card, input_shape), {}
    else:
        card, module = get_model(stored.description.network), stored.module
        shape, classes = input_shape or stored.description.input_shape, stored.description.num_classes
        of_folder = {
            "parameters_kept": count_kept(module, stored.masks),
            "small": stored.description.is_small,
        }
    takes = stored.description.example if stored is not None and input_shape is None else None
    traced = trace(module, takes or example_for(card, shape))
    by_parameter = traced.by_parameter
    outputs = {p.parameter: list(p.output_shape[1:]) for p in traced.products if p.parameter}
    sizes = {n: p.numel() for n, p in module.named_parameters()}
    layers = [
        {
            "name": layer_of(parameter) or parameter,
            "parameter": parameter,
            "shape": list(dict(module.named_parameters())[parameter].shape),
            "parameters": sizes[parameter],
            "multiply_adds": count,
            "output_shape": outputs[parameter],
        }
        for parameter, count in by_parameter.items()
    ]
    return {
        "name": card.name,
        "family": card.family,
        "definition": card.definition,
        "reference": card.reference,
        "input_shape": list(shape),
        "num_classes": classes or card.num_classes,
        "parameters": count_parameters(module),
        "multiply_adds": traced.multiply_adds,
        **of_folder,
        "agrees_with": card.agrees_with,
        "classifier": sorted(classifier_of(module, traced)),
        "namesakes": dict(card.namesakes),
        "published_as": list(card.published_as),
        "pruned_from": card.pruned_from,
        "weights_note": card.weights_note,
        "weights": [
            {
                "name": entry.name,
                "dataset": entry.dataset,
                "source": entry.source,
                "licence": entry.licence,
                "sha256": entry.sha256,
                "git_blob": entry.git_blob,
                "published_top1": entry.published_top1,
                "measured_top1": entry.measured_top1,
                "note": entry.note,
            }
            for entry in card.weights
        ],
        "layers": layers,
    }
