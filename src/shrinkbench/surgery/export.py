"""Small networks on disk: a folder of weights and description, or a program for another runtime.

A folder holds ``weights.safetensors`` and ``network.json``: which network it was, and the surgery that makes it
small. Programs (torch.export, TorchScript, ONNX) run without this library; each is loaded again and compared.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import check_target, parse_json, read_file, write_atomically
from shrinkbench.network.probe import evaluation_mode, floating_leaves
from shrinkbench.network.weights import copy_of
from shrinkbench.pruning.masks import save_tensors
from shrinkbench.surgery.checking import difference, probe_inputs
from shrinkbench.surgery.operation import Surgery, operate

WEIGHTS, DESCRIPTION = "weights.safetensors", "network.json"


@dataclass(frozen=True)
class SmallNetwork:
    """Description of a small network: the network it comes from, its classes and input, and the surgery."""

    network: str
    num_classes: int
    input_shape: tuple[int, ...]
    surgery: Surgery


def save_small(folder: Path, module: nn.Module, description: SmallNetwork) -> None:
    """Write weights and description of ``module`` into ``folder``, which is made."""
    text = json.dumps(
        {
            "format": 1,
            "network": description.network,
            "num_classes": description.num_classes,
            "input_shape": list(description.input_shape),
            "surgery": description.surgery.as_json(),
        }
    )
    for name in (DESCRIPTION, WEIGHTS):
        check_target(folder / name)  # both or none
    write_atomically(folder / DESCRIPTION, text.encode())
    save_tensors(module.state_dict(), folder / WEIGHTS)


def read_description(folder: Path) -> SmallNetwork:
    """The description in ``folder``."""
    path = folder / DESCRIPTION
    try:
        data = parse_json(read_file(path, most=16 << 20))
        return SmallNetwork(
            str(data["network"]),
            int(data["num_classes"]),
            tuple(int(n) for n in data["input_shape"]),
            Surgery.from_json(data["surgery"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ShrinkbenchError(f"cannot read a small network's description from {path}: {error!r}") from None


def load_small(folder: Path, build: Callable[[str, int], nn.Module]) -> nn.Module:
    """The small network in ``folder``; ``build(network, num_classes)`` makes the full one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description = read_description(folder)
    module = operate(build(description.network, description.num_classes), description.surgery)
    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ShrinkbenchError(
            f"the weights in {folder / WEIGHTS} do not fit the description beside them: "
            f"{str(error).splitlines()[0]}"
        ) from None
    return module


# --- programs ----------------------------------------------------------------------------------------------

Program = Callable[[Tensor], Any]


def export_program(module: nn.Module, path: Path, input_shape: Sequence[int]) -> None:
    """Write ``module`` by the ending of ``path``: .pt2 (torch.export), .ts (TorchScript) or .onnx.

    The program takes any batch size, in evaluation mode. It is loaded again and its outputs are compared with
    the module's for another batch size than it was traced with.
    """
    writers: dict[str, Callable[[nn.Module, Tensor, Path], Program]] = {
        ".pt2": _torch_export,
        ".ts": _torchscript,
        ".onnx": _onnx,
    }
    writer = writers.get(path.suffix)
    if writer is None:
        raise ShrinkbenchError(f"{path}: the ending tells the format; use {', '.join(writers)}")
    check_target(path)
    if not path.parent.exists():
        raise ShrinkbenchError(f"there is no folder {path.parent} to write {path.name} into; make it first")
    frozen = copy_of(module).cpu()
    inputs = probe_inputs(frozen, input_shape).single
    more = torch.cat([inputs, inputs[:1] * 0.5])
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / f"draft{path.suffix}"  # its own name may be too long for the place
        with evaluation_mode(frozen), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = _write(writer, frozen, inputs, draft)
            expected, found = floating_leaves(frozen(more)), floating_leaves(program(more))
        worst = max((difference(*pair) for pair in zip(expected, found, strict=False)), default=0.0)
        if len(expected) != len(found) or not worst <= 1e-4:
            raise ShrinkbenchError(
                f"the program for {path.name} computes something else than the network (largest relative "
                f"difference {worst:.1e}) and is not written; choose another ending"
            )
        write_atomically(path, partial(shutil.copyfile, draft))


def _write(
    writer: Callable[[nn.Module, Tensor, Path], Program], module: nn.Module, inputs: Tensor, draft: Path
) -> Program:
    """What ``writer`` makes; whatever an exporter stumbles over in a network becomes one sentence."""
    try:
        return writer(module, inputs, draft)
    except ShrinkbenchError:
        raise
    except Exception as error:  # exporters have no common kind of error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise ShrinkbenchError(
            f"the network cannot be written as {draft.suffix} ({reason}); choose another ending, or a folder"
        ) from error


def _torch_export(module: nn.Module, inputs: Tensor, path: Path) -> Program:
    program = torch.export.export(module, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    return cast(Program, loaded)


def _torchscript(module: nn.Module, inputs: Tensor, path: Path) -> Program:
    torch.jit.trace(module, inputs, check_trace=False).save(str(path))
    loaded = torch.jit.load(str(path))
    return cast(Program, loaded)


def _onnx(module: nn.Module, inputs: Tensor, path: Path) -> Program:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ShrinkbenchError(
            f"writing ONNX needs {' and '.join(missing)}; install them with: pip install 'shrinkbench[onnx]'"
        )
    import onnxruntime

    torch.onnx.export(
        module,
        (inputs,),
        str(path),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["input"],
        output_names=["logits"] if len(floating_leaves(module(inputs))) == 1 else None,
        external_data=False,
        verbose=False,
    )
    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {"input": x.numpy()})]
