"""Following a pass operation by operation: products, and what each tensor was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shrinkbench.network import shapes
from shrinkbench.network.contractions import Contractions
from shrinkbench.network.products import (
    Multiplication,
    is_uncounted,
    multiplications_of,
    name_of,
    parts_of,
)
from shrinkbench.network.zeros import Zeros, storage_id


@dataclass(frozen=True)
class CountedProduct:
    """One convolution or matrix product: the parameter that it multiplies by, if any, and its multiply-adds.

    ``kept`` of them are left under the masks that the pass was made with.
    """

    parameter: str | None
    multiply_adds: int
    output_shape: tuple[int, ...]
    kept: int


@dataclass(frozen=True)
class Call:
    """One operation on data, as it happens.

    ``parameter`` is what it multiplies by, if it is a weighted product, and ``sources`` are the weighted
    products whose results it reads with no other in between. ``owners`` goes with ``inputs``: the name of
    the parameter that a tensor is (or is made from), ``None`` for other constants, ``""`` for data.
    """

    function: str
    args: tuple[Any, ...]
    inputs: tuple[Tensor, ...]
    owners: tuple[str | None, ...]
    outputs: tuple[Tensor, ...]
    parameter: str | None
    sources: frozenset[str]


_COPIES = frozenset({"clone", "_to_copy"})
# Operations whose results have the shape and type of a tensor, and none of its values; and those through which
# a tensor comes that was written down in the code (its storage may have the address of data that is gone).
_MAKERS = frozenset(
    {
        *("lift_fresh", "lift_fresh_copy", "lift"),
        *("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"),
        *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
    }
)


class Follower(TorchDispatchMode):
    """Counts products and follows, per storage, the owning parameter and the last weighted products.

    ``visit`` is told of every operation on data (not of those on constants alone). ``zeros`` follows what masks
    leave of constants.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        constants: Sequence[Tensor],
        visit: Callable[[Call], None] | None = None,
        zeros: Zeros | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.products: list[CountedProduct] = []
        self.read: set[str] = set()
        self.multiplied: set[str] = set()
        self.uncounted: dict[str, None] = {}
        self.hidden: set[str] = set()
        self.computes_weights = False  # a product by what is computed from a masked parameter
        self._visit = visit
        self._zeros = zeros or Zeros({}, compute=False)
        self._contractions = Contractions()
        # Storages of constants are kept alive. Of all others a weak reference is kept, which keeps the address
        # and no memory: tensors that are made unseen (torch.tensor) would inherit what is known of freed ones.
        self._alive: list[torch.UntypedStorage] = []
        self._held: dict[int, StorageWeakRef] = {}
        self._owner: dict[int, str | None] = {}
        self._last: dict[int, frozenset[str]] = {}
        # Of every tensor that does not depend on data: the parameters that it is computed from.
        self._made_from: dict[int, frozenset[str]] = {}
        # Of every weight that data have scaled: the same.
        self._scaled_from: dict[int, frozenset[str]] = {}
        self._sizes = {name: tensor.numel() for name, tensor in parameters.items()}
        for tensor in constants:
            self._own(tensor, None, frozenset())
        for name, tensor in parameters.items():
            self._own(tensor, name, frozenset({name}))
        self._of_parameters = {storage_id(tensor) for tensor in parameters.values()}

    def _own(self, tensor: Tensor, owner: str | None, made_from: frozenset[str]) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._owner or owner is not None:
            self._alive.append(storage)
            self._owner[storage._cdata] = owner
            self._made_from[storage._cdata] = made_from
            self._last.pop(storage._cdata, None)  # of data that had the address before

    def last(self, tensor: Tensor) -> frozenset[str]:
        """The weighted products whose results reach ``tensor`` with no other in between."""
        return self._last.get(storage_id(tensor), frozenset()) if tensor.numel() else frozenset()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        parts = parts_of(func)
        if parts is not None:  # what comes whole, in inference mode or written by others, is seen in parts
            with self:
                return parts(*args, **kwargs)
        output = shapes.call(func, args, kwargs)
        inputs = tuple(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        outputs = tuple(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        for tensor in outputs:
            if storage_id(tensor) not in self._held:
                self._held[storage_id(tensor)] = StorageWeakRef(tensor.untyped_storage())
        name = func._overloadpacket.__name__
        found = multiplications_of(func, args, kwargs, output) or self._contractions.summed(func, args, kwargs)
        if is_uncounted(func):
            self.uncounted[str(func._overloadpacket)] = None
            self.hidden.update(*(self._made_from.get(storage_id(tensor), ()) for tensor in inputs))
        operands = found[0].operands if found else inputs
        owners = tuple(self._owner.get(storage_id(tensor), "") for tensor in inputs)
        self.read.update(name for name in owners if name)
        owner = self._largest([self._owner.get(storage_id(tensor)) for tensor in operands])
        self._count(found, owner, outputs)
        self._note_product(func, args, inputs, output, counted=bool(found))
        made_from = self._note_constants(name, func, args, kwargs, inputs, outputs)
        sources = frozenset[str]().union(*(self.last(tensor) for tensor in inputs))
        if name in _MAKERS or (inputs and "" not in owners) or (made_from and not found and not sources):
            for tensor in outputs:
                if storage_id(tensor) not in self._owner:
                    # What a product makes of constants belongs to none of them alone.
                    self._own(tensor, None if name in _MAKERS or found else owner, made_from or frozenset())
            return output
        parameter = owner if found else None
        computed = frozenset[str]().union(*(self._made_from.get(storage_id(t), ()) for t in operands if found))
        weights = frozenset({parameter}) if parameter is not None else computed
        for tensor in outputs:
            at = storage_id(tensor)
            self._last[at] = weights or sources
            if at not in self._of_parameters:  # data was written into a constant
                self._owner.pop(at, None)
        if self._visit is not None:
            self._visit(Call(name, args, inputs, owners, outputs, parameter, sources))
        return output

    def _largest(self, names: Sequence[str | None]) -> str | None:
        return max((name for name in names if name), key=lambda name: self._sizes[name], default=None)

    def _count(self, found: Sequence[Multiplication], owner: str | None, outputs: Sequence[Tensor]) -> None:
        for number, product in enumerate(found):
            weights = product.position_of_weights
            kept = product.kept(
                [self._zeros.nonzeros(t, is_weight=i == weights) for i, t in enumerate(product.operands)]
            )
            parameter = owner if number == 0 else None
            shape = tuple(outputs[0].shape)
            self.products.append(CountedProduct(parameter, product.multiply_adds, shape, kept))
            for i, tensor in enumerate(product.operands):
                at = storage_id(tensor)
                scaled = self._scaled_from.get(at, frozenset[str]()) if i == weights else frozenset[str]()
                made_from = self._made_from.get(at, scaled)
                self.multiplied |= made_from
                if storage_id(tensor) not in self._of_parameters and made_from & self._zeros.masked:
                    self.computes_weights = True

    def _note_product(
        self, func: Any, args: tuple[Any, ...], inputs: Sequence[Tensor], output: Any, *, counted: bool
    ) -> None:
        """Remember an element-wise product with what does not depend on data: it may be summed next."""
        places = {storage_id(tensor) for tensor in inputs}
        outputs = tuple(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        written = func._schema.is_mutable
        self._contractions.forget(tuple(t for t in outputs if written or storage_id(t) not in places))
        if not counted and any(storage_id(tensor) in self._made_from for tensor in inputs):
            self._contractions.note(func, args, output)

    def _note_constants(
        self,
        name: str,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
    ) -> frozenset[str] | None:
        """The parameters that the outputs are computed from; ``None`` where they depend on data."""
        makes = name in _MAKERS
        sources = [frozenset[str]() if makes else self._made_from.get(storage_id(t)) for t in inputs]
        known = [source for source in sources if source is not None]
        if len(known) < len(sources):
            places = {storage_id(tensor) for tensor in inputs}
            fresh = [t for t in outputs if func._schema.is_mutable or storage_id(t) not in places]  # no view
            weight = self._scaled_weight(func, args, outputs)
            for tensor in fresh:
                at = storage_id(tensor)
                if at not in self._of_parameters:
                    self._made_from.pop(at, None)
                    self._scaled_from.pop(at, None)
                    if weight is not None:
                        self._scaled_from[at] = self._sources_of(weight)
            if weight is None:
                self._zeros.forget(fresh)
            elif fresh:
                self._zeros.scale(weight, outputs[0])
            return None
        made_from = frozenset[str]().union(*known)
        self._zeros.follow(func, args, kwargs, () if makes else inputs, outputs)
        for tensor in outputs:
            if storage_id(tensor) not in self._of_parameters:
                self._made_from[storage_id(tensor)] = made_from
        return made_from

    def _scaled_weight(self, func: Any, args: tuple[Any, ...], outputs: Sequence[Tensor]) -> Tensor | None:
        """The weight that ``func`` scales by data, or copies after that; ``None`` where it does something else.

        Data that are as large as the product are no scales of a weight: a weight is theirs.
        """
        name, tensors = name_of(func), [argument for argument in args if isinstance(argument, Tensor)]
        weights = [tensor for tensor in tensors if self._sources_of(tensor)]
        if len(weights) != 1 or len(outputs) != 1 or func._schema.is_mutable:
            return None
        scales = name == "mul" or (name == "div" and args[0] is weights[0])
        smaller = all(t is weights[0] or t.numel() < outputs[0].numel() for t in tensors)
        return weights[0] if name in _COPIES or (scales and smaller) else None

    def _sources_of(self, tensor: Tensor) -> frozenset[str]:
        at = storage_id(tensor)
        return self._made_from.get(at) or self._scaled_from.get(at, frozenset())
