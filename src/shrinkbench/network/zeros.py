"""Which entries of what a network multiplies by are zero because of masks.

A mask is on a parameter; what multiplies may be a part of it, or be computed from it (a normalised or
standardised weight, a product of two, the output of a small network), and then a masked entry need not be a
zero there. All that does not depend on data is computed whole and masked, from made-up parameters that are once
positive and once negative: an entry is skipped if it is zero masked wherever it is another number whole. A
weight that data scale keeps its zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from shrinkbench.network.products import NonZeros

_Versions = tuple[tuple[Tensor, Tensor], ...]  # whole and masked, for each sign
_SIGNS = (1, -1)


class Zeros:
    """The values of constants, whole and masked, by storage.

    Without ``compute`` only views of masked parameters are known, which costs nothing.
    """

    def __init__(self, masks: Mapping[str, Tensor], *, compute: bool) -> None:
        self.masked = frozenset(name for name, mask in masks.items() if not bool(mask.all()))
        self._masks = masks
        self._compute = compute
        self._values: dict[int, _Versions] = {}
        self._scaled: set[int] = set()
        self._generator = torch.Generator().manual_seed(0)

    def add_parameter(self, name: str, at: Tensor) -> None:
        """Make up values for the parameter ``name``, which the pass holds as ``at``."""
        if name not in self.masked and not self._compute:
            return
        size = torch.rand(at.shape, generator=self._generator).add_(1).to(at.dtype)
        versions = []
        for sign in _SIGNS if self._compute else _SIGNS[:1]:
            whole = _laid_out_as(at, size * sign if at.is_floating_point() or at.is_complex() else size)
            masked = whole
            if name in self.masked:
                masked = whole.clone()
                _view(masked, at).masked_fill_(~self._masks[name].cpu(), 0)
            versions.append((whole, masked))
        self._values[storage_id(at)] = tuple(versions)

    def add_buffer(self, at: Tensor, values: Tensor) -> None:
        """Take the buffer's own ``values``."""
        if self._compute and values.device.type != "meta":
            whole = _laid_out_as(at, values.detach().cpu())
            self._values[storage_id(at)] = ((whole, whole),) * len(_SIGNS)

    def nonzeros(self, tensor: Tensor, *, is_weight: bool = False) -> NonZeros:
        """Which entries of ``tensor`` are multiplied; what data scale is looked at where it ``is_weight``."""
        at = storage_id(tensor)
        found = self._values.get(at)
        if found is None or not _is_dirty(found) or (at in self._scaled and not is_weight):
            return None
        skipped = used = torch.zeros(tensor.shape, dtype=torch.bool)
        for version in found:
            whole, masked = (_view(values, tensor) for values in version)
            tells = whole.isfinite() & (whole != 0)
            skipped, used = skipped | (tells & (masked == 0)), used | (tells & (masked != 0))
        return used | ~skipped

    def scale(self, weight: Tensor, product: Tensor) -> None:
        """``product`` is ``weight`` scaled by data, or a copy of such a one."""
        at, found = storage_id(product), self._values.get(storage_id(weight))
        if found is None or not _is_dirty(found):
            self.forget([product])
        elif at != storage_id(weight):
            self._values[at] = tuple(
                (_scaled(whole, weight, product), _scaled(masked, weight, product)) for whole, masked in found
            )
            self._scaled.add(at)

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
            self._scaled.discard(storage_id(tensor))

    def _repeat(
        self, func: Any, args: Any, kwargs: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> None:
        given = [storage_id(tensor) for tensor in inputs]
        dirty = any(_is_dirty(self._values[at]) for at in given)
        kwargs = {k: torch.device("cpu") if k == "device" and v is not None else v for k, v in kwargs.items()}
        if dirty and func._schema.is_mutable:  # whole and masked part ways here
            for at in given:
                self._values[at] = tuple(
                    (whole, masked.clone() if masked is whole else masked) for whole, masked in self._values[at]
                )
        results: list[list[list[Tensor]]] = []
        for sign in range(len(_SIGNS)):
            results.append([])
            for version in (0, 1) if dirty else (0,):

                def values_of(tensor: Tensor, sign: int = sign, version: int = version) -> Tensor:
                    found = self._values.get(storage_id(tensor))
                    if found is None:  # an operation that takes the shape alone
                        return torch.empty(tensor.shape, dtype=tensor.dtype)
                    return _view(found[sign][version], tensor)

                found = func(
                    *tree_map_only(Tensor, values_of, args), **tree_map_only(Tensor, values_of, kwargs)
                )
                results[-1].append([leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)])
        for i, tensor in enumerate(outputs):
            if storage_id(tensor) not in given:
                laid = [[_laid_out_as(tensor, leaves[i]) for leaves in versions] for versions in results]
                self._values[storage_id(tensor)] = tuple((each[0], each[-1]) for each in laid)


def _scaled(values: Tensor, weight: Tensor, product: Tensor) -> Tensor:
    return _laid_out_as(product, _view(values, weight).expand(product.shape))


def _is_dirty(versions: _Versions) -> bool:
    """Whether masks have reached the values."""
    return any(whole is not masked for whole, masked in versions)


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
