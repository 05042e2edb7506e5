"""What a stored network takes, in a few numbers: kinds, shapes and ranges of tensors, none of their values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from shrinkbench.network.inputs import Inputs

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.float32)
}

_WIDEST = 1 << 52  # of a range: whole numbers that double precision tells apart


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of one example: its type, its shape without the examples, and least and largest whole number.

    Floating tensors have no range.
    """

    dtype: str
    shape: tuple[int, ...]
    low: int = 0
    high: int = 0

    @classmethod
    def of(cls, tensor: Tensor) -> StoredTensor:
        """Of a tensor with a row for each example."""
        dtype = "float32" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
        shape = tuple(tensor.shape[1:])
        if tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
            return cls(dtype, shape)
        return cls(dtype, shape, int(tensor.min()), int(tensor.max()))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StoredTensor:
        """Inverse of :meth:`as_json`; ``ValueError`` for what describes no tensor."""
        found = cls(
            str(data["dtype"]), tuple(int(n) for n in data["shape"]), int(data["low"]), int(data["high"])
        )
        dtype = _DTYPES.get(found.dtype)
        if dtype is None or any(n < 1 for n in found.shape) or found.low > found.high:
            raise ValueError(f"{found.dtype} {found.shape} from {found.low} to {found.high} is no tensor")
        limits = (0, 1) if dtype == torch.bool else (-math.inf, math.inf)
        if not dtype.is_floating_point and dtype != torch.bool:
            limits = (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        if found.low < limits[0] or found.high > limits[1]:
            raise ValueError(f"{found.dtype} does not hold {found.low} to {found.high}")
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain fields."""
        return {"dtype": self.dtype, "shape": list(self.shape), "low": self.low, "high": self.high}

    @property
    def example(self) -> Tensor:
        """One example: floats without values, whole numbers that go through the range evenly."""
        dtype = _DTYPES[self.dtype]
        if dtype.is_floating_point:
            return torch.empty((1, *self.shape), device="meta")
        count = math.prod(self.shape)
        span = min(self.high - self.low, _WIDEST)
        steps = torch.arange(count, dtype=torch.float64) * (span / max(count - 1, 1))
        return (steps.round().to(torch.int64).clamp(0, span) + self.low).to(dtype).reshape(1, *self.shape)


@dataclass(frozen=True)
class StoredInputs:
    """The arguments of a network, by place and by name."""

    args: tuple[StoredTensor, ...]
    named: Mapping[str, StoredTensor] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: Inputs) -> StoredInputs | None:
        """Of ``inputs``; ``None`` of one floating tensor, which its shape says all of, and of nested ones."""
        tensors = (*inputs.args, *inputs.kwargs.values())
        if not all(isinstance(t, Tensor) and t.dim() and str(t.dtype)[6:] in _DTYPES for t in tensors):
            return None
        if len(inputs.args) == len(tensors) == 1 and tensors[0].is_floating_point():
            return None
        return cls(
            tuple(map(StoredTensor.of, inputs.args)),
            {name: StoredTensor.of(tensor) for name, tensor in inputs.kwargs.items()},
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StoredInputs:
        """Inverse of :meth:`as_json`; ``ValueError`` for what describes no inputs."""
        named = {str(name): StoredTensor.from_json(one) for name, one in data["named"].items()}
        found = cls(tuple(map(StoredTensor.from_json, data["args"])), named)
        if not found.args and not found.named:
            raise ValueError("there is no input")
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain fields."""
        return {
            "args": [one.as_json() for one in self.args],
            "named": {name: one.as_json() for name, one in self.named.items()},
        }

    @property
    def numbers(self) -> int:
        """How many numbers one example holds."""
        return sum(math.prod(one.shape) for one in (*self.args, *self.named.values()))

    @property
    def example(self) -> Inputs:
        """One example."""
        return Inputs(
            tuple(one.example for one in self.args), {name: one.example for name, one in self.named.items()}
        )
