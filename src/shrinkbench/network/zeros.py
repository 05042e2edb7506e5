"""Which entries of what a network multiplies by are zero because of masks.

A mask is on a parameter; what multiplies may be a part of it, or be computed from it (a normalised or
standardised weight, a product of two, the output of a small network), and then a masked entry need not be a
zero there. All that does not depend on data is computed twice, from made-up positive parameters, whole and
masked: an entry is skipped if it is zero in the second and not in the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from shrinkbench.network.products import NonZeros


class Zeros:
    """The values of constants, whole and masked, by storage.

    Without ``compute`` only views of masked parameters are known, which costs nothing.
    """

    def __init__(self, masks: Mapping[str, Tensor], *, compute: bool) -> None:
        self.masked = frozenset(name for name, mask in masks.items() if not bool(mask.all()))
        self._masks = masks
        self._compute = compute
        self._values: dict[int, tuple[Tensor, Tensor]] = {}
        self._generator = torch.Generator().manual_seed(0)

    def add_parameter(self, name: str, at: Tensor) -> None:
        """Make up values for the parameter ``name``, which the pass holds as ``at``."""
        if name not in self.masked and not self._compute:
            return
        whole = torch.rand(at.shape, generator=self._generator).add_(1).to(at.dtype)
        whole = _laid_out_as(at, whole)
        masked = whole
        if name in self.masked:
            masked = whole.clone()
            _view(masked, at).masked_fill_(~self._masks[name].cpu(), 0)
        self._values[storage_id(at)] = (whole, masked)

    def add_buffer(self, at: Tensor, values: Tensor) -> None:
        """Take the buffer's own ``values``."""
        if self._compute and values.device.type != "meta":
            whole = _laid_out_as(at, values.detach().cpu())
            self._values[storage_id(at)] = (whole, whole)

    def nonzeros(self, tensor: Tensor) -> NonZeros:
        """Which entries of ``tensor`` are multiplied."""
        found = self._values.get(storage_id(tensor))
        if found is None or found[0] is found[1]:
            return None
        whole, masked = (_view(values, tensor) for values in found)
        return (masked != 0) | (whole == 0)

    def follow(
        self, func: Any, args: Any, kwargs: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> None:
        """Compute what ``func`` made of constants alone."""
        if not self._compute:
            return
        places = {storage_id(tensor) for tensor in inputs}
        if all(storage_id(t) in places for t in outputs) and not func._schema.is_mutable:
            return  # another view
        try:
            if torch.Tag.nondeterministic_seeded in func.tags:
                raise NotImplementedError("drawn by chance")
            self._repeat(func, args, kwargs, inputs, outputs)
        except Exception:  # what cannot be repeated is not known, and counts as dense
            self.forget(outputs)

    def forget(self, outputs: Sequence[Tensor]) -> None:
        """What was made of data is not known."""
        for tensor in outputs:
            self._values.pop(storage_id(tensor), None)

    def _repeat(
        self, func: Any, args: Any, kwargs: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> None:
        dirty = any(self._values[storage_id(t)][0] is not self._values[storage_id(t)][1] for t in inputs)
        kwargs = {k: torch.device("cpu") if k == "device" and v is not None else v for k, v in kwargs.items()}
        if dirty and func._schema.is_mutable:  # whole and masked part ways here
            for tensor in inputs:
                whole, masked = self._values[storage_id(tensor)]
                self._values[storage_id(tensor)] = (whole, masked.clone() if masked is whole else masked)
        results = []
        for version in (0, 1) if dirty else (0,):

            def values_of(tensor: Tensor, version: int = version) -> Tensor:
                found = self._values.get(storage_id(tensor))
                if found is None:  # an operation that takes the shape alone
                    return torch.empty(tensor.shape, dtype=tensor.dtype)
                return _view(found[version], tensor)

            found = func(*tree_map_only(Tensor, values_of, args), **tree_map_only(Tensor, values_of, kwargs))
            results.append([leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)])
        places = {storage_id(tensor) for tensor in inputs}
        for i, tensor in enumerate(outputs):
            if storage_id(tensor) not in places:
                versions = [_laid_out_as(tensor, result[i]) for result in results]
                self._values[storage_id(tensor)] = (versions[0], versions[-1])


def storage_id(tensor: Tensor) -> int:
    """What tensors that share memory have in common."""
    return int(tensor.untyped_storage()._cdata)


def _laid_out_as(at: Tensor, values: Tensor) -> Tensor:
    """The whole storage of ``at`` with ``values`` in its place."""
    length = at.untyped_storage().nbytes() // max(at.element_size(), 1)
    storage = torch.zeros(length, dtype=at.dtype)
    _view(storage, at).copy_(values)
    return storage


def _view(storage: Tensor, like: Tensor) -> Tensor:
    if storage.dtype != like.dtype:
        raise NotImplementedError("bits seen as another type")
    return storage.as_strided(like.shape, like.stride(), like.storage_offset())
