"""Commands that bring networks out: weights (of finished runs) and export (to other programs)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shrinkbench.cli.networks import DatasetName, Entry, Weights, load_named
from shrinkbench.cli.options import AsJson, Data, ModelOrFolder, Plugins, SweepsDevice, load_plugins, parse_data
from shrinkbench.cli.stored import Loaded, load_network
from shrinkbench.cli.structured import MasksFile, Shape, cut_out, with_masks
from shrinkbench.errors import ShrinkbenchError, escaped
from shrinkbench.files import check_folder, check_target

if TYPE_CHECKING:
    from shrinkbench.results.record import RunResult

app = typer.Typer()
Format = Literal["pt2", "ts", "onnx", "safetensors", "folder", "hf"]


@app.command()
def weights(
    store: Annotated[Path, typer.Option("--store", help="Output folder of the sweep.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY ...]",
            help="Keys of finished runs, or how they begin; without, those that lack what `keep` asks for.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder (weights, masks, description), or a file .safetensors of the weights."),
    ] = None,
    device: SweepsDevice = None,
    data: Data = None,
    plugins: Plugins = None,
) -> None:
    """Bring out the networks of finished runs; where they were not kept, the runs are repeated and compared."""
    from shrinkbench.results.store import existing_store

    chosen = list(keys or [])
    if out is not None:
        if len(chosen) != 1:
            raise ShrinkbenchError("--out takes the network of one run; give exactly one key")
        if out.suffix == ".safetensors":
            check_target(out)
        else:
            check_folder(out)
    places = parse_data(data)
    existing_store(store)
    load_plugins(plugins)
    from shrinkbench.runner.deriving import keep_networks, keys_lacking

    chosen = chosen or list(keys_lacking(store))
    folders = keep_networks(chosen, store, device=device, data=places, plugins=plugins or ())
    if not folders:
        typer.echo("no finished run lacks a network that keep asks for; name runs by their keys")
    for folder in folders:
        typer.echo(escaped(_bring_out(folder, out) if out is not None else folder))


def _bring_out(folder: Path, out: Path) -> Path:
    from shrinkbench.runner.keeping import read_kept
    from shrinkbench.surgery.export import export_folder, export_weights
    from shrinkbench.surgery.folders import build_full

    name = _network_of(folder)
    stored, _ = read_kept(folder, network=name)
    if out.suffix == ".safetensors":
        export_weights(stored.module, out, stored.description, build_full)
    else:
        export_folder(stored.module, out, stored.description, build_full, stored.masks)
    return out


def _network_of(folder: Path) -> str:
    """The network's name in the run's specification, which is what the sweep has run."""
    from shrinkbench.results.store import ResultStore

    return ResultStore(folder.parent.parent).read(folder.name).spec.model.name


@app.command()
def export(
    model: ModelOrFolder,
    out: Annotated[Path, typer.Option(help="File .pt2, .ts, .onnx or .safetensors, or a folder.")],
    form: Annotated[
        Format | None,
        typer.Option("--format", help="By default by the ending of --out; hf: a Hugging Face repository."),
    ] = None,
    weights: Weights = None,
    weights_entry: Entry = None,
    masks: MasksFile = None,
    small: Annotated[
        bool, typer.Option("--small", help="Cut out first what the masks prune, as `shrink` does.")
    ] = False,
    input_shape: Shape = None,
    dataset: DatasetName = None,
    data: Data = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Write a network, masked, small or whole, for other programs; what is written is read and compared."""
    chosen = form or _format_of(out)
    if chosen not in ("folder", "hf") and out.suffix != f".{chosen}":
        raise ShrinkbenchError(f"--format {chosen} is a file; let the name of --out {out} end in .{chosen}")
    load_plugins(plugins)
    from shrinkbench.metrics import measure_size
    from shrinkbench.surgery.export import export_folder, export_program, export_weights
    from shrinkbench.surgery.folders import build_full
    from shrinkbench.surgery.hub import export_hub

    loaded = load_network(
        model,
        weights=weights,
        entry=weights_entry,
        masks=masks,
        input_shape=input_shape,
        dataset=load_named(dataset, data),
    )
    loaded.masks.apply(loaded.module)
    size = measure_size(loaded.module, loaded.description.example, loaded.masks)
    if small:
        loaded, left = cut_out(with_masks(loaded))
        for sentence in left:
            typer.echo(f"note: {sentence}", err=True)
    module, description = loaded.module, loaded.description
    if chosen == "hf":
        result = loaded.result
        control = _control_of(loaded)
        export_hub(module, out, description, build_full, masks=loaded.masks, result=result, control=control)
    elif chosen == "folder":
        export_folder(module, out, description, build_full, loaded.masks)
    elif chosen == "safetensors":
        export_weights(module, out, description, build_full)
    else:
        export_program(module, out, description.example)
    told: dict[str, Any] = {
        "out": str(out),
        "format": chosen,
        "network": description.network,
        "small": description.is_small,
        "parameters": sum(p.numel() for p in module.parameters()),
        "parameters_kept": size.parameters_kept,
    }
    typer.echo(
        json.dumps(told, indent=1)
        if as_json
        else f"{escaped(out)}: {description.network} as {chosen}, same outputs for random inputs"
    )


def _format_of(out: Path) -> Format:
    endings: dict[str, Format] = {
        ".pt2": "pt2",
        ".ts": "ts",
        ".onnx": "onnx",
        ".safetensors": "safetensors",
    }
    if out.suffix in endings:
        return endings[out.suffix]
    if out.suffix[1:].isalpha():
        raise ShrinkbenchError(
            f"--out {out}: a file ends in {', '.join(endings)}; name one of these, or a folder"
        )
    return "folder"


def _control_of(loaded: Loaded) -> RunResult | None:
    """The stored control of the run that the network comes from; nothing where there is none."""
    from shrinkbench.results.store import ResultStore
    from shrinkbench.runner.execution import read_control

    if loaded.result is None or loaded.folder is None:
        return None
    control = loaded.result.spec.control
    store = ResultStore(loaded.folder.resolve().parent.parent)
    path = store.shared_dir("control", control.key) / "result.json"
    return read_control(path) if path.is_file() else None
