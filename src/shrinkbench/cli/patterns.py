"""``shrinkbench patterns``: where pruning left channels and weights, and files by which others are pruned."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shrinkbench.cli.networks import classes_of, example_of_named, load_named
from shrinkbench.cli.notes import tell_notes
from shrinkbench.cli.options import AsJson, Data, Plugins, load_plugins
from shrinkbench.cli.tables import tell_doubts
from shrinkbench.errors import ShrinkbenchError, escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from shrinkbench.network.inputs import Inputs
    from shrinkbench.report.patterns import Count, Series
    from shrinkbench.results.record import RunResult
    from shrinkbench.spec import Amount

    Network = tuple[nn.Module, Inputs]

app = typer.Typer()

Of = Literal["filters", "scales", "kernels"]


@app.command()
def patterns(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Output folder of a sweep, or a bundle; or --model and --masks."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Network; with DIR, only its runs.")] = None,
    masks: Annotated[
        list[Path] | None, typer.Option("--masks", help="Masks of --model; repeat for several networks.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="With DIR: only runs of this method.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="With DIR: only runs on this dataset; else what --model is for.")
    ] = None,
    data: Data = None,
    of: Annotated[
        Of, typer.Option("--of", help="Kept filters, batch-norm scales, or weights of 3 x 3 kernels.")
    ] = "filters",
    by_layer: Annotated[bool, typer.Option("--by-layer", help="A row per layer in place of stage.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the pattern, for [allocation=pattern:FILE].")] = None,
    figures: Annotated[Path | None, typer.Option(help="With DIR: draw efficiency and weights here.")] = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Tell what pruning left in each stage (layers of one map size), mean and deviation over networks."""
    load_plugins(plugins)
    if (directory is None) == (masks is None):
        raise ShrinkbenchError("pass the folder of a sweep, or --model with --masks, and not both")
    if figures is not None and directory is None:
        raise ShrinkbenchError("--figures draws what a sweep recorded; pass its folder, or leave --figures out")
    from shrinkbench.report.patterns import in_text, pattern_rows, series_of_runs

    network = partial(_network, dataset=dataset, data=data)
    if directory is None:
        found = [_from_masks(model, masks or [], network)]
    else:
        finished = _take_finished(directory, model=model, method=method, dataset=dataset)
        found = series_of_runs(finished)
        if figures is not None:
            _draw(finished, figures)
            if of == "kernels":
                _draw_kernels(found, figures, network)
    if out is not None:
        _write(found, of, out, network)
    places = _places(of, by_layer=by_layer)
    tables = [pattern_rows(series, _count(network(series), of, by_layer=by_layer), places) for series in found]
    if as_json:
        named = [{"networks": s.title, "rows": rows} for s, rows in zip(found, tables, strict=True)]
        typer.echo(json.dumps(named, indent=1, ensure_ascii=False))
        return
    for series, rows in zip(found, tables, strict=True):
        typer.echo(f"{series.title}: {'channels' if by_layer else f'share of {of}'} kept")
        _print([in_text(row) for row in rows], places)
    if out is not None:
        control = "uniform_sparsification" if of == "kernels" else "uniform_channels"
        typer.echo(escaped(f"prune by it: --method '{control}[allocation=pattern:{out}]'"))


def _print(rows: Sequence[dict[str, Any]], places: Sequence[str]) -> None:
    """Print every column: those that do not fit the width beside the others stand below them."""
    from rich.console import Console

    from shrinkbench.cli.tables import print_table

    widths = {name: 2 + max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0]}
    room = Console().width - sum(widths[place] for place in places)
    blocks: list[list[str]] = [[]]
    for name in list(rows[0])[len(places) :]:
        if blocks[-1] and sum(widths[n] for n in (*blocks[-1], name)) > room:
            blocks.append([])
        blocks[-1].append(name)
    for block in blocks:
        print_table(rows, (*places, *block))
        typer.echo("")


def _from_masks(model: str | None, paths: Sequence[Path], network: Callable[[Series], Network]) -> Series:
    """Masks of one network."""
    from shrinkbench.metrics import count_kept, count_parameters, layer_densities
    from shrinkbench.models import get_model
    from shrinkbench.pruning import Masks
    from shrinkbench.report.patterns import series_of_masks

    if model is None:
        raise ShrinkbenchError("masks are of a network; name it with --model")
    card, networks = get_model(model), []
    module, _ = network(series_of_masks(card.name, ()))
    for path in paths:
        with tell_notes():
            loaded = Masks.load(path, network=card.name)
        loaded.apply(module)  # refuses those that do not fit
        ratio = count_parameters(module) / count_kept(module, loaded)
        networks.append((ratio, layer_densities(module, loaded)))
    return series_of_masks(card.name, networks)


def _take_finished(directory: Path, **only: str | None) -> list[RunResult]:
    """Finished runs of what was chosen, controls included; at least one of a pruned network."""
    from shrinkbench.report.patterns import is_pruned, selected
    from shrinkbench.results.bundle import read_source

    method, amount = _asked(only["method"])
    bundle = read_source(directory)
    tell_doubts(bundle)
    found = selected(bundle.results, **{**only, "method": method}, amount=amount)
    if not any(map(is_pruned, found)):
        chosen = ", ".join(f"{key} {value}" for key, value in only.items() if value is not None)
        raise ShrinkbenchError(
            f"{directory} holds no finished run of a pruned network{f' with {chosen}' if chosen else ''}; run "
            "a sweep into it first, or choose others"
        )
    return found


def _asked(method: str | None) -> tuple[str | None, Amount | None]:
    """The method's name and the amount that a name such as ``network_slimming:60`` brings along."""
    from shrinkbench.pruning import METHODS

    try:
        known = METHODS.get(method) if method is not None else None
    except ShrinkbenchError:  # a label, or a plug-in that is not at hand
        known = None
    return (method, None) if known is None else (known.spec.name, known.amount)


def _places(of: Of, *, by_layer: bool) -> tuple[str, ...]:
    """What a row stands for."""
    if by_layer and of == "kernels":
        raise ShrinkbenchError("--by-layer counts channels; choose --of filters or --of scales")
    if by_layer:
        return ("layer", "stage", "channels")
    return ("stage", "row", "column") if of == "kernels" else ("stage", "channels")


def _network(series: Series, *, dataset: str | None, data: list[str] | None) -> Network:
    """The network of ``series``, whole, and what goes in: of data that are read where no card says it."""
    from shrinkbench.datasets import DATASETS
    from shrinkbench.models import build, example_for, get_model, shape_for
    from shrinkbench.sources import is_remembered, split_reference

    name = dataset if series.data is None else series.data.name
    for part in () if series.data is None else (series.model, name):  # a result's word, which runs no code
        if part is not None and split_reference(part) is not None and not is_remembered(part):
            raise ShrinkbenchError(
                f"the runs are of '{part[:80]}', code from outside; load it with --plugin FILE"
            )
    card, known = get_model(series.model), None if name is None else DATASETS.get(name)
    if known is not None and known.image_shape is not None and known.num_classes is not None:
        return build(series.model), example_for(card, shape_for(card, known.image_shape))
    loaded = load_named(name, data)
    return build(series.model, num_classes=classes_of(loaded)), example_of_named(card, loaded)


def _count(network: Network, of: Of, *, by_layer: bool = False) -> Count:
    """How one network of a series is counted."""
    from shrinkbench.metrics.patterns import counted

    module, example = network
    return partial(counted, module, input_shape=example, of=of, by_layer=by_layer)


def _write(found: Sequence[Series], of: Of, path: Path, network: Callable[[Series], Network]) -> None:
    """Write the mean shares by stage as a pattern that other networks are pruned by."""
    from shrinkbench.pruning.allocations.by_pattern import Pattern, ShapePoint
    from shrinkbench.report.patterns import stage_shares

    if len(found) > 1:
        known = "; ".join(series.title for series in found)
        raise ShrinkbenchError(
            f"--out writes one pattern, and these are several ({known}); choose with --dataset, --model and "
            "--method"
        )
    (series,) = found
    points = [
        ShapePoint(compression=column.compression, networks=len(column.layers), stages=shares)
        for column, shares in stage_shares(series, _count(network(series), of))
    ]
    kind: Literal["channels", "kernels"] = "kernels" if of == "kernels" else "channels"
    Pattern(kind=kind, source=f"{series.title} ({of})", points=tuple(points)).save(path)


def _draw_kernels(found: Sequence[Series], folder: Path, network: Callable[[Series], Network]) -> None:
    """The mean share at each position of a kernel, by stage and amount."""
    from shrinkbench.plotting import save
    from shrinkbench.report.layer_figures import kernel_figure
    from shrinkbench.report.patterns import stage_shares
    from shrinkbench.report.tables import slugs

    names = slugs(series.title for series in found)
    for series in found:
        count = _count(network(series), "kernels")
        kernels = {column.name: shares for column, shares in stage_shares(series, count)}
        save(kernel_figure(series.title, kernels), folder / f"kernels-{names[series.title]}")


def _draw(results: Sequence[RunResult], folder: Path) -> None:
    """Each task's leading metric against parameters kept, and its distributions of weights by amount."""
    from shrinkbench.plotting import save
    from shrinkbench.report.figures import efficiency_figure
    from shrinkbench.report.layer_figures import weight_figure
    from shrinkbench.report.patterns import with_weights
    from shrinkbench.report.statistics.metrics import HEADLINE
    from shrinkbench.report.statistics.observations import observe

    observations = observe(results)
    for scale in observations.scales:
        of_scale = efficiency_figure(observations.only(scale.tasks), metric=HEADLINE)
        save(of_scale, folder / f"{observations.stem(scale.metric)}-parameters")
    for name, runs in with_weights(results).items():
        save(weight_figure(*runs), folder / f"weights-{name}")
