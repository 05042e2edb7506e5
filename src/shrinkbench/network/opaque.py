"""What stands in for a module whose inside torch-pruning's graph cannot read, or would misread.

The stand-in computes nothing: it gives what the original gave when the network was run once without data, and
every tensor of it depends on every tensor that goes in. In the graph it is one operation, which channels reach
and do not pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from shrinkbench.network.probe import floating_leaves
from shrinkbench.network.watching import fused_layers_off, watching


class _Depend(torch.autograd.Function):
    """New tensors like some, each of which depends on all others that are given."""

    @staticmethod
    def forward(ctx: Any, outputs: tuple[Tensor, ...], *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty(o.shape, dtype=o.dtype, device=o.device) for o in outputs)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("the graph is read and never run backwards")


class Core(nn.Module):
    """The one operation that the graph sees of a stand-in; ``channels`` as torch-pruning counts them."""

    def __init__(self, channels: int | None) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, outputs: tuple[Tensor, ...], inputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Tensors like ``outputs``, made of ``inputs``."""
        start = torch.empty(0, device="meta", requires_grad=True)  # without one there would be no operation
        made: tuple[Tensor, ...] = _Depend.apply(outputs, start, *inputs)
        return made


class Opaque(nn.Module):
    """In place of ``original``, whose ``outputs`` are what it gave, call by call.

    What else is asked of it is asked of the ``original``, whose parameters are no part of it.
    """

    def __init__(self, original: nn.Module, outputs: Sequence[Any]) -> None:
        super().__init__()
        self.__dict__["_original"] = original
        self.__dict__["_outputs"] = outputs
        self.calls = 0
        given = [leaf for output in outputs for leaf in _floating(output)]
        self.core = Core(_channels(given[0]) if given else None)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_original"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the original gave at this call."""
        outputs = self.__dict__["_outputs"]
        output = outputs[self.calls % len(outputs)]
        self.calls += 1
        given = _floating(output)
        if not given:
            return output
        made = iter(self.core(tuple(given), _floating((args, kwargs))))
        return replace_tensors(output, lambda tensor: next(made) if _is_data(tensor) else tensor)


class Entrance(nn.Module):
    """A network behind one operation on its input: the graph then sees what is summed with that input."""

    def __init__(self, body: nn.Module, inputs: Tensor) -> None:
        super().__init__()
        self.core = Core(inputs.shape[1] if inputs.dim() > 1 else None)
        self.body = body

    def forward(self, x: Tensor) -> list[Tensor]:
        """Every floating tensor that the network returns and that depends on its input or parameters."""
        for child in self.body.modules():
            if isinstance(child, Opaque):
                child.calls = 0
        leaves = floating_leaves(self.body(self.core((x,), (x,))[0]))
        return [leaf for leaf in leaves if leaf.requires_grad]


@dataclass(frozen=True)
class Made:
    """What one call of a module was given (its first argument) and gave, as tensors without data."""

    given: Any
    output: Any


def record(module: nn.Module, inputs: Tensor) -> dict[str, list[Made]]:
    """What each submodule that is called gives, call by call, when ``module`` is run on ``inputs``."""
    found: dict[str, list[Made]] = {}

    def note(path: str, given: Any, output: Any) -> None:
        first = given[0] if given else None
        found.setdefault(path, []).append(Made(_without_data(first), _without_data(output)))

    children = {path: child for path, child in module.named_modules() if path}
    with watching(children, note), torch.no_grad(), fused_layers_off():
        module(inputs)
    return found


def _without_data(value: Any) -> Any:
    """Tensors become ones on the meta device, real numbers in single precision."""

    def empty(tensor: Tensor) -> Tensor:
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=dtype, device="meta")

    return replace_tensors(value, empty)


def _channels(output: Tensor) -> int | None:
    """The size of the dimension that holds channels: the last of tokens, the second of features and images."""
    if output.dim() < 2:
        return None
    return int(output.shape[-1] if output.dim() == 3 else output.shape[1])


def _is_data(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _floating(value: Any) -> list[Tensor]:
    """The floating tensors in containers, in the order in which :func:`replace_tensors` meets them."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        if _is_data(tensor):
            found.append(tensor)
        return tensor

    replace_tensors(value, note)
    return found


def replace_tensors(value: Any, make: Callable[[Tensor], Tensor]) -> Any:
    """``value`` with every tensor inside replaced by what ``make`` makes of it."""
    if isinstance(value, Tensor):
        return make(value)
    if isinstance(value, PackedSequence):  # the sizes of its batches are plain numbers to torch
        return value._replace(data=make(value.data))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(replace_tensors(part, make) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(replace_tensors(part, make) for part in value)
    if isinstance(value, Mapping):
        new: Any = copy.copy(value)
        for key, part in value.items():
            new[key] = replace_tensors(part, make)
        return new
    if is_dataclass(value) and not isinstance(value, type):
        new = copy.copy(value)
        for item in fields(value):
            object.__setattr__(new, item.name, replace_tensors(getattr(value, item.name), make))
        return new
    return value
