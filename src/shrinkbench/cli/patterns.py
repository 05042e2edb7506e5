"""``shrinkbench patterns``: where pruning left channels and weights, and files by which others are pruned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shrinkbench.cli.options import AsJson, Plugins, load_plugins
from shrinkbench.errors import ShrinkbenchError

if TYPE_CHECKING:
    from torch import nn

    from shrinkbench.pruning.allocations.by_pattern import Pattern
    from shrinkbench.results.record import RunResult
    from shrinkbench.spec.measures import LayerDensity

app = typer.Typer()

Of = Literal["filters", "scales", "kernels"]


@dataclass(frozen=True)
class _Series:
    """Networks pruned alike: layers of each, by compression."""

    title: str
    model: str
    input_shape: tuple[int, ...]
    layers: Mapping[float, Sequence[Mapping[str, LayerDensity]]]


@app.command()
def patterns(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Output folder of a sweep; or --model and --masks.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Network; with DIR, only its runs.")] = None,
    masks: Annotated[
        list[Path] | None, typer.Option("--masks", help="Masks of --model; repeat for several networks.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="With DIR: only runs of this method.")] = None,
    dataset: Annotated[str | None, typer.Option(help="With DIR: only runs on this dataset.")] = None,
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
    if directory is None:
        found = [_from_masks(model, masks or [])]
    else:
        finished = _take_finished(directory, model=model, method=method, dataset=dataset)
        found = _from_results([r for r in finished if _is_pruned(r)])
        if figures is not None:
            _draw(finished, figures)
    if out is not None and len(found) > 1:
        known = "; ".join(series.title for series in found)
        raise ShrinkbenchError(
            f"--out writes one pattern, and these are several ({known}); choose with --dataset, --model and "
            "--method"
        )
    tables = [_table(series, of, by_layer=by_layer) for series in found]
    if out is not None:
        _pattern(found[0], of).save(out)
    if as_json:
        named = [{"networks": s.title, "rows": rows} for s, rows in zip(found, tables, strict=True)]
        typer.echo(json.dumps(named, indent=1))
        return
    from shrinkbench.cli.tables import print_table

    for series, rows in zip(found, tables, strict=True):
        typer.echo(f"{series.title}: share of {of} kept")
        print_table([{k: _text(v) for k, v in row.items()} for row in rows], tuple(rows[0]))
        typer.echo("")
    if out is not None:
        control = "uniform_sparsification" if of == "kernels" else "uniform_channels"
        typer.echo(f"prune by it: --method '{control}[allocation=pattern:{out}]'")


# --- networks ----------------------------------------------------------------------------------------------


def _from_masks(model: str | None, paths: Sequence[Path]) -> _Series:
    """Masks of one network; those of nearly one compression stand together."""
    from shrinkbench.metrics import count_kept, count_parameters, layer_densities
    from shrinkbench.models import build, get_model
    from shrinkbench.pruning import Masks

    if model is None:
        raise ShrinkbenchError("masks are of a network; name it with --model")
    card, module = get_model(model), build(model)
    layers: dict[float, list[Mapping[str, LayerDensity]]] = {}
    for path in paths:
        loaded = Masks.load(path, network=card.name)
        loaded.apply(module)  # refuses those that do not fit
        ratio = float(f"{count_parameters(module) / count_kept(module, loaded):.2g}")
        layers.setdefault(ratio, []).append(layer_densities(module, loaded))
    return _Series(f"{card.name}, {len(paths)} masks", card.name, card.input_shape, layers)


def _take_finished(directory: Path, **only: str | None) -> list[RunResult]:
    """Finished runs of what was chosen, controls included; at least one of a pruned network."""
    from shrinkbench.results.store import existing_store

    found = []
    for result in existing_store(directory).results()[0]:
        spec = result.spec
        names = {"model": spec.model, "method": spec.method.name, "dataset": spec.data.name}
        if result.status == "done" and all(v is None or names[key] == v for key, v in only.items()):
            found.append(result)
    if not any(_is_pruned(result) for result in found):
        chosen = ", ".join(f"{key} {value}" for key, value in only.items() if value is not None)
        raise ShrinkbenchError(
            f"{directory} holds no finished run of a pruned network{f' with {chosen}' if chosen else ''}; run "
            "a sweep into it first, or choose others"
        )
    return found


def _is_pruned(result: RunResult) -> bool:
    return result.spec.compression > 1 and bool(result.layers)


def _from_results(results: Sequence[RunResult]) -> list[_Series]:
    from shrinkbench.datasets import DATASETS
    from shrinkbench.models import get_model

    groups: dict[tuple[str, str, str], dict[float, list[Mapping[str, LayerDensity]]]] = {}
    for result in results:
        spec = result.spec
        of_group = groups.setdefault((spec.data.name, spec.model, spec.method.name), {})
        of_group.setdefault(spec.compression, []).append(result.layers)
    return [
        _Series(
            f"{model} on {data}, {method}",
            model,
            DATASETS.get(data).image_shape or get_model(model).input_shape,
            dict(sorted(layers.items())),
        )
        for (data, model, method), layers in sorted(groups.items())
    ]


# --- patterns ----------------------------------------------------------------------------------------------


def _pattern(series: _Series, of: Of) -> Pattern:
    """The means of the table by stage, as a file holds them."""
    from shrinkbench.pruning.allocations.by_pattern import Pattern, Point

    rows = _table(series, of, by_layer=False)
    points = []
    for compression, networks in series.layers.items():
        stages: dict[int, list[float]] = {}
        for row in rows:
            stages.setdefault(row["stage"], []).append(row[_column(compression)]["mean"])
        shares = tuple(tuple(values) for values in stages.values())
        points.append(Point(compression=compression, networks=len(networks), stages=shares))
    kind: Literal["channels", "kernels"] = "kernels" if of == "kernels" else "channels"
    return Pattern(kind=kind, source=f"{series.title} ({of})", points=tuple(points))


def _column(compression: float) -> str:
    return f"{compression:g}x"


def _table(series: _Series, of: Of, *, by_layer: bool) -> list[dict[str, Any]]:
    """Rows of layers, stages, or stages and kernel positions; a column per compression."""
    from shrinkbench.models import build

    module = build(series.model)
    if by_layer and of == "kernels":
        raise ShrinkbenchError("--by-layer counts channels; choose --of filters or --of scales")
    rows: dict[tuple[object, ...], dict[str, Any]] = {}
    for compression, networks in series.layers.items():
        each = [_cells(module, layers, series.input_shape, of, by_layer=by_layer) for layers in networks]
        for key in each[0]:
            values = [cells[key] for cells in each]
            spread = stdev(values) if len(values) > 1 else None
            row = rows.setdefault(key, dict(zip(_keys(of, by_layer=by_layer), key, strict=True)))
            row[_column(compression)] = {"mean": mean(values), "std": spread, "n": len(values)}
    return list(rows.values())


def _keys(of: Of, *, by_layer: bool) -> tuple[str, ...]:
    if by_layer:
        return ("layer", "stage", "channels")
    return ("stage", "row", "column") if of == "kernels" else ("stage", "channels")


def _cells(
    module: nn.Module, layers: Mapping[str, LayerDensity], shape: Sequence[int], of: Of, *, by_layer: bool
) -> dict[tuple[object, ...], float]:
    """Row -> kept channels of a layer, or kept share of a stage."""
    from shrinkbench.metrics.patterns import kernel_pattern, layer_widths, stage_pattern

    if of == "kernels":
        return {
            (stage, row + 1, column + 1): float(share)
            for stage, kernel in kernel_pattern(module, layers, shape).items()
            for row, line in enumerate(kernel)
            for column, share in enumerate(line)
        }
    widths = layer_widths(module, layers, shape, of=of)
    if by_layer:
        return {(w.layer, w.stage, w.channels): float(w.kept) for w in widths}
    return {
        (stage, sum(w.channels for w in widths if w.stage == stage)): share
        for stage, share in stage_pattern(widths).items()
    }


def _text(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    digits = 1 if value["mean"] > 1 else 3
    spread = "" if value["std"] is None else f" ± {value['std']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{spread}"


def _draw(results: Sequence[RunResult], folder: Path) -> None:
    """Accuracy against parameters kept, and the distributions of weights of each task and compression."""
    from shrinkbench.plotting import save
    from shrinkbench.report.figures import efficiency_figure
    from shrinkbench.report.layer_figures import weight_figure
    from shrinkbench.report.statistics.observations import observe

    save(efficiency_figure(observe(results), metric="top1"), folder / "top1-parameters")
    groups: dict[tuple[str, str, float], list[RunResult]] = {}
    for result in results:
        if result.weight_histogram is not None and result.spec.compression > 1:
            spec = result.spec
            groups.setdefault((spec.data.name, spec.model, spec.compression), []).append(result)
    for (data, model, compression), runs in groups.items():
        stem = f"weights-{data}-{model.replace('/', '-')}-{compression:g}x"
        save(weight_figure(*runs), folder / stem)
