"""One forward pass without data or memory: who multiplies what, and which layer makes the logits.

The pass runs on the meta device (shapes only) with fused attention switched off, so that every product is seen
as the convolution or matrix product that it is. Each tensor is followed through its storage: a product is
attributed to the parameter that it reads, also where the weight was reshaped, split or standardised first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from shrinkbench.errors import ShrinkbenchError

_WEIGHTS = {
    nn.modules.conv._ConvNd: ("weight",),
    nn.Linear: ("weight",),
    nn.Bilinear: ("weight",),
    nn.MultiheadAttention: ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
}
_BIASES = {
    nn.modules.conv._ConvNd: ("bias",),
    nn.Linear: ("bias",),
    nn.Bilinear: ("bias",),
    nn.MultiheadAttention: ("in_proj_bias", "bias_k", "bias_v"),
}


def _parameters_of(
    module: nn.Module, kinds: Mapping[type[nn.Module], Sequence[str]]
) -> dict[str, nn.Parameter]:
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for path, child in module.named_modules():
        for kind, names in kinds.items():
            if not isinstance(child, kind):
                continue
            for name in names:
                parameter = getattr(child, name, None)
                if isinstance(parameter, nn.Parameter) and id(parameter) not in seen:
                    seen.add(id(parameter))
                    found[f"{path}.{name}" if path else name] = parameter
    return found


def weight_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of convolutions, linear layers and attention projections, by name; a tied weight once.

    >>> list(weight_parameters(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))))
    ['0.weight']
    """
    return _parameters_of(module, _WEIGHTS)


def bias_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Biases of the layers that :func:`weight_parameters` covers."""
    return _parameters_of(module, _BIASES)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put every submodule into evaluation mode and restore each one's own mode afterwards."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, training in modes:
            child.training = training


@dataclass(frozen=True)
class CountedProduct:
    """One convolution or matrix product: the parameter that it reads, if any, and its multiply-adds."""

    parameter: str | None
    multiply_adds: int
    output_shape: tuple[int, ...]


@dataclass(frozen=True)
class Trace:
    """What one forward pass of a single input computes.

    ``outputs`` holds, for every floating tensor that is returned, the logits first, its shape and the
    parameters whose product reaches it with no other weighted product in between. ``read`` are the parameters
    that any operation reads: the others take no part in an evaluation.
    """

    products: tuple[CountedProduct, ...]
    outputs: tuple[tuple[tuple[int, ...], frozenset[str]], ...]
    read: frozenset[str]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the logits."""
        return self.outputs[0][0]

    @property
    def logits(self) -> frozenset[str]:
        """The parameters that make the outputs: the classifier layer, or one of each head."""
        return frozenset[str]().union(*(makers for _, makers in self.outputs))

    @property
    def multiply_adds(self) -> int:
        """All multiply-adds of one input."""
        return sum(product.multiply_adds for product in self.products)

    @property
    def by_parameter(self) -> dict[str, int]:
        """Multiply-adds per parameter; those of attention products belong to none."""
        counts: dict[str, int] = {}
        for product in self.products:
            if product.parameter is not None:
                counts[product.parameter] = counts.get(product.parameter, 0) + product.multiply_adds
        return counts


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


# Operations whose results have the shape and type of a tensor, and none of its values.
_MAKERS = frozenset(
    {
        *("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"),
        *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
    }
)


class Follower(TorchDispatchMode):
    """Counts products and follows, per storage, the owning parameter and the last weighted products.

    ``visit`` is told of every operation on data (not of those on constants alone).
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        constants: Sequence[Tensor],
        visit: Callable[[Call], None] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.products: list[CountedProduct] = []
        self.read: set[str] = set()
        self._visit = visit
        # Storages of constants are kept alive: a freed one could hand its address to data. What is known of
        # data is written anew with every output, so the address of a freed one may be used again.
        self._alive: list[torch.UntypedStorage] = []
        self._owner: dict[int, str | None] = {}
        self._last: dict[int, frozenset[str]] = {}
        self._sizes = {name: tensor.numel() for name, tensor in parameters.items()}
        for tensor in constants:
            self._own(tensor, None)
        for name, tensor in parameters.items():
            self._own(tensor, name)
        self._of_parameters = {storage_id(tensor) for tensor in parameters.values()}

    def _own(self, tensor: Tensor, owner: str | None) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._owner or owner is not None:
            self._alive.append(storage)
            self._owner[storage._cdata] = owner
            self._last.pop(storage._cdata, None)  # of data that had the address before

    def last(self, tensor: Tensor) -> frozenset[str]:
        """The weighted products whose results reach ``tensor`` with no other in between."""
        return self._last.get(storage_id(tensor), frozenset())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        inputs = tuple(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        outputs = tuple(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        owners = tuple(self._owner.get(storage_id(tensor), "") for tensor in inputs)
        self.read.update(name for name in owners if name)
        owner = max((name for name in owners if name), key=lambda name: self._sizes[name], default=None)
        name = func._overloadpacket.__name__
        if name in _MAKERS or (inputs and "" not in owners):
            for tensor in outputs:
                if storage_id(tensor) not in self._owner:
                    self._own(tensor, None if name in _MAKERS else owner)
            return output
        sources = frozenset[str]().union(*(self.last(tensor) for tensor in inputs))
        formula = flop_registry.get(func._overloadpacket)
        parameter = owner if formula is not None else None
        if formula is not None:
            multiply_adds = formula(*args, **kwargs, out_val=output) // 2
            self.products.append(CountedProduct(parameter, multiply_adds, tuple(outputs[0].shape)))
        for tensor in outputs:
            at = storage_id(tensor)
            self._last[at] = sources if parameter is None else frozenset({parameter})
            if at not in self._of_parameters:  # data was written into a constant
                self._owner.pop(at, None)
        if self._visit is not None:
            self._visit(Call(name, args, inputs, owners, outputs, parameter, sources))
        return output


def storage_id(tensor: Tensor) -> int:
    """What tensors that share memory have in common."""
    return cast(int, tensor.untyped_storage()._cdata)


def floating_leaves(output: Any) -> list[Tensor]:
    """Every floating tensor in what a network returns: in lists, tuples, mappings and dataclasses."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        inside: Sequence[Any] = tuple(output.values())
    elif is_dataclass(output) and not isinstance(output, type):
        inside = [getattr(output, item.name) for item in fields(output)]
    else:
        inside = output if isinstance(output, Sequence) and not isinstance(output, str) else ()
    return [leaf for part in inside for leaf in floating_leaves(part)]


def first_tensor(output: Any) -> Tensor:
    """The logits of a forward pass: the tensor itself, ``.logits``, or the first floating tensor inside."""
    for leaf in floating_leaves(getattr(output, "logits", output)):
        return leaf
    raise ShrinkbenchError(
        f"the network returned {type(output).__name__} with no floating-point tensor in it; "
        "wrap it in a module that returns the logits"
    )


def require_materialised(module: nn.Module) -> None:
    """Refuse lazy parameters: they have no shape before the first forward pass."""
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise ShrinkbenchError(
                f"parameter '{name}' is lazy and has no shape yet; run one batch through the network first"
            )


def trace(
    module: nn.Module, input_shape: Sequence[int], *, watch: Callable[[], Callable[[Call], None]] | None = None
) -> Trace:
    """Run one input of ``input_shape`` (without batch dimension) through ``module`` in evaluation mode.

    The module is left as it was: parameters and buffers are replaced for the pass, modes are restored.
    ``watch`` makes a visitor that is told of every operation; a pass that has to start again makes another.

    >>> t = trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (4,))
    >>> t.multiply_adds, sorted(t.logits)
    (18, ['2.weight'])
    """
    require_materialised(module)
    parameters = dict(module.named_parameters())
    dtype = next((p.dtype for p in parameters.values() if p.is_floating_point()), torch.float32)
    try:
        return _trace_on(module, tuple(input_shape), dtype, torch.device("meta"), watch)
    except Exception as on_meta:
        # Data-dependent control flow has no meaning without data; a real pass of zeros has. What a network
        # may raise for an input that it was not made for is unbounded: RuntimeError, AssertionError, ...
        try:
            device = next((p.device for p in parameters.values()), torch.device("cpu"))
            return _trace_on(module, tuple(input_shape), dtype, device, watch)
        except Exception as error:
            shape = "x".join(str(n) for n in input_shape)
            raise ShrinkbenchError(
                f"the network does not run on one input of shape {shape}: {_first_line(error)}; "
                "pass the input shape that it expects (channels, height, width)"
            ) from on_meta


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _trace_on(
    module: nn.Module,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    watch: Callable[[], Callable[[Call], None]] | None,
) -> Trace:
    def moved(tensor: Tensor) -> Tensor:
        if device.type == "meta":
            return torch.empty_like(tensor, device=device)
        return tensor.detach().clone()

    parameters = {name: moved(p) for name, p in module.named_parameters()}
    buffers = {name: moved(b) for name, b in module.named_buffers()}
    inputs = torch.zeros((1, *shape), dtype=dtype, device=device)
    follower = Follower(parameters, list(buffers.values()), watch() if watch else None)
    with sdpa_kernel(SDPBackend.MATH):
        output = follow(module, inputs, {**parameters, **buffers}, follower)
    logits = first_tensor(output)
    leaves = (logits, *(leaf for leaf in floating_leaves(output) if leaf is not logits))
    outputs = tuple((tuple(leaf.shape), follower.last(leaf)) for leaf in leaves)
    return Trace(tuple(follower.products), outputs, frozenset(follower.read))


def follow(module: nn.Module, inputs: Tensor, tensors: Mapping[str, Tensor], follower: Follower) -> Any:
    """The output of ``module`` with ``tensors`` as its parameters and buffers, watched by ``follower``.

    The pass is one of evaluation: no gradients, modes restored; fused attention layers, which show no
    products, are switched off.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with evaluation_mode(module), torch.no_grad(), follower:
            return torch.func.functional_call(module, dict(tensors), (inputs,))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def classifier_weights(module: nn.Module, input_shape: Sequence[int]) -> frozenset[str]:
    """Names of the weights (and their biases) of the layer that produces the logits, or of one for each output.

    It is found by following the data, not by attribute names, and so holds for any network: the weighted
    product whose result reaches the output with no other in between, and whose size is that of the output.

    >>> sorted(classifier_weights(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (4,)))
    ['2.bias', '2.weight']
    """
    traced = trace(module, input_shape)
    return layer_parameters(module, classifier_of(module, traced))


def classifier_of(module: nn.Module, traced: Trace) -> frozenset[str]:
    """The weights that make an output and have one row per logit of it."""
    weights = weight_parameters(module)
    return frozenset(
        name
        for shape, makers in traced.outputs
        for name in makers & weights.keys()
        if len(shape) > 1 and weights[name].shape[0] == shape[1]
    )


def layer_parameters(module: nn.Module, weights: frozenset[str]) -> frozenset[str]:
    """``weights`` together with the biases of the same layers."""
    biases = bias_parameters(module)
    paths = {name.rpartition(".")[0] for name in weights}
    return weights | {name for name in biases if name.rpartition(".")[0] in paths}
