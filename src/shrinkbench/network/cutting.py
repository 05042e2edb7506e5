"""Taking positions out of a network's tensors, in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.attention import HeadsLeft, with_heads
from shrinkbench.network.weights import is_transposed_linear

_Conv = nn.modules.conv._ConvNd
_BatchNorm = nn.modules.batchnorm._BatchNorm


def cut(
    module: nn.Module, kept: Mapping[str, Mapping[int, Iterable[int]]], heads: Mapping[str, HeadsLeft]
) -> nn.Module:
    """Keep of each tensor the positions ``kept``, by dimension, and of each attention the ``heads`` that stay.

    Works in place and returns ``module``; tensors are replaced, not written to.
    """
    touched: dict[str, int] = {}
    for name, dims in kept.items():
        path, _, tensor = name.rpartition(".")
        holder = child_at(module, path)
        old = getattr(holder, tensor, None)
        if not isinstance(old, Tensor):
            raise ShrinkbenchError(f"the network has no tensor '{name}'; this surgery is for another network")
        touched.setdefault(path, _width(holder))
        _set_tensor(holder, tensor, _narrow(name, old, dims))
    for path, stay in heads.items():
        put(module, path, with_heads(child_at(module, path), stay))
    for path, outputs in touched.items():
        _describe(child_at(module, path), outputs)
    return module


def put(root: nn.Module, path: str, new: nn.Module) -> None:
    """Put ``new`` in the place of the submodule at ``path``, in the mode of the one that was there."""
    if not path:
        raise ShrinkbenchError("a network that is a single layer cannot be replaced; wrap it in nn.Sequential")
    parent, _, name = path.rpartition(".")
    new.training = root.get_submodule(path).training
    setattr(root.get_submodule(parent), name, new)


def child_at(module: nn.Module, path: str) -> nn.Module:
    """The layer at ``path``; ``ShrinkbenchError`` where there is none."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        raise ShrinkbenchError(
            f"the network has no layer '{path}'; this surgery is for another network"
        ) from None


def _narrow(name: str, old: Tensor, dims: Mapping[int, Iterable[int]]) -> Tensor:
    new = old.detach()
    for dim, positions in dims.items():
        index = torch.tensor(tuple(positions), dtype=torch.int64, device=old.device)
        if dim >= old.dim() or (len(index) and int(index.max()) >= old.shape[dim]):
            raise ShrinkbenchError(
                f"'{name}' has shape {tuple(old.shape)}; this surgery is for another network"
            )
        new = new.index_select(dim, index)
    for layout in {4: [torch.channels_last], 5: [torch.channels_last_3d]}.get(old.dim(), []):
        if old.is_contiguous(memory_format=layout) and not old.is_contiguous():
            return new.clone(memory_format=layout)
    return new.clone(memory_format=torch.contiguous_format) if new is old else new


def _set_tensor(holder: nn.Module, name: str, new: Tensor) -> None:
    old = getattr(holder, name)
    if isinstance(old, nn.Parameter):
        setattr(holder, name, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        holder._buffers[name] = new  # keeps it persistent or not, as it was


def _width(layer: nn.Module) -> int:
    """Channels of a layer whose blocks are counted by them."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels
    return layer.out_channels if isinstance(layer, _Conv) else 0


def _describe(layer: nn.Module, outputs: int) -> None:
    """Bring a layer's own account of its shape in line with its tensors."""
    described = cast(Any, layer)
    if isinstance(layer, _Conv):
        transposed = layer.transposed
        first, second = layer.weight.shape[:2]
        if layer.groups > 1 and not transposed:
            described.groups = layer.groups * first // outputs
        described.out_channels = second * layer.groups if transposed else first
        described.in_channels = first if transposed else second * layer.groups
    elif isinstance(layer, nn.Linear):
        described.out_features, described.in_features = layer.weight.shape
    elif is_transposed_linear(layer):
        described.nx, described.nf = described.weight.shape
    elif isinstance(layer, _BatchNorm | nn.modules.instancenorm._InstanceNorm):
        sized = layer.weight if layer.weight is not None else layer.running_mean
        described.num_features = len(sized) if sized is not None else described.num_features
    elif isinstance(layer, nn.GroupNorm):
        described.num_groups = layer.num_groups * len(layer.weight) // outputs
        described.num_channels = len(layer.weight)
    elif isinstance(layer, nn.PReLU):
        described.num_parameters = len(layer.weight)
