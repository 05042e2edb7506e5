"""``shrinkbench pretrain``: weights to start from, with a card that says where they come from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shrinkbench.cli.notes import tell_notes
from shrinkbench.cli.options import (
    Data,
    Device,
    Model,
    Plugins,
    Seed,
    TaskName,
    load_plugins,
    parse_data,
    parse_settings,
)

if TYPE_CHECKING:
    from shrinkbench.spec.measures import EpochRecord

app = typer.Typer()


@app.command()
def pretrain(
    model: Model,
    dataset: Annotated[str, typer.Option(help="As `shrinkbench list datasets` names it.")],
    out: Annotated[Path, typer.Option(help="Weights to write (.safetensors); the card gets the suffix .json.")],
    recipe: Annotated[str | None, typer.Option(help="By default the dataset's own.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the recipe.")
    ] = None,
    seed: Seed = 0,
    train_images: Annotated[int | None, typer.Option(min=1, help="A class-balanced subset.")] = None,
    data: Data = None,
    device: Device = "auto",
    task: TaskName = None,
    plugins: Plugins = None,
) -> None:
    """Train a network from scratch; a killed call goes on from its last epoch."""
    from shrinkbench.errors import ShrinkbenchError, escaped

    if out.suffix != ".safetensors":
        raise ShrinkbenchError(f"--out {out}: give a file name that ends in .safetensors")
    load_plugins(plugins)
    from shrinkbench.datasets import DATASETS
    from shrinkbench.models import MODELS, get_model
    from shrinkbench.report.statistics.metrics import metric_of
    from shrinkbench.runner import Workspace, resolve_device
    from shrinkbench.runner.planning import check_compatible
    from shrinkbench.runner.pretraining import pretrain as train
    from shrinkbench.spec import DataSpec, ModelSpec, PretrainSpec
    from shrinkbench.tasks import objective_for
    from shrinkbench.training import RECIPES, with_overrides

    work = out.parent / f".{out.stem}.pretraining"
    workspace = Workspace(root=work, data=parse_data(data), device=resolve_device(device))
    loaded = workspace.dataset(dataset)
    card = get_model(model)
    check_compatible(loaded, card)
    chosen = with_overrides(RECIPES.get(recipe or loaded.card.pretrain_recipe), parse_settings(settings))
    objective = objective_for(task or loaded.card.task)
    spec = PretrainSpec(
        objective=objective,
        data=DataSpec(
            name=loaded.card.name,
            revision=loaded.revision,
            source=DATASETS.source(loaded.card.name),
            normalisation=loaded.card.normalisation,
            train_images=train_images,
        ),
        model=ModelSpec(name=card.name, source=MODELS.source(card.name)),
        recipe=chosen,
        seed=seed,
    )

    metric = metric_of(objective.metric(objective.headline))

    def tell(record: EpochRecord) -> None:
        typer.echo(
            f"epoch {record.epoch}/{chosen.epochs}: loss {record.train_loss:.4f}, "
            f"validation {metric.named(record.validation[objective.headline])}",
            err=True,
        )

    with tell_notes():
        written = train(spec, workspace, out, on_epoch=tell)
    shutil.rmtree(work)
    typer.echo(escaped(f"{out} and {written}"))
