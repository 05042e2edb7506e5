"""``shrinkbench detect``: a pruned classifier under Faster R-CNN on PASCAL VOC 2007."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shrinkbench.cli.notes import tell_notes
from shrinkbench.cli.options import AsJson, Device, ModelOrFolder, Plugins, Seed, load_plugins, parse_settings
from shrinkbench.cli.stored import find_folder, load_folder
from shrinkbench.errors import ShrinkbenchError

if TYPE_CHECKING:
    from shrinkbench.results.record import RunResult
    from shrinkbench.runner.detection import Decision, DetectionRun
    from shrinkbench.spec.measures import EpochRecord
    from shrinkbench.surgery.folders import StoredNetwork

app = typer.Typer()


@app.command()
def detect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that is or holds VOC2007.")],
    model: ModelOrFolder,
    weights: Annotated[
        str | None, typer.Option("--weights", help="The classifier's weights; random ones without.")
    ] = None,
    prune: Annotated[
        Literal["classifier", "detector"],
        typer.Option(help="What masks prune: the classifier before the transfer, or the trained detector."),
    ] = "classifier",
    masks: Annotated[
        Path | None, typer.Option(help="Masks of the classifier, from `prune --masks-out`.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="In place of --masks: a method that needs no data.")
    ] = None,
    compression: Annotated[float, typer.Option(min=1, help="For --method, of the classifier.")] = 2.0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the recipe: epochs=1.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of results; finished runs in it are not repeated.")] = Path(
        "results/detection"
    ),
    train_split: Annotated[str, typer.Option(help="Images to train on.")] = "trainval",
    validation_split: Annotated[
        str | None, typer.Option(help="Images for recipes that choose an epoch; none without.")
    ] = None,
    test_split: Annotated[str, typer.Option(help="Images to evaluate on.")] = "test",
    min_size: Annotated[int, typer.Option(min=32, help="Shorter side of an image, pixels.")] = 600,
    max_size: Annotated[int, typer.Option(min=32, help="Longer side at most, pixels.")] = 1000,
    seed: Seed = 0,
    device: Device = "auto",
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Train Faster R-CNN over a classifier and measure mean average precision (Prune-C and Prune-D)."""
    if masks is not None and method is not None:
        raise ShrinkbenchError("--masks and --method both say what to prune; pass one of them")
    load_plugins(plugins)
    from shrinkbench.datasets.voc_detection import DetectionData, read_voc
    from shrinkbench.models import get_model, locate_weights
    from shrinkbench.runner import resolve_device
    from shrinkbench.runner.detection import DetectionRun
    from shrinkbench.runner.detection import detect as carry_out
    from shrinkbench.surgery.folders import MASKS
    from shrinkbench.tasks.detection import require_metric
    from shrinkbench.training import RECIPES, with_overrides

    require_metric()
    recipe = with_overrides(RECIPES.get("voc-faster-rcnn"), parse_settings(settings))
    place = find_folder(model, weights)
    classes = transferred = None
    if place is not None:
        stored, transferred = _classifier_of(*place, masks=masks, method=method)
        model, weights = stored.description.network, str(stored.weights_file)
        classes = stored.description.num_classes or None
        masks = stored.folder / MASKS if len(stored.masks) else masks
    card = get_model(model)
    run = DetectionRun(
        root=out,
        model=card.name,
        data=DetectionData(
            train_images=read_voc(folder, train_split),
            validation_images=None if validation_split is None else read_voc(folder, validation_split),
            test_images=read_voc(folder, test_split),
            sides=(min_size, max_size),
        ),
        weights=None if weights is None else locate_weights(weights, card=card),
        recipe=recipe,
        seed=seed,
        pruned=_decide(card.name, card.input_shape, masks, method, compression, classes=classes),
        classes=classes,
        after_transfer=prune == "detector",
        device=resolve_device(device),
    )

    def tell(record: EpochRecord) -> None:
        typer.echo(f"epoch {record.epoch} of {recipe.epochs}: loss {record.train_loss:.4f}", err=True)

    with tell_notes():
        result = carry_out(run, on_epoch=None if as_json else tell)
    described = _describe(run, result)
    from shrinkbench.report.detection_beside import paper_precision

    described["paper_mean_average_precision"] = paper_precision(
        result.spec,
        classifier=None if transferred is None else transferred.spec,
        model=run.model,
        after_transfer=run.after_transfer,
    )
    _tell(described, as_json=as_json)


def _classifier_of(
    folder: Path, network: str | None, *, masks: Path | None, method: str | None
) -> tuple[StoredNetwork, RunResult | None]:
    """The network in ``folder``, which brings its masks; one that was cut out has none to be pruned by."""
    stored, result = load_folder(folder, network=network)
    if stored.description.is_small:
        raise ShrinkbenchError(
            f"{folder} holds a network that was cut out; give the masked one that it was made from (a run's "
            "folder, or --weights and --masks), which is cut out here"
        )
    if len(stored.masks) and (masks is not None or method is not None):
        raise ShrinkbenchError(f"{folder} brings its masks; leave --masks and --method out")
    return stored, result


def _decide(
    model: str,
    input_shape: tuple[int, ...],
    masks: Path | None,
    method: str | None,
    compression: float,
    *,
    classes: int | None,
) -> Decision | None:
    from shrinkbench.runner.detection import decide_by_masks, decide_by_method

    if masks is not None:
        return decide_by_masks(masks, network=model, classes=classes)
    if method is not None:
        return decide_by_method(method, compression=compression, input_shape=input_shape)
    return None


def _describe(run: DetectionRun, result: RunResult) -> dict[str, Any]:
    """What is printed of one run; ``before_pruning``: the precision of the detector that Prune-D began with."""
    from shrinkbench.datasets.voc2007 import CLASSES
    from shrinkbench.models import get_model, parameters_of

    if result.size is None or result.after is None:
        raise ShrinkbenchError(f"the stored result {result.key} is not of a finished run; remove it")
    pruned = sum(layer.total - layer.kept for layer in result.layers.values())
    objective = result.spec.task.objective
    by_class = zip(CLASSES, objective.metrics[1:], strict=True)
    variant = "unpruned" if run.pruned is None else "prune-d" if run.after_transfer else "prune-c"
    described = {
        "variant": variant,
        "model": run.model,
        "seed": run.seed,
        "key": result.key,
        "recipe": run.recipe.model_dump(),
        "classifier_parameters": parameters_of(get_model(run.model)),
        "classifier_parameters_left": parameters_of(get_model(run.model)) - pruned,
        "parameters": result.size.parameters,
        "parameters_left": result.size.parameters_kept,
        "losses": [record.train_loss for record in result.epochs],
        "mean_average_precision": result.headline,
        "average_precision": {
            name: result.after[metric.name] for name, metric in by_class if metric.name in result.after.metrics
        },
    }
    if run.after_transfer:
        described["before_pruning"] = run.store.read(run.transferred.spec.key).headline
    return described


def _tell(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report, indent=1))
        return
    from shrinkbench.cli.tables import print_table

    rows = [{"class": name, "average_precision": ap} for name, ap in report["average_precision"].items()]
    print_table(rows, ("class", "average_precision"))
    before = f" (after its first training {report['before_pruning']:.4f})" if "before_pruning" in report else ""
    typer.echo(
        f"{report['variant']}, {report['model']}: mean average precision "
        f"{report['mean_average_precision']:.4f}{before}, classifier of "
        f"{report['classifier_parameters_left']:,} of {report['classifier_parameters']:,} parameters, "
        f"detector of {report['parameters_left']:,} of {report['parameters']:,}"
    )
    if (paper := report["paper_mean_average_precision"]) is not None:
        apart = f"{report['mean_average_precision'] - paper:+.4f}".replace("-", "−")
        typer.echo(
            f"Table 12 of Liu et al. 2019: {paper:.4f} ({apart} here), over 11 points of recall, 101 here; "
            "docs/reproduction.md has what else differs"
        )
