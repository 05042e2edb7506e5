"""Commands on smaller networks: shrink (masks to a physically smaller network) and latency."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shrinkbench.cli.networks import DatasetName, Entry, Weights, load_named
from shrinkbench.cli.notes import notes_of
from shrinkbench.cli.options import AsJson, Data, Device, ModelOrFolder, Plugins, load_plugins
from shrinkbench.cli.stored import Loaded, load_network
from shrinkbench.errors import ShrinkbenchError, escaped

if TYPE_CHECKING:
    from torch import nn

app = typer.Typer()

_PROGRAMS = (".pt2", ".ts", ".onnx")  # what surgery.export writes; importing that takes torch

Shape = Annotated[str | None, typer.Option("--input-shape", metavar="C,H,W", help="Other than the card's.")]
MasksFile = Annotated[
    Path | None,
    typer.Option("--masks", help="Masks, as `prune --masks-out` writes them; by default those of the folder."),
]
Complete = Annotated[
    bool, typer.Option("--complete", help="Extend masks of filters to the whole channels first.")
]


@app.command()
def shrink(
    model: ModelOrFolder,
    out: Annotated[
        Path, typer.Option(help="A folder (weights and description), or a file .pt2, .ts or .onnx.")
    ],
    masks: MasksFile = None,
    weights: Weights = None,
    weights_entry: Entry = None,
    input_shape: Shape = None,
    complete: Complete = False,
    dataset: DatasetName = None,
    data: Data = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Make a masked network physically smaller, check that it computes the same, and write it."""
    from shrinkbench.metrics import count_multiply_adds, count_parameters
    from shrinkbench.surgery.export import export_folder, export_program
    from shrinkbench.surgery.folders import build_full

    if out.suffix[1:].isalpha() and out.suffix not in _PROGRAMS:
        raise ShrinkbenchError(
            f"--out {out}: a file ends in {', '.join(_PROGRAMS)}; name one of these, or a folder"
        )
    load_plugins(plugins)
    whole = load_network(
        model,
        weights=weights,
        entry=weights_entry,
        masks=masks,
        input_shape=input_shape,
        dataset=load_named(dataset, data),
        complete=complete,
    )
    cut, left = cut_out(with_masks(whole))
    module, small, shape = whole.module, cut.module, cut.description.example
    if out.suffix in _PROGRAMS:
        export_program(small, out, shape)
    else:
        export_folder(small, out, cut.description, build_full)
    report: dict[str, Any] = {
        "out": str(out),
        "parameters": count_parameters(module),
        "parameters_small": count_parameters(small),
        "multiply_adds": count_multiply_adds(module, shape),
        "multiply_adds_small": count_multiply_adds(small, shape),
        "left_in_place": left,
    }
    if as_json:
        typer.echo(json.dumps(report, indent=1))
        return
    typer.echo(
        f"{escaped(out)}: {report['parameters']:,} -> {report['parameters_small']:,} parameters, "
        f"{report['multiply_adds']:,} -> {report['multiply_adds_small']:,} multiply-adds, same outputs"
    )
    for sentence in report["left_in_place"]:
        typer.echo(f"note: {sentence}")


def cut_out(loaded: Loaded) -> tuple[Loaded, list[str]]:
    """The smaller network, and a sentence for each group of channels that had to stay."""
    from shrinkbench.pruning import Masks
    from shrinkbench.surgery.shrinking import plan_and_shrink

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small, surgery = plan_and_shrink(loaded.module, loaded.masks, loaded.description.example)
    description = replace(loaded.description, surgery=surgery)
    return replace(loaded, module=small, masks=Masks({}), description=description), notes_of(caught)


def with_masks(loaded: Loaded) -> Loaded:
    """``loaded``, or an error where there is nothing to cut out."""
    if loaded.description.is_small:
        raise ShrinkbenchError(f"{loaded.folder} is smaller already; name the network that it was made from")
    if not len(loaded.masks):
        raise ShrinkbenchError(
            "there are no masks; name their file with --masks, or a folder of a masked network with --model"
        )
    return loaded


@app.command()
def latency(
    model: ModelOrFolder,
    masks: MasksFile = None,
    weights: Weights = None,
    weights_entry: Entry = None,
    input_shape: Shape = None,
    complete: Complete = False,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="Images per batch.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    precision: Annotated[Literal["float32", "bf16-mixed"], typer.Option()] = "float32",
    device: Device = "auto",
    memory_format: Annotated[
        Literal["channels_last", "contiguous"], typer.Option(help="Of all networks that are compared.")
    ] = "channels_last",
    rounds: Annotated[int, typer.Option(min=1, help="Times that each network has its turn.")] = 5,
    dataset: DatasetName = None,
    data: Data = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Time the dense, the masked and the physically smaller network in turn, beside the theoretical speedup."""
    from shrinkbench.metrics.latency import Conditions, time_forward, unsteady
    from shrinkbench.runner import resolve_device

    load_plugins(plugins)
    given = load_network(
        model,
        weights=weights,
        entry=weights_entry,
        masks=masks,
        input_shape=input_shape,
        dataset=load_named(dataset, data),
        complete=complete,
    )
    networks, counted, left = _networks_to_time(given)
    shape = given.description.example
    where = resolve_device(device)
    rows: list[dict[str, Any]] = []
    for batch in batch_size or [1, 64]:
        conditions = Conditions(batch, threads, precision, where, memory_format)
        times = time_forward(networks, shape, conditions, rounds=rounds)
        if warning := unsteady(times):
            typer.echo(f"note: batch of {batch}: {warning}", err=True)
        rows += [
            {
                "network": name,
                "batch_size": batch,
                "milliseconds": round(time.median * 1e3, 4),
                "interquartile_range": round(time.range * 1e3, 4),
                "measured_speedup": round(times["dense"].median / time.median, 3),
                "theoretical_speedup": round(counted[name], 3),
                "quartiles": [round(time.lower * 1e3, 4), round(time.upper * 1e3, 4)],
                "unsteady": time.unsteady,
                "rounds": rounds,
                "threads": threads,
                "precision": precision,
                "memory_format": memory_format,
                "device": where,
                "left_in_place": left,
            }
            for name, time in times.items()
        ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from shrinkbench.cli.tables import print_table

    typer.echo(
        f"{where}, {threads} thread{'s' if threads > 1 else ''}, {precision}, {memory_format}; "
        f"median of {rounds} rounds (interquartile range)"
    )
    columns = ("network", "batch_size", "ms (IQR)", "measured_speedup", "theoretical_speedup")
    told = [
        {**row, "ms (IQR)": f"{row['milliseconds']:.4g} ({row['interquartile_range']:.2g})"} for row in rows
    ]
    print_table(told, columns)
    for sentence in left:
        typer.echo(f"note: {sentence}")


def _networks_to_time(given: Loaded) -> tuple[dict[str, nn.Module], dict[str, float], list[str]]:
    """Networks by name, how many times fewer multiply-adds each has than the dense one, and what stays."""
    from shrinkbench.metrics import count_multiply_adds, measure_size
    from shrinkbench.network.weights import copy_of
    from shrinkbench.surgery.folders import build_full

    shape = given.description.example
    if given.description.is_small:
        whole = build_full(given.description.network, given.description.num_classes).eval()
        fewer = count_multiply_adds(whole, shape) / max(count_multiply_adds(given.module, shape), 1)
        return {"dense": whole, "small": given.module}, {"dense": 1.0, "small": fewer}, []
    cut, left = cut_out(with_masks(given))
    masked = copy_of(given.module)
    given.masks.apply(masked)
    size = measure_size(given.module, shape, given.masks)
    fewer = size.multiply_adds / max(count_multiply_adds(cut.module, shape), 1)
    counted = {"dense": 1.0, "masked": size.theoretical_speedup, "small": fewer}
    return {"dense": given.module, "masked": masked, "small": cut.module}, counted, left
