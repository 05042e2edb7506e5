"""Commands on smaller networks: shrink (masks to a physically smaller network) and latency."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shrinkbench.cli.networks import DatasetName, classes_of, load_named, shape_of
from shrinkbench.cli.notes import notes_of
from shrinkbench.cli.options import AsJson, Data, Device, Model, Plugins, load_plugins, parse_shape
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import exists

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from shrinkbench.datasets import Dataset
    from shrinkbench.pruning import Masks
    from shrinkbench.surgery.operation import Surgery

app = typer.Typer()

PROGRAMS = (".pt2", ".ts", ".onnx")
"""Endings of files that hold a whole program: torch.export, TorchScript, ONNX."""

Weights = Annotated[
    str | None,
    typer.Option("--weights", help="Weights file, or a name that `shrinkbench describe MODEL` lists."),
]
Shape = Annotated[str | None, typer.Option("--input-shape", metavar="C,H,W", help="Other than the card's.")]
MasksFile = Annotated[Path, typer.Option("--masks", help="Masks, as `prune --masks-out` writes them.")]
Complete = Annotated[
    bool, typer.Option("--complete", help="Extend masks of filters to the whole channels first.")
]


@app.command()
def shrink(
    model: Model,
    masks: MasksFile,
    out: Annotated[
        Path, typer.Option(help="A folder (weights and description), or a file .pt2, .ts or .onnx.")
    ],
    weights: Weights = None,
    input_shape: Shape = None,
    complete: Complete = False,
    dataset: DatasetName = None,
    data: Data = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Make a masked network physically smaller, check that it computes the same, and write it."""
    from shrinkbench.metrics import count_multiply_adds, count_parameters
    from shrinkbench.surgery.export import SmallNetwork, export_program, save_small

    if out.suffix[1:].isalpha() and out.suffix not in PROGRAMS:
        raise ShrinkbenchError(
            f"--out {out}: a file ends in {', '.join(PROGRAMS)}; name one of these, or a folder for the weights"
        )
    load_plugins(plugins)
    named = load_named(dataset, data)
    module, loaded, shape, classes = _load_masked_network(
        model, masks, weights, input_shape, named, complete=complete
    )
    small, surgery, left = _cut(module, loaded, shape)
    if out.suffix in PROGRAMS:
        export_program(small, out, shape)
    else:
        save_small(out, small, SmallNetwork(model, classes, shape, surgery))
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
        f"{out}: {report['parameters']:,} -> {report['parameters_small']:,} parameters, "
        f"{report['multiply_adds']:,} -> {report['multiply_adds_small']:,} multiply-adds, same outputs"
    )
    for sentence in report["left_in_place"]:
        typer.echo(f"note: {sentence}")


def _cut(module: nn.Module, masks: Masks, shape: Sequence[int]) -> tuple[nn.Module, Surgery, list[str]]:
    """The smaller network, what was done, and a sentence for each group of channels that had to stay."""
    from shrinkbench.surgery.shrinking import plan_and_shrink

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small, surgery = plan_and_shrink(module, masks, shape)
    return small, surgery, notes_of(caught)


@app.command()
def latency(
    model: Model,
    masks: MasksFile,
    weights: Weights = None,
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
    from shrinkbench.metrics import count_multiply_adds, measure_size
    from shrinkbench.metrics.latency import Conditions, time_forward, unsteady
    from shrinkbench.network.weights import copy_of
    from shrinkbench.runner import resolve_device

    load_plugins(plugins)
    named = load_named(dataset, data)
    module, loaded, shape, _ = _load_masked_network(
        model, masks, weights, input_shape, named, complete=complete
    )
    small, _, left = _cut(module, loaded, shape)
    masked = copy_of(module)
    loaded.apply(masked)
    networks = {"dense": module, "masked": masked, "small": small}
    size = measure_size(module, shape, loaded)
    counted = {"dense": 1.0, "masked": size.theoretical_speedup}
    counted["small"] = size.multiply_adds / max(count_multiply_adds(small, shape), 1)
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


def _load_masked_network(
    model: str,
    masks: Path,
    weights: str | None,
    input_shape: str | None,
    dataset: Dataset | None,
    *,
    complete: bool,
) -> tuple[nn.Module, Masks, tuple[int, ...], int]:
    """The network, the masks for it, its input shape and its number of classes."""
    from shrinkbench.models import build, get_model, load_weights, shape_for
    from shrinkbench.pruning import Masks
    from shrinkbench.pruning.structures.channel_masks import complete_masks

    card = get_model(model)
    shape = parse_shape(input_shape) if input_shape else shape_for(card, shape_of(dataset))
    if not exists(masks):
        raise ShrinkbenchError(f"there is no file {masks}; write masks with `shrinkbench prune --masks-out`")
    loaded = Masks.load(masks, network=card.name)
    classes = classes_of(dataset)
    module = build(model, num_classes=classes)
    if weights is not None:
        load_weights(module, weights, card=card)
    if complete:
        loaded = complete_masks(module, loaded, shape)
    return module.eval(), loaded, shape, classes or card.num_classes or 0
