"""Products that are written as an element-wise product and a sum: ``(x[:, None] * w).sum(-1)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from shrinkbench.network.products import Multiplication, name_of
from shrinkbench.network.zeros import storage_id


@dataclass(frozen=True)
class _Pending:
    """An element-wise product: its operands, and its strides and sizes before any view."""

    operands: tuple[Tensor, Tensor]
    output: Tensor


class Contractions:
    """Remembers element-wise products with constants until what they give is summed, or not.

    Counted is a sum along a dimension along which both operands vary. A scale for each channel whose result is
    then averaged over an image can be taken out of that sum, and is none, as little as a gate of data by data.
    """

    def __init__(self) -> None:
        self._pending: dict[int, _Pending] = {}

    def note(self, func: Any, args: tuple[Any, ...], output: Any) -> None:
        """Look at a product with a constant among its operands that was not counted as it is."""
        both = [a for a in args[:2] if isinstance(a, Tensor) and a.is_floating_point()]
        if name_of(func) != "mul" or len(both) != 2 or not isinstance(output, Tensor):
            return
        if storage_id(both[0]) != storage_id(both[1]):
            self._pending[storage_id(output)] = _Pending((both[0], both[1]), output)

    def forget(self, outputs: tuple[Tensor, ...]) -> None:
        """Drop what is overwritten: ``outputs`` hold other values now, or have the address of freed ones."""
        for tensor in outputs:
            self._pending.pop(storage_id(tensor), None)

    def summed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Multiplication, ...]:
        """The products that a sum, or mean, adds up."""
        if name_of(func) not in ("sum", "mean", "nansum") or not isinstance(args[0], Tensor):
            return ()
        found = self._pending.get(storage_id(args[0]))
        if found is None:
            return ()
        whole = getattr(func, "_overloadname", "default") == "default"
        dims = None if whole else kwargs.get("dim", args[1] if len(args) > 1 else None)
        if not _varies_along(found, args[0], dims):
            return ()
        return (Multiplication("mul", found.output.numel(), found.operands),)


def _varies_along(product: _Pending, seen: Tensor, dims: Any) -> bool:
    """Whether both operands vary along a dimension of the product that summing ``seen``, a view of it, ends."""
    shape, strides = product.output.shape, product.output.stride()
    chosen = [dims] if isinstance(dims, int) else list(dims or range(seen.dim()))
    summed = [(seen.stride(d), seen.stride(d) * seen.shape[d]) for d in chosen if seen.shape[d] > 1]
    sizes = [(1,) * (len(shape) - tensor.dim()) + tuple(tensor.shape) for tensor in product.operands]
    return any(
        all(size[d] > 1 for size in sizes)
        and any(start < strides[d] * shape[d] and strides[d] < end for start, end in summed)
        for d in range(len(shape))
    )
