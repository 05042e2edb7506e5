"""A network as a Hugging Face repository on disk: weights, configuration and a model card.

The card says what was measured and nothing else: sizes counted here, results of a run with its control beside
them, and the command that made it. The licence is its maker's to choose, and stands as unknown.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from shrinkbench.errors import one_line
from shrinkbench.files import check_folder, check_target, write_atomically
from shrinkbench.links import check_links
from shrinkbench.metrics import count_multiply_adds, count_parameters, measure_size
from shrinkbench.models.hugging_face import is_folder_name, names_a_path
from shrinkbench.pruning.masks import Masks, save_tensors
from shrinkbench.results.record import RunResult
from shrinkbench.spec.measures import Size
from shrinkbench.surgery.export import require_same_network
from shrinkbench.surgery.folders import (
    HUB_DESCRIPTION,
    HUB_WEIGHTS,
    MASKS,
    Build,
    NetworkDescription,
    read_network,
    save_masks,
    sealed_description,
)

_CARD = "README.md"


@dataclass(frozen=True)
class Published:
    """What a model card tells of a network: its size and, where a run made it, its result and its control."""

    description: NetworkDescription
    size: Size
    result: RunResult | None = None
    control: RunResult | None = None


def export_hub(
    module: nn.Module,
    folder: Path,
    description: NetworkDescription,
    build: Build,
    *,
    masks: Masks | None = None,
    result: RunResult | None = None,
    control: RunResult | None = None,
) -> None:
    """Write ``folder`` with model.safetensors, config.json, README.md and, of a masked network, its masks.

    It is read again, and its outputs are compared, before anything is written.
    """
    kept = masks if masks is not None and len(masks) else None
    check_folder(folder)
    check_links(folder)
    for name in (HUB_DESCRIPTION, HUB_WEIGHTS, _CARD, MASKS):
        check_target(folder / name)  # all or none
    size = _size_of(module, description, build, kept)
    published = Published(description, size, result, control)
    with tempfile.TemporaryDirectory() as scratch:
        _write(Path(scratch), module, published, kept)
        again = read_network(Path(scratch), network=description.network, build=build)
        require_same_network(module, again.module, description, folder)
    _write(folder, module, published, kept)


def _write(folder: Path, module: nn.Module, published: Published, masks: Masks | None) -> None:
    save_tensors(module.state_dict(), folder / HUB_WEIGHTS, metadata={"format": "pt"})
    save_masks(folder, masks, published.description)
    ours = {"shrinkbench": sealed_description(folder, published.description, HUB_WEIGHTS)}
    config = {**_architecture(module, published.description), **ours}
    write_atomically(folder / _CARD, model_card(published).encode())
    write_atomically(folder / HUB_DESCRIPTION, json.dumps(config, indent=1).encode())


def _architecture(module: nn.Module, description: NetworkDescription) -> dict[str, Any]:
    """What transformers builds: a network of its own that is whole, by the network's own configuration."""
    configuration = getattr(module, "config", None)
    if is_folder_name(description.network) and not description.is_small and configuration is not None:
        return {**json.loads(configuration.to_json_string()), "architectures": [type(module).__name__]}
    return {"model_type": "shrinkbench", "architectures": [description.network]}


def _size_of(module: nn.Module, description: NetworkDescription, build: Build, masks: Masks | None) -> Size:
    """Of a masked network by its masks, of a small one beside the network that it was made from."""
    shape = description.example
    if not description.is_small:
        return measure_size(module, shape, masks or Masks({}))
    whole = build(description.network, description.num_classes)
    parameters, kept = count_parameters(whole), count_parameters(module)
    multiply_adds, kept_adds = count_multiply_adds(whole, shape), count_multiply_adds(module, shape)
    return Size(
        parameters=parameters,
        parameters_kept=kept,
        compression=parameters / kept,
        multiply_adds=multiply_adds,
        multiply_adds_kept=kept_adds,
        theoretical_speedup=multiply_adds / max(kept_adds, 1),
    )


def model_card(published: Published) -> str:
    """The text of README.md: a YAML head that the hub reads, and what was measured."""
    return "\n".join([*_head(published), *_body(published), ""])


def _head(published: Published) -> Iterator[str]:
    result = published.result
    yield from ("---", "library_name: shrinkbench", "license: unknown", "tags:", "- pruning")
    yield f"base_model: {json.dumps(published.description.network)}"
    if result is not None:
        yield from ("datasets:", f"- {json.dumps(result.spec.data.name)}")
    yield "---"


def _body(published: Published) -> Iterator[str]:
    description, size, result = published.description, published.size, published.result
    shapes = [tuple(tensor.shape[1:]) for tensor in description.example.tensors]
    taken = " and ".join("x".join(map(str, shape)) or "one number" for shape in shapes)
    inputs = f"Input {taken}" if len(shapes) == 1 else f"Inputs {taken}"
    how = "physically smaller: channels were cut out" if description.is_small else "pruned weights are zero"
    if size.compression == 1:
        how = "not pruned"
    yield from (f"# {_plain(description.network)}", "", f"{inputs}, {how}.", "")
    yield from ("| | this network | not pruned |", "|---|---:|---:|")
    yield f"| parameters | {size.parameters_kept:,} | {size.parameters:,} |"
    yield f"| multiply-adds of one input | {size.multiply_adds_kept:,} | {size.multiply_adds:,} |"
    yield f"| compression (original / kept parameters) | {size.compression:.4f} | 1 |"
    yield f"| theoretical speedup (original / kept multiply-adds) | {size.theoretical_speedup:.4f} | 1 |"
    yield ""
    yield from _results(published) if result is not None else ("No results are recorded.", "")
    yield from ("## Use", "", "```python", "from pathlib import Path", "")
    yield from ("from shrinkbench.surgery.folders import read_network", "")
    named = ""
    if names_a_path(description.network):  # code, or a folder, which nothing reads unasked
        named = f", network={json.dumps(description.network)}"
        yield "# this network is no part of shrinkbench: give the path to it, if you trust it"
    yield from (f'module = read_network(Path("DIR"){named}).module  # DIR: this folder', "```", "")
    yield from ("## Licence", "", "Unknown: whoever publishes this network has to state it.")


def _results(published: Published) -> Iterator[str]:
    result, control = published.result, published.control
    if result is None or result.after is None:
        return
    spec = result.spec
    pruned = "none (this is the control)" if spec.is_control else f"{spec.method.name}, {spec.amount.label}"
    yield from (f"- method: {_plain(pruned)}", f"- dataset: {_plain(spec.data.name)}, test split", "")
    note = "" if control is not None else "; the control is not stored"
    yield from (f"Results after fine-tuning, seed {spec.seed}, {result.after.examples:,} examples{note}:", "")
    yield from ("| metric | this network | control: not pruned, trained alike |", "|---|---:|---:|")
    beside = control.after.metrics if control is not None and control.after is not None else {}
    for name, value in result.after.metrics.items():
        other = f"{beside[name]:.6g}" if name in beside else "–"
        yield f"| {_plain(name)} | {value:.6g} | {other} |"
    versions = ", ".join(f"{name} {version}" for name, version in result.provenance.versions.items())
    yield from ("", "## To reproduce", "", f"    {one_line(result.provenance.command, 200)}")
    yield f"    shrinkbench weights {result.key} --store DIR --out OUT"
    yield from ("", f"DIR is the output folder of the sweep; it ran with {_plain(versions)}.", "")


def _plain(text: str) -> str:
    """``text`` without what Markdown or a table would read as its own."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in one_line(text, 200))
