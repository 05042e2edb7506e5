"""Networks as files for other programs, each loaded again and compared before it is written.

Programs (torch.export, TorchScript, ONNX) run without this library; weights (safetensors) need the network's
code; a folder (:mod:`shrinkbench.surgery.folders`) is read here.
"""

from __future__ import annotations

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
from shrinkbench.files import check_folder, check_target, write_atomically
from shrinkbench.links import check_links
from shrinkbench.network.inputs import Example, Inputs, is_mask, tensors_in
from shrinkbench.network.probe import evaluation_mode, floating_leaves
from shrinkbench.network.weights import copy_of, load_tensors
from shrinkbench.pruning.masks import Masks, save_tensors
from shrinkbench.surgery.checking import difference, probe_inputs, require_numbers
from shrinkbench.surgery.folders import Build, NetworkDescription, read_network, save_network
from shrinkbench.surgery.programs import WRITERS, Program

_TOLERANCE = 1e-4  # of programs, which may add in another order
_COUNTS = (1, 9)  # examples at a time, beside those that a program is traced with and one more


def export_program(module: nn.Module, path: Path, example: Example) -> None:
    """Write ``module`` by the ending of ``path``: .pt2 (torch.export), .ts (TorchScript) or .onnx.

    The program takes what ``example`` shows (a tensor, several by place or by name, trees of them) for any
    number of examples, in evaluation mode. It is loaded again and all its outputs are compared with the
    module's, for 1, 3 and 9 examples. Raises ``ShrinkbenchError`` for what a format cannot write.
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
        expected = inputs.call(frozen)
        require_numbers(tensors_in(expected))
        _require_equal(expected, inputs.call(again), path, tolerance=0.0)


def _cast_as(module: nn.Module, again: nn.Module) -> nn.Module:
    """``again`` with each tensor in the precision that it has in ``module``, where not all have one."""
    types = {n: t.dtype for n, t in (*module.named_parameters(), *module.named_buffers())}
    for name, tensor in (*again.named_parameters(), *again.named_buffers()):
        tensor.data = tensor.data.to(types.get(name, tensor.dtype))
    return again


def require_same(module: nn.Module, program: Program, inputs: Inputs, path: Path, *, tolerance: float) -> None:
    """Refuse what computes other outputs than ``module``, for several numbers of examples.

    Differences by more than ``tolerance`` count, or by more than the rounding of the outputs' own precision,
    relative to the largest value of each. Examples of one network are others in value each time, and numbers
    of the other sign are tried too, where the network takes them: a trace has followed one way of each branch.
    """
    _require_repeatable(module, inputs)
    rows = inputs.rows
    more = inputs.map(lambda t: torch.cat([t, _changed(t[:1])]) if t.dim() and len(t) == rows else t)
    like = next((t.dtype for t in inputs.tensors if t.is_floating_point()), torch.float32)
    others = [inputs.drawn(count, seed=count, dtype=like, scale=3) for count in _COUNTS]
    for given in (more, *others):
        _require_equal(_outputs(module, given), _outputs_of(program, given, path), path, tolerance=tolerance)
    opposite = more.map(lambda t: -t if t.is_floating_point() and not is_mask(t) else t)
    try:
        expected = opposite.call(module)
    except Exception:  # whatever a network raises for what it does not take
        return
    if all(bool(leaf.isfinite().all()) for leaf in floating_leaves(expected)):
        _require_equal(expected, _outputs_of(program, opposite, path), path, tolerance=tolerance)


def _require_repeatable(module: nn.Module, inputs: Inputs) -> None:
    """Refuse a network that gives something else each time: no program could be told to be right."""
    first, again = tensors_in(_outputs(module, inputs)), tensors_in(_outputs(module, inputs))
    if not first:
        raise ShrinkbenchError("the network returns no tensor, so that nothing can be compared; return outputs")
    require_numbers(first)
    if any(difference(*pair) > _TOLERANCE for pair in zip(first, again, strict=True)):
        raise ShrinkbenchError(
            "the network gives other outputs each time it is called, in evaluation mode too (dropout, noise or "
            "a state that it changes), so that nothing can be compared; let forward() repeat itself"
        )


def _outputs(module: nn.Module, inputs: Inputs) -> Any:
    try:
        return inputs.call(module)
    except Exception as error:
        raise ShrinkbenchError(
            f"the network does not take {inputs.rows} example(s) at a time ({_reason_of(error)}); programs are "
            "for any number: let forward() take it, or write weights or a folder"
        ) from error


def _outputs_of(program: Program, inputs: Inputs, path: Path) -> Any:
    try:
        return program(inputs)
    except Exception as error:
        raise ShrinkbenchError(
            f"what was written for {path.name} does not take {inputs.rows} example(s) ({_reason_of(error)}), "
            "as the network does, and is not kept; choose another format"
        ) from error


def _reason_of(error: BaseException) -> str:
    while error.__cause__ is not None:  # exporters tell of their steps, and what went wrong stands behind
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:100]


def _changed(example: Tensor) -> Tensor:
    """Another example: half the values, whole numbers backwards; what says which places count stays."""
    if example.is_floating_point():
        return example if is_mask(example) else example * 0.5
    chooses = example.dtype == torch.bool or bool(((example == 0) | (example == 1)).all())
    return example if chooses or example.dim() < 2 else example.flip(-1)


def _require_equal(one: Any, other: Any, path: Path, *, tolerance: float) -> None:
    expected, found = tensors_in(one), tensors_in(other)
    shapes = [[tuple(leaf.shape) for leaf in leaves] for leaves in (expected, found)]
    if shapes[0] != shapes[1]:
        raise ShrinkbenchError(
            f"what was written for {path.name} gives outputs of shapes {shapes[1]}, the network {shapes[0]}, "
            "and is not kept; choose another format"
        )
    for pair in zip(expected, found, strict=True):
        worst, rows = difference(*pair), len(pair[0]) if pair[0].dim() else 0
        if worst > _allowed(pair[0], tolerance):
            raise ShrinkbenchError(
                f"what was written for {path.name} computes something else than the network (largest relative "
                f"difference {worst:.1e}, for {rows} example(s)) and is not kept; choose another format"
            )


def _allowed(expected: Tensor, tolerance: float) -> float:
    """``tolerance``, or what half precision rounds by; nothing where bits are compared."""
    if not tolerance or not expected.is_floating_point():
        return tolerance
    return max(tolerance, torch.finfo(expected.dtype).eps)


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
        raise ShrinkbenchError(
            f"the network cannot be written as {draft.suffix} ({_reason_of(error)}); choose another ending, or "
            "a folder"
        ) from error
