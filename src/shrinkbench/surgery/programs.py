"""Networks written as programs for other runtimes, and read again: torch.export, TorchScript, ONNX.

What a network takes may be any tree of tensors, by place or by name. Tensors with a row for each example take
any number of these in the program; all other sizes are those of the example.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Inputs, map_tensors, tensors_in

Program = Callable[[Inputs], Any]


def write_torch_export(module: nn.Module, inputs: Inputs, path: Path) -> Program:
    """A program that takes what the network takes, by place and by name, in any tree."""
    args, kwargs = inputs.bound(module)
    batch = torch.export.Dim("batch")
    taker = _taking(module, kwargs)
    # By the names of the forward pass, of which one may collect several (``*args``).
    named = inspect.signature(taker.forward).bind(*args, **kwargs).arguments
    shapes = {name: _dynamic(value, inputs.rows, batch) for name, value in named.items()}
    program = torch.export.export(taker, args, kwargs, dynamic_shapes=shapes)
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()

    def run(given: Inputs) -> Any:
        args, kwargs = given.bound(module)
        return loaded(*args, **kwargs)

    return run


def _taking(module: nn.Module, kwargs: Mapping[str, Any]) -> nn.Module:
    """``module``; one whose forward pass collects named inputs (``**kwargs``), by the names that these have.

    torch.export writes programs of several collected inputs that fail when they are called.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    collected = [
        name for name in kwargs if name not in {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    ]
    return _Named(module, collected) if collected else module


class _Named(nn.Module):
    """A network that takes ``names`` as inputs of its own, behind those by place."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        own = [p for p in inspect.signature(module.forward).parameters.values() if p.kind is not p.VAR_KEYWORD]
        more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        signature = inspect.Signature([*own, *more])

        def forward(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            return module(*given.args, **given.kwargs)

        forward.__signature__ = signature  # type: ignore[attr-defined]
        self.forward = forward


def _dynamic(tree: Any, rows: int, batch: Any) -> Any:
    """``tree`` with what torch shall know of each tensor's sizes: the first is any where it holds examples."""
    return map_tensors(lambda t: {0: batch} if t.dim() and len(t) == rows else None, tree)


def write_torchscript(module: nn.Module, inputs: Inputs, path: Path) -> Program:
    """A traced program; arguments go in by place, or by name where the network takes them by name."""
    args, kwargs = inputs.bound(module)
    if args and kwargs:
        raise ShrinkbenchError(
            "TorchScript traces a network by arguments in their places or by named ones, and these inputs hold "
            f"both ({inputs}); give all by name, or choose .pt2"
        )
    given: dict[str, Any] = {"example_kwarg_inputs": kwargs} if kwargs else {"example_inputs": args}
    # Dictionaries come out of a trace only where it is told that their keys are always the same.
    traced = torch.jit.trace(module, **given, check_trace=False, strict=False)
    traced.save(str(path))
    loaded = torch.jit.load(str(path))

    def run(more: Inputs) -> Any:
        args, kwargs = more.bound(module)
        return loaded(*args, **kwargs)

    return run


class _Flat(nn.Module):
    """A network that takes the tensors of its inputs one after another, as ONNX has no trees."""

    def __init__(self, module: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.module = module
        self.inputs = inputs

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        """Its outputs."""
        left = iter(tensors)
        return tensors_in(self.inputs.map(lambda _: next(left)).call(self.module))


def write_onnx(module: nn.Module, inputs: Inputs, path: Path) -> Program:
    """A graph with one input for each tensor, named as the network names it: ``input`` where there is one."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ShrinkbenchError(
            f"writing ONNX needs {' and '.join(missing)}; install them with: pip install 'shrinkbench[onnx]'"
        )
    import onnxruntime

    flat = _Flat(module, inputs).eval()
    names = ["input"] if len(inputs.args) == 1 and len(inputs.tensors) == 1 else list(_names(module, inputs))
    rows, batch = inputs.rows, torch.export.Dim("batch")
    torch.onnx.export(
        flat,
        tuple(inputs.tensors),
        str(path),
        dynamo=True,
        dynamic_shapes=(tuple(_dynamic(tensor, rows, batch) for tensor in inputs.tensors),),
        input_names=names,
        output_names=["logits"] if len(flat(*inputs.tensors)) == 1 else None,
        external_data=False,
        verbose=False,
    )
    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {one.name for one in session.get_inputs()}  # what the outputs do not depend on may be gone

    def run(more: Inputs) -> Any:
        fed = {name: t.numpy() for name, t in zip(names, more.tensors, strict=True) if name in taken}
        return [torch.from_numpy(y) for y in session.run(None, fed)]

    return run


def _names(module: nn.Module, inputs: Inputs) -> Iterator[str]:
    """A name for each tensor: the argument's, and inside of trees the place or the key behind a dot."""
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(module.forward).parameters.values()
    taken = [parameter for parameter in parameters if parameter.kind not in collecting]
    for number, value in enumerate(inputs.args):
        name = taken[number].name if number < len(taken) else f"input{number}"
        yield from _names_in(name, value)
    for name, value in inputs.kwargs.items():
        yield from _names_in(name, value)


def _names_in(name: str, tree: Any) -> Iterator[str]:
    if isinstance(tree, Tensor):
        yield name
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _names_in(f"{name}.{key}", value)
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from _names_in(f"{name}.{number}", value)
    else:
        raise ShrinkbenchError(
            f"the input '{name}' is a {type(tree).__name__}, which ONNX has no place for; choose .pt2 or .ts"
        )


WRITERS = cast(
    "Mapping[str, Callable[[nn.Module, Inputs, Path], Program]]",
    {".pt2": write_torch_export, ".ts": write_torchscript, ".onnx": write_onnx},
)
