"""A copy of a network that torch-pruning's dependency graph reads correctly, without values where it runs so.

The graph takes every operation that it does not know for an element-wise one. Of attention and of modules
without parameters that change the number of channels (option-A shortcuts, channel samplers) this is known to
be wrong, and on Swin's windows its tracing does not end; these modules are replaced by a linear map of the
same shape, which the graph knows to mix channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.attention import is_attention, widths
from shrinkbench.network.inputs import Inputs
from shrinkbench.network.probe import floating_leaves
from shrinkbench.network.watching import fused_layers_off, watching
from shrinkbench.network.weights import copy_of, with_parameters


def one_of(example: Inputs, device: str) -> Inputs:
    """One input in single precision, on the meta device without values."""
    one = example.part(0, 1).to("cpu", torch.float32)
    if device == "meta":
        return one.map(lambda t: torch.empty_like(t, device="meta"))
    return one.filled(0)


class MixingStandIn(nn.Module):
    """In place of attention: every output depends on every input channel.

    What else is asked of it is asked of the ``original``, whose parameters are no part of it.
    """

    def __init__(self, original: nn.Module, device: str) -> None:
        super().__init__()
        inputs, outputs = widths(original)
        self.mix = nn.Linear(inputs, outputs, bias=False, device=device)
        self.returns_pair = isinstance(original, nn.MultiheadAttention)
        self.__dict__["_original"] = original

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_original"], name)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Any:
        """Map tokens (..., inputs) to (..., outputs)."""
        y = self.mix(x)
        return (y, None) if self.returns_pair else y


class RearrangingStandIn(nn.Module):
    """In place of a module without parameters that changes the number of channels of an image."""

    def __init__(self, inputs: int, output: torch.Size, device: str) -> None:
        super().__init__()
        self.mix = nn.Conv2d(inputs, output[1], 1, bias=False, device=device)
        self.size = (output[2], output[3])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to an image of the original's output shape."""
        return nn.functional.adaptive_avg_pool2d(self.mix(x), self.size)


class Entrance(nn.Module):
    """A network behind a linear map of its input: the graph then sees what is summed with that input."""

    def __init__(self, body: nn.Module, example: Inputs) -> None:
        super().__init__()
        kinds = {1: nn.Linear, 2: nn.Conv1d, 3: nn.Conv2d, 4: nn.Conv3d}
        self.mix: nn.Module = nn.Identity()
        first = example.args[0] if example.args else None
        if isinstance(first, Tensor) and first.is_floating_point() and first.dim() - 1 in kinds:
            width = first.shape[1]
            extra = {} if first.dim() == 2 else {"kernel_size": 1}
            self.mix = kinds[first.dim() - 1](width, width, bias=False, device=first.device, **extra)
        self.body = body

    def forward(self, inputs: Inputs) -> Any:
        """Every floating tensor that the network returns."""
        if not isinstance(self.mix, nn.Identity):
            inputs = Inputs((self.mix(inputs.args[0]), *inputs.args[1:]), inputs.kwargs)
        return floating_leaves(inputs.call(self.body))


def skeleton_of(module: nn.Module, example: Inputs) -> tuple[nn.Module, frozenset[str], str]:
    """The copy, the paths of its stand-ins, and the device that it lies on.

    A network that looks at whole numbers or truth values (which places are padding) has no pass without them,
    and is followed with those of ``example``, in memory.
    """
    try:
        return (*_skeleton_on("meta", module, example), "meta")
    except ShrinkbenchError:
        if all(tensor.is_floating_point() or tensor.is_meta for tensor in example.tensors):
            raise
        return (*_skeleton_on("cpu", module, example), "cpu")


def _skeleton_on(device: str, module: nn.Module, example: Inputs) -> tuple[nn.Module, frozenset[str]]:
    skeleton = with_parameters(copy_of(module).eval()).to(device).float()
    for parameter in skeleton.parameters():
        parameter.requires_grad_()
    replaced: set[str] = set()
    for path, child in list(skeleton.named_modules()):
        if path and is_attention(child):
            _replace(skeleton, path, MixingStandIn(child, device))
            replaced.add(path)
    for path, (inputs, output) in _rearrangements(skeleton, one_of(example, device)).items():
        _replace(skeleton, path, RearrangingStandIn(inputs, output, device))
        replaced.add(path)
    return skeleton, frozenset(replaced)


def _replace(root: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    root.get_submodule(parent).add_module(name, new)


def _rearrangements(skeleton: nn.Module, inputs: Inputs) -> dict[str, tuple[int, torch.Size]]:
    """Modules without parameters that map an image to one with another number of channels."""
    found: dict[str, tuple[int, torch.Size]] = {}

    def note(path: str, given: Any, output: Any) -> None:
        if given and isinstance(given[0], Tensor) and isinstance(output, Tensor):
            before, after = given[0].shape, output.shape
            permuted = sorted(before) == sorted(after)
            if len(before) == len(after) == 4 and before[1] != after[1] and not permuted:
                found[path] = (before[1], after)

    bare = {p: m for p, m in skeleton.named_modules() if p and next(m.parameters(), None) is None}
    try:
        with watching(bare, note), torch.no_grad(), fused_layers_off():
            inputs.call(skeleton)
    except Exception as error:  # whatever a network's own code raises where there are no values
        raise ShrinkbenchError(
            f"the network cannot be followed without data ({str(error).splitlines()[0]}); channels can only be "
            "removed from networks whose forward pass does not depend on values"
        ) from None
    return {p: v for p, v in found.items() if not any(p.startswith(f"{outer}.") for outer in found)}
