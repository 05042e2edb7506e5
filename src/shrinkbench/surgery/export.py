"""Networks as files for other programs, each loaded again and compared before it is written.

Programs (torch.export, TorchScript, ONNX) run without this library; weights (safetensors) need the network's
code; a folder (:mod:`shrinkbench.surgery.folders`) is read here.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import check_folder, check_links, check_target, write_atomically
from shrinkbench.network.inputs import Example
from shrinkbench.network.probe import evaluation_mode, floating_leaves
from shrinkbench.network.weights import copy_of, load_tensors
from shrinkbench.pruning.masks import Masks, save_tensors
from shrinkbench.surgery.checking import difference, probe_inputs
from shrinkbench.surgery.folders import Build, NetworkDescription, read_network, save_network

_TOLERANCE = 1e-4  # of programs, which may add in another order
Program = Callable[[Tensor], Any]


def export_program(module: nn.Module, path: Path, example: Example) -> None:
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
    _check_file(path)
    frozen = copy_of(module).cpu()
    inputs = probe_inputs(frozen, example).single
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / f"draft{path.suffix}"  # its own name may be too long for the place
        with evaluation_mode(frozen), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = _write(writer, frozen, inputs, draft)
            require_same(frozen, program, inputs, path, tolerance=_TOLERANCE)
        write_atomically(path, partial(shutil.copyfile, draft))


def export_weights(module: nn.Module, path: Path, description: NetworkDescription, build: Build) -> None:
    """Write the state of ``module`` as safetensors, read into a fresh network again and compared.

    ``build(network, num_classes)`` makes the network of which ``module`` is one. Raises ``ShrinkbenchError``
    for a small network, whose weights say nothing without the surgery beside them.
    """
    if description.is_small:
        raise ShrinkbenchError(
            f"{path}: the weights of a smaller network fit nothing without its description; name a folder"
        )
    _check_file(path)
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "draft.safetensors"
        save_tensors(module.state_dict(), draft)
        again = build(description.network, description.num_classes)
        _load_draft(again, draft)
        require_same_network(module, again, description, path)
        write_atomically(path, partial(shutil.copyfile, draft))


def export_folder(
    module: nn.Module, folder: Path, description: NetworkDescription, build: Build, masks: Masks | None = None
) -> None:
    """Write ``module`` as :func:`shrinkbench.surgery.folders.save_network`, read again and compared."""
    check_folder(folder)
    check_links(folder)
    with tempfile.TemporaryDirectory() as scratch:
        save_network(Path(scratch), module, description, masks=masks)
        again = read_network(Path(scratch), network=description.network, build=build)
        require_same_network(module, again.module, description, folder)
    save_network(folder, module, description, masks=masks)


def _load_draft(again: nn.Module, draft: Path) -> None:
    from safetensors.torch import load_file

    load_tensors(again, load_file(draft))


def require_same_network(
    module: nn.Module, again: nn.Module, description: NetworkDescription, path: Path
) -> None:
    """Refuse a written network that computes other outputs, in any bit, when it is read again."""
    frozen = copy_of(module).cpu()
    inputs = probe_inputs(frozen, description.example).repeated(3)
    again = again.cpu().to(next((p.dtype for p in frozen.parameters()), torch.float32))
    with evaluation_mode(frozen), evaluation_mode(again), torch.no_grad():
        _require_equal(inputs.call(frozen), inputs.call(again), path, tolerance=0.0)


def require_same(module: nn.Module, program: Program, inputs: Tensor, path: Path, *, tolerance: float) -> None:
    """Refuse what computes other outputs than ``module``, for three inputs, by more than ``tolerance``.

    Differences are relative to the largest value of each output.
    """
    third = inputs[:1] * 0.5 if inputs.is_floating_point() else inputs[:1].flip(-1)
    more = torch.cat([inputs, third])
    _require_equal(module(more), program(more), path, tolerance=tolerance)


def _require_equal(one: Any, other: Any, path: Path, *, tolerance: float) -> None:
    expected, found = floating_leaves(one), floating_leaves(other)
    shapes = [[tuple(leaf.shape) for leaf in leaves] for leaves in (expected, found)]
    worst = math.inf
    if shapes[0] == shapes[1]:
        differences = [difference(*pair) for pair in zip(expected, found, strict=True)]
        worst = math.inf if any(map(math.isnan, differences)) else max(differences, default=0.0)
    if worst > tolerance:
        raise ShrinkbenchError(
            f"what was written for {path.name} computes something else than the network (largest relative "
            f"difference {worst:.1e}) and is not kept; choose another format"
        )


def _check_file(path: Path) -> None:
    check_target(path)
    if not path.parent.exists():
        raise ShrinkbenchError(f"there is no folder {path.parent} to write {path.name} into; make it first")


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
