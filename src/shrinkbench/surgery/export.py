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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import check_folder, check_links, check_target, write_atomically
from shrinkbench.network.inputs import Example, Inputs, is_mask
from shrinkbench.network.probe import evaluation_mode, floating_leaves
from shrinkbench.network.weights import copy_of, load_tensors
from shrinkbench.pruning.masks import Masks, save_tensors
from shrinkbench.surgery.checking import difference, probe_inputs
from shrinkbench.surgery.folders import Build, NetworkDescription, read_network, save_network
from shrinkbench.surgery.programs import WRITERS, Program

_TOLERANCE = 1e-4  # of programs, which may add in another order


def export_program(module: nn.Module, path: Path, example: Example) -> None:
    """Write ``module`` by the ending of ``path``: .pt2 (torch.export), .ts (TorchScript) or .onnx.

    The program takes what ``example`` shows (a tensor, several by place or by name, trees of them) for any
    number of examples, in evaluation mode. It is loaded again and its outputs are compared with the module's
    for another number than it was traced with. Raises ``ShrinkbenchError`` for what a format cannot write.
    """
    writer = WRITERS.get(path.suffix)
    if writer is None:
        raise ShrinkbenchError(f"{path}: the ending tells the format; use {', '.join(WRITERS)}")
    _check_file(path)
    frozen = copy_of(module).cpu()
    inputs = probe_inputs(frozen, example)
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
    again = _cast_as(frozen, again.cpu())
    with evaluation_mode(frozen), evaluation_mode(again), torch.no_grad():
        _require_equal(inputs.call(frozen), inputs.call(again), path, tolerance=0.0)


def _cast_as(module: nn.Module, again: nn.Module) -> nn.Module:
    """``again`` with each tensor in the precision that it has in ``module``, where not all have one."""
    types = {n: t.dtype for n, t in (*module.named_parameters(), *module.named_buffers())}
    for name, tensor in (*again.named_parameters(), *again.named_buffers()):
        tensor.data = tensor.data.to(types.get(name, tensor.dtype))
    return again


def require_same(module: nn.Module, program: Program, inputs: Inputs, path: Path, *, tolerance: float) -> None:
    """Refuse what computes other outputs than ``module``, for one example more, by more than ``tolerance``.

    Differences are relative to the largest value of each output. Numbers of the other sign are tried too, where
    the network takes them: a trace has followed one way of each branch.
    """
    rows = inputs.rows
    more = inputs.map(lambda t: torch.cat([t, _changed(t[:1])]) if t.dim() and len(t) == rows else t)
    _require_equal(more.call(module), program(more), path, tolerance=tolerance)
    opposite = more.map(lambda t: -t if t.is_floating_point() and not is_mask(t) else t)
    expected = opposite.call(module)
    if all(bool(leaf.isfinite().all()) for leaf in floating_leaves(expected)):
        _require_equal(expected, program(opposite), path, tolerance=tolerance)


def _changed(example: Tensor) -> Tensor:
    """Another example: half the values, whole numbers backwards; what says which places count stays."""
    if example.is_floating_point():
        return example if is_mask(example) else example * 0.5
    chooses = example.dtype == torch.bool or bool(((example == 0) | (example == 1)).all())
    return example if chooses or example.dim() < 2 else example.flip(-1)


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
    writer: Callable[[nn.Module, Inputs, Path], Program], module: nn.Module, inputs: Inputs, draft: Path
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
