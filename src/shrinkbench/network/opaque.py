"""What stands in for a module whose inside torch-pruning's graph cannot read, or would misread.

The stand-in computes nothing: it gives what the original gave when the network was run once without data, and
every tensor of it depends on every tensor that goes in. In the graph it is one operation, which channels reach
and do not pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.network.inputs import Inputs, map_tensors, tensors_in
from shrinkbench.network.probe import floating_leaves
from shrinkbench.network.shapes import Remembering
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
        # Without one there would be no operation.
        start = torch.empty(0, device=outputs[0].device, requires_grad=True)
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
        return map_tensors(lambda tensor: next(made) if _is_data(tensor) else tensor, output)


class Entrance(nn.Module):
    """A network behind one operation on its first floating input: the graph sees what is summed with that."""

    def __init__(self, body: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        first = next((tensor for tensor in inputs.tensors if tensor.is_floating_point()), None)
        self.core = Core(first.shape[1] if first is not None and first.dim() > 1 else None)
        self.body = body
        self.closed: str | None = None  # a class in what the network returns that hides tensors

    def forward(self, inputs: Inputs) -> list[Tensor]:
        """Every floating tensor that the network returns and that depends on its input or parameters."""
        for child in self.body.modules():
            if isinstance(child, Opaque):
                child.calls = 0
        first = next((tensor for tensor in inputs.tensors if tensor.is_floating_point()), None)
        if first is not None:
            made = self.core((first,), (first,))[0]
            inputs = inputs.map(lambda tensor: made if tensor is first else tensor)
        with Remembering():
            output = inputs.call(self.body)
        self.closed = next(_closed_classes(output), None)
        leaves = floating_leaves(output)
        return [leaf for leaf in leaves if leaf.requires_grad]


def _closed_classes(tree: Any) -> Iterator[str]:
    """Names of the classes in an output that hold tensors where nobody looks for them."""
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for part in tree:
            yield from _closed_classes(part)
    elif not isinstance(tree, Tensor) and not tensors_in(tree) and tensors_in(getattr(tree, "__dict__", {})):
        yield type(tree).__name__


@dataclass(frozen=True)
class Made:
    """What one call of a module was given (its first argument) and gave, as tensors without data."""

    given: Any
    output: Any


def record(module: nn.Module, inputs: Inputs, *, device: str = "meta") -> dict[str, list[Made]]:
    """What each submodule that is called gives, call by call, when ``module`` is run on ``inputs``."""
    found: dict[str, list[Made]] = {}

    def note(path: str, given: Any, output: Any) -> None:
        first = given[0] if given else None
        found.setdefault(path, []).append(Made(_without_data(first, device), _without_data(output, device)))

    children = {path: child for path, child in module.named_modules() if path}
    with watching(children, note), torch.no_grad(), fused_layers_off(), Remembering():
        inputs.call(module)
    return found


def _without_data(value: Any, device: str) -> Any:
    """Tensors become others on ``device``, without data there, real numbers in single precision."""

    def empty(tensor: Tensor) -> Tensor:
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=dtype, device=device)

    return map_tensors(empty, value)


def _channels(output: Tensor) -> int | None:
    """The size of the dimension that holds channels: the last of tokens, the second of features and images."""
    if output.dim() < 2:
        return None
    return int(output.shape[-1] if output.dim() == 3 else output.shape[1])


def _is_data(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _floating(value: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(value) if _is_data(tensor)]
