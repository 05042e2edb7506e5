"""What surgery does to a network, as a value, and the carrying out of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.network.attention import HeadsLeft
from shrinkbench.network.cutting import child_at, cut, put
from shrinkbench.surgery.stand_ins import ChannelSelect, ConstantLayer, PassOn, ZeroOutputs


@dataclass(frozen=True)
class Surgery:
    """Everything that turns a network into the smaller one; applies to any network of the same definition.

    ``kept``: tensor -> dimension -> positions that stay. ``heads``: attention -> how many heads stay, or
    which, where it is given position biases for each. ``selected``: layer -> those of the channels arriving
    there that it reads. ``constant``: layers without a weight left, with their number of outputs (1 where
    nothing listens) and whether a bias stays. ``zero``: normalisation layers and attention of which nothing is
    left. ``identity``: modules that pass on their input unchanged.
    """

    kept: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    heads: Mapping[str, HeadsLeft] = field(default_factory=dict)
    selected: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    constant: Mapping[str, tuple[int, bool]] = field(default_factory=dict)
    zero: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain lists and dictionaries."""
        plain: dict[str, Any] = _as_fields().dump_python(self, mode="json")
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Surgery:
        """The inverse of :meth:`as_json`."""
        try:
            found = _as_fields().validate_python(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "surgery"
            raise ShrinkbenchError(
                f"this is not a description of a smaller network: {one_line(where, 60)}: {first['msg']}"
            ) from None
        if absent := found.as_json().keys() - data.keys():
            raise ShrinkbenchError(
                f"this is not a description of a smaller network: '{min(absent)}' is missing"
            )
        return found


@cache
def _as_fields() -> TypeAdapter[Surgery]:
    return TypeAdapter(Surgery)


def operate(module: nn.Module, surgery: Surgery) -> nn.Module:
    """Carry out ``surgery`` on ``module`` in place and return it."""
    readers = {path: child_at(module, path) for path in surgery.selected}  # some become identities below
    for path, (channels, keep_bias) in surgery.constant.items():
        put(module, path, ConstantLayer(child_at(module, path), channels, keep_bias=keep_bias))
    for path in surgery.zero:
        gone = child_at(module, path)
        attention = isinstance(gone, nn.MultiheadAttention)
        put(module, path, ZeroOutputs(pair=attention, batch_first=attention and bool(gone.batch_first)))
    for path in surgery.identity:
        put(module, path, _pass_on(child_at(module, path)))
    cut(module, surgery.kept, surgery.heads)
    for path, index in surgery.selected.items():
        dim = -1 if isinstance(readers[path], nn.Linear | nn.BatchNorm1d) else 1
        device = next(readers[path].parameters()).device
        select = ChannelSelect(torch.tensor(index, dtype=torch.int64, device=device), dim=dim)
        put(module, path, nn.Sequential(select, child_at(module, path)))
    return module


def _pass_on(gone: nn.Module) -> nn.Module:
    """What passes on its input where ``gone`` stood; blocks of transformers are given more beside."""
    return nn.Identity() if len(inspect.signature(gone.forward).parameters) == 1 else PassOn()
