"""What surgery does to a network, as a value, and the carrying out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.attention import with_heads
from shrinkbench.surgery.stand_ins import ChannelSelect, ConstantLayer, Zeros

_Conv = nn.modules.conv._ConvNd
_BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Surgery:
    """Everything that turns a network into the smaller one; applies to any network of the same definition.

    ``kept``: tensor -> dimension -> positions that stay. ``heads``: attention -> heads that stay.
    ``selected``: layer -> those of the channels arriving there that it reads. ``constant``: layers without a
    weight left, with their number of outputs (1 where nothing listens) and whether a bias stays. ``zero``:
    normalisation layers and attention of which nothing is left. ``identity``: modules that pass on their
    input unchanged.
    """

    kept: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    heads: Mapping[str, int] = field(default_factory=dict)
    selected: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    constant: Mapping[str, tuple[int, bool]] = field(default_factory=dict)
    zero: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain lists and dictionaries."""
        return {
            "kept": {t: {str(d): list(at) for d, at in dims.items()} for t, dims in self.kept.items()},
            "heads": dict(self.heads),
            "selected": {layer: list(at) for layer, at in self.selected.items()},
            "constant": {layer: list(value) for layer, value in self.constant.items()},
            "zero": list(self.zero),
            "identity": list(self.identity),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Surgery:
        """The inverse of :meth:`as_json`."""
        try:
            return cls(
                kept={t: {int(d): tuple(at) for d, at in dims.items()} for t, dims in data["kept"].items()},
                heads=dict(data["heads"]),
                selected={layer: tuple(at) for layer, at in data["selected"].items()},
                constant={layer: (int(n), bool(bias)) for layer, (n, bias) in data["constant"].items()},
                zero=tuple(data["zero"]),
                identity=tuple(data["identity"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ShrinkbenchError(f"this is not a description of a smaller network: {error!r}") from None


def operate(module: nn.Module, surgery: Surgery) -> nn.Module:
    """Carry out ``surgery`` on ``module`` in place and return it."""
    for path, (channels, keep_bias) in surgery.constant.items():
        put(module, path, ConstantLayer(_child(module, path), channels, keep_bias=keep_bias))
    for path in surgery.zero:
        gone = _child(module, path)
        attention = isinstance(gone, nn.MultiheadAttention)
        put(module, path, Zeros(pair=attention, batch_first=attention and bool(gone.batch_first)))
    for path in surgery.identity:
        put(module, path, nn.Identity())
    touched: dict[str, dict[str, int]] = {}
    for name, dims in surgery.kept.items():
        path, _, tensor = name.rpartition(".")
        holder = _child(module, path)
        old = getattr(holder, tensor, None)
        if not isinstance(old, Tensor):
            raise ShrinkbenchError(f"the network has no tensor '{name}'; this surgery is for another network")
        touched.setdefault(path, {}).setdefault("outputs", int(getattr(holder, "out_channels", 0)))
        _set_tensor(holder, tensor, _narrow(name, old, dims))
    for path, heads in surgery.heads.items():
        put(module, path, with_heads(_child(module, path), heads))
    for path, before in touched.items():
        _describe(_child(module, path), before["outputs"])
    for path, index in surgery.selected.items():
        layer = _child(module, path)
        dim = -1 if isinstance(layer, nn.Linear | nn.BatchNorm1d) else 1
        device = next(layer.parameters()).device
        select = ChannelSelect(torch.tensor(index, dtype=torch.int64, device=device), dim=dim)
        put(module, path, nn.Sequential(select, layer))
    return module


def put(root: nn.Module, path: str, new: nn.Module) -> None:
    """Put ``new`` in the place of the submodule at ``path``, in the mode of the one that was there."""
    if not path:
        raise ShrinkbenchError("a network that is a single layer cannot be replaced; wrap it in nn.Sequential")
    parent, _, name = path.rpartition(".")
    new.training = root.get_submodule(path).training
    setattr(root.get_submodule(parent), name, new)


def _child(module: nn.Module, path: str) -> nn.Module:
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
    return new.clone(memory_format=torch.contiguous_format) if new is old else new


def _set_tensor(holder: nn.Module, name: str, new: Tensor) -> None:
    old = getattr(holder, name)
    if isinstance(old, nn.Parameter):
        setattr(holder, name, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        holder._buffers[name] = new  # keeps it persistent or not, as it was


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
    elif isinstance(layer, _BatchNorm | nn.modules.instancenorm._InstanceNorm):
        sized = layer.weight if layer.weight is not None else layer.running_mean
        described.num_features = len(sized) if sized is not None else described.num_features
    elif isinstance(layer, nn.PReLU):
        described.num_parameters = len(layer.weight)
