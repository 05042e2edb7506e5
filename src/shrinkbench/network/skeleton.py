"""A copy of a network that torch-pruning's dependency graph reads correctly, on the meta device.

The graph takes every operation that it does not know for an element-wise one. Of attention, recurrent and
bilinear layers, and of modules without parameters that change the number of channels (option-A shortcuts,
channel samplers), this is known to be wrong; stand-ins replace them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from shrinkbench.network.attention import is_attention
from shrinkbench.network.inputs import Inputs
from shrinkbench.network.opaque import Made, Opaque, record
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.network.weights import copy_of, in_mode, is_transposed_linear, with_parameters

MIXES = "mixes or rearranges channels"
SUMS = "sums over channels"
COMPILED = "is compiled (TorchScript) and cannot be looked into"
_SUMMING = (nn.RNNBase, nn.RNNCellBase, nn.Bilinear)


@dataclass(frozen=True)
class Skeleton:
    """The copy, its stand-ins with what they do to channels, and what each submodule that is called gave.

    ``unreadable``: module -> why its own channels have to stay, of those that are to be named.
    """

    module: nn.Module
    opaque: Mapping[str, str]
    unreadable: Mapping[str, str]
    called: Mapping[str, Sequence[Made]]
    makes_meta: bool = False  # tensors that its code makes on no device in particular have no data either

    @contextmanager
    def behind(self, paths: Mapping[str, str]) -> Iterator[Skeleton]:
        """The skeleton with more stand-ins, at ``paths``, inside the context."""
        inside = {p for p in self.opaque if any(p.startswith(f"{outer}.") for outer in paths)}
        before = _stand_in(self.module, {path: self.called[path] for path in paths})
        try:
            kept = {path: why for path, why in self.opaque.items() if path not in inside}
            yield replace(self, opaque={**kept, **paths})
        finally:
            for parent, name, child in reversed(before):
                parent._modules[name] = child


def without_values(example: Inputs) -> Inputs:
    """One input in single precision on the meta device."""
    return one_of(example).map(lambda tensor: torch.empty_like(tensor, device="meta"))


def one_of(example: Inputs) -> Inputs:
    """One input in single precision, on the CPU where it has values."""
    return example.part(0, 1).to("cpu", torch.float32)


def skeleton_of(module: nn.Module, example: Inputs, *, device: str = "meta") -> Skeleton:
    """The copy of ``module``; raises whatever its own code does where it runs on no data at all."""
    bare = in_mode(copy_of(module), training=False)
    _turn(bare)
    compiled = outermost([p for p, m in module.named_modules() if isinstance(m, torch.jit.ScriptModule)])
    for path in compiled:
        put_everywhere(bare, path, _Caller(bare.get_submodule(path)))
    called = _record_with_data(bare, example) if compiled else {}
    _stand_in(bare, {path: called[path] for path in compiled if path in called})
    bare = _placed(with_parameters(bare), device)
    makes_meta = False
    if not compiled and device == "meta":
        called, makes_meta = _record(bare, module, example)
    elif not compiled:
        called = record(bare, one_of(example), device=device)
    opaque = {path: COMPILED for path in compiled if path in called}
    for path, calls in called.items():
        why = _misread(bare.get_submodule(path), calls) if is_there(path, opaque) else None
        if why is not None:
            opaque[path] = why
    opaque = {path: opaque[path] for path in outermost(opaque)}
    _stand_in(bare, {path: called[path] for path, why in opaque.items() if why != COMPILED})
    return Skeleton(
        bare, opaque, {path: f"it {COMPILED}" for path in opaque if path in compiled}, called, makes_meta
    )


def _record(bare: nn.Module, module: nn.Module, example: Inputs) -> tuple[dict[str, list[Made]], bool]:
    """What each submodule gives, and whether it takes ``torch.device("meta")`` to tell without data."""
    inputs = without_values(example)
    for makes_meta in (False, True):
        try:
            with torch.device("meta") if makes_meta else nullcontext():
                return record(bare, inputs), makes_meta
        except Exception:  # noqa: S112  whatever a network's own code raises where there are no values
            continue
    return _record_with_data(copy_of(module), example), False


def _placed(bare: nn.Module, device: str) -> nn.Module:
    """``bare`` on ``device``, in place, with its constants; gradients reach every parameter."""
    bare = bare.to(device).float()
    for child in bare.modules():
        for name, value in vars(child).items():
            if isinstance(value, Tensor):
                child.__dict__[name] = value.detach().to(device)
        for parameter in child.parameters(recurse=False):
            parameter.requires_grad_(parameter.is_floating_point())
    return bare


class Turned(nn.Linear):
    """In place of a linear layer of weights laid out as (inputs, outputs), which the graph does not know."""


def _turn(bare: nn.Module) -> None:
    """Put layers that the graph knows in the place of GPT-2's, under the same names."""
    for path, layer in list(bare.named_modules()):
        if path and is_transposed_linear(layer):
            inputs, outputs = cast(Tensor, layer.weight).shape
            put_everywhere(bare, path, Turned(inputs, outputs, bias=layer.bias is not None).eval())


class _Caller(nn.Module):
    """A compiled module in a form that can be watched; it moves nowhere."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.__dict__["_original"] = original

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_original"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the original gives."""
        return self.__dict__["_original"](*args, **kwargs)


def _record_with_data(module: nn.Module, example: Inputs) -> dict[str, list[Made]]:
    """As :func:`record`, by one random input where the network's weights are."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    inputs = example.drawn(1, seed=0).to(like.device, like.dtype)
    with evaluation_mode(module):
        return record(module, inputs)


def _misread(child: nn.Module, calls: Sequence[Made]) -> str | None:
    """What ``child`` does with channels where the graph takes it for something else; ``None``: nothing."""
    if isinstance(child, _SUMMING):
        return SUMS
    bare = next(child.parameters(), None) is None
    return MIXES if is_attention(child) or (bare and any(_changes_channels(made) for made in calls)) else None


def is_there(path: str, opaque: Collection[str]) -> bool:
    """Whether ``path`` is neither one of the stand-ins nor inside of one."""
    return path not in opaque and not any(path.startswith(f"{outer}.") for outer in opaque)


def _changes_channels(made: Made) -> bool:
    """Whether an image came out with another number of channels, and not just with its sides exchanged."""
    if not isinstance(made.given, Tensor) or not isinstance(made.output, Tensor):
        return False
    before, after = made.given.shape, made.output.shape
    permuted = sorted(before) == sorted(after)
    return len(before) == len(after) == 4 and before[1] != after[1] and not permuted


def outermost(paths: Collection[str]) -> list[str]:
    """Those of ``paths`` that are inside of no other."""
    return [p for p in paths if not any(p.startswith(f"{outer}.") for outer in paths)]


def put_everywhere(root: nn.Module, path: str, new: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Put ``new`` where the submodule at ``path`` stands, at each of its places, which are returned."""
    old = root.get_submodule(path)
    places = [
        (parent, name, child)
        for parent in root.modules()
        for name, child in parent._modules.items()
        if child is old
    ]
    for parent, name, _ in places:
        parent._modules[name] = new
    return places


def _stand_in(root: nn.Module, called: Mapping[str, Sequence[Made]]) -> list[tuple[nn.Module, str, nn.Module]]:
    before = []
    for path, calls in called.items():
        stand_in = Opaque(root.get_submodule(path), [made.output for made in calls])
        before += put_everywhere(root, path, stand_in)
    return before
