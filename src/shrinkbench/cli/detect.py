"""``shrinkbench detect``: a pruned classifier under Faster R-CNN on PASCAL VOC 2007."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shrinkbench.cli.options import AsJson, Device, Model, Plugins, load_plugins, parse_settings
from shrinkbench.errors import ShrinkbenchError

if TYPE_CHECKING:
    from torch import nn

    from shrinkbench.detection import DetectionImages, Detector
    from shrinkbench.pruning import Masks
    from shrinkbench.spec import Recipe

app = typer.Typer()


@app.command()
def detect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that is or holds VOC2007.")],
    model: Model,
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
    train_split: Annotated[str, typer.Option(help="Images to train on.")] = "trainval",
    test_split: Annotated[str, typer.Option(help="Images to evaluate on.")] = "test",
    min_size: Annotated[int, typer.Option(min=32, help="Shorter side of an image, pixels.")] = 600,
    max_size: Annotated[int, typer.Option(min=32, help="Longer side at most, pixels.")] = 1000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Train Faster R-CNN over a classifier and measure mean average precision (Prune-C and Prune-D)."""
    if masks is not None and method is not None:
        raise ShrinkbenchError("--masks and --method both say what to prune; pass one of them")
    load_plugins(plugins)
    from shrinkbench.detection import VOC_RECIPE, build_detector, read_voc, require_metric
    from shrinkbench.metrics import count_parameters
    from shrinkbench.runner import resolve_device
    from shrinkbench.training import with_overrides

    require_metric()
    recipe = with_overrides(VOC_RECIPE, parse_settings(settings))
    train_images, test_images = read_voc(folder, train_split), read_voc(folder, test_split)
    classifier, shape = _load_classifier(model, weights, seed)
    decide = _Decision(model, masks, method, compression, shape)
    report: dict[str, Any] = {
        "variant": "unpruned",
        "model": model,
        "seed": seed,
        "recipe": recipe.model_dump(),
    }
    report["classifier_parameters"] = count_parameters(classifier)
    if decide.wanted and prune == "classifier":
        from shrinkbench.surgery.shrinking import shrink

        report["variant"] = "prune-c"
        classifier = shrink(classifier, decide(classifier), shape)
    where = resolve_device(device)
    made = _build_seeded(seed, lambda: build_detector(classifier, min_size=min_size, max_size=max_size)).to(
        where
    )
    report |= _train(made, train_images, test_images, recipe, seed, as_json=as_json)
    if decide.wanted and prune == "detector":
        from shrinkbench.detection import prune_detector

        report["before_pruning"] = report["mean_average_precision"]
        report["variant"] = "prune-d"
        made = prune_detector(made.cpu(), decide(made.cpu().classifier), shape).to(where)
        report |= _train(made, train_images, test_images, recipe, seed + 1, as_json=as_json)
    report["classifier_parameters_left"] = count_parameters(made.classifier)
    _tell(report, as_json=as_json)


class _Decision:
    """The masks that were asked for, if any."""

    def __init__(
        self,
        model: str,
        masks: Path | None,
        method: str | None,
        compression: float,
        shape: tuple[int, ...],
    ) -> None:
        from shrinkbench.models import get_model
        from shrinkbench.pruning import METHODS, Masks

        self.wanted = masks is not None or method is not None
        self._loaded = None if masks is None else Masks.load(masks, network=get_model(model).name)
        self._method = None if method is None else METHODS.get(method)
        self._compression, self._shape = compression, shape
        if self._method is not None and ("data" in self._method.needs or self._method.schedule.during):
            raise ShrinkbenchError(
                f"'{method}' looks at data; write its masks with `shrinkbench prune --masks-out`, and pass "
                "them with --masks"
            )

    def __call__(self, classifier: nn.Module) -> Masks:
        """Masks of ``classifier``'s parameters."""
        import torch

        from shrinkbench.pruning import prune

        if self._loaded is not None:
            return self._loaded
        assert self._method is not None  # noqa: S101  asked for only where something is wanted
        return prune(
            classifier,
            self._method,
            compression=self._compression,
            input_shape=self._shape,
            generator=torch.Generator().manual_seed(0),
        )


def _load_classifier(model: str, weights: str | None, seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    from shrinkbench.models import build, get_model, load_weights

    card = get_model(model)
    module = _build_seeded(seed, lambda: build(model))
    if weights is not None:
        load_weights(module, weights, card=card)
    return module.eval(), card.input_shape


def _build_seeded(seed: int, make: Any) -> Any:
    """What ``make`` draws from the global random state follows from ``seed``."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _train(
    detector: Detector,
    train_images: DetectionImages,
    test_images: DetectionImages,
    recipe: Recipe,
    seed: int,
    *,
    as_json: bool,
) -> dict[str, Any]:
    """Train in place; losses by epoch and precision afterwards."""
    from shrinkbench.detection import mean_average_precision, train_detector

    def tell(epoch: int, loss: float) -> None:
        typer.echo(f"epoch {epoch} of {recipe.epochs}: loss {loss:.4f}", err=True)

    losses = train_detector(detector, train_images, recipe, seed=seed, on_epoch=None if as_json else tell)
    found = mean_average_precision(detector, test_images)
    return {"losses": losses, "mean_average_precision": found.pop("mean"), "average_precision": found}


def _tell(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report, indent=1))
        return
    from shrinkbench.cli.tables import print_table

    rows = [{"class": name, "average_precision": ap} for name, ap in report["average_precision"].items()]
    print_table(rows, ("class", "average_precision"))
    before = f" (before pruning {report['before_pruning']:.4f})" if "before_pruning" in report else ""
    typer.echo(
        f"{report['variant']}, {report['model']}: mean average precision "
        f"{report['mean_average_precision']:.4f}{before}, classifier of "
        f"{report['classifier_parameters_left']:,} of {report['classifier_parameters']:,} parameters"
    )
