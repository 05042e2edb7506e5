"""Watching a network compute: what each weight multiplies, and what maps each layer produces.

Products are seen as the operations that they are, not through module hooks. Layers that run several times,
weights that are tied, packed attention projections and functional calls are therefore all seen, and nothing
is left behind on the module. Statistics are taken batch after batch; activations are not kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.dataflow import Geometry
from shrinkbench.network.derivatives import random_state_kept
from shrinkbench.network.following import Call, Follower
from shrinkbench.network.inputs import Inputs, form_of, split_batch
from shrinkbench.network.probe import follow
from shrinkbench.network.view import Batches, NetworkView
from shrinkbench.network.weights import looked_up
from shrinkbench.network.zeros import storage_id

_UNFOLDED = 1 << 24  # numbers in one piece of unfolded input: 64 MB

_ACTIVATIONS = frozenset(
    {
        "celu",
        "elu",
        "gelu",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "leaky_relu",
        "mish",
        "prelu",
        "_prelu_kernel",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "softplus",
        "tanh",
        "clamp",
        "clamp_min",
        "threshold",
    }
)

_MATRIX_PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm"})


@dataclass(frozen=True)
class Product:
    """One product of a batch with a weight.

    ``input`` is (images, channels, *positions) for a convolution and (rows, inputs) for a linear layer,
    ``output`` likewise; ``weight`` has the parameter's shape.
    """

    parameter: str
    input: Tensor
    output: Tensor
    weight: Tensor
    geometry: Geometry
    computed: bool = False  # what multiplies is not the parameter, but made from it
    convolution: tuple[Any, ...] | None = None  # stride, padding, dilation, transposed, output padding, groups

    def require_own_weight(self) -> None:
        """Refuse products for which no new values can be fitted: the parameter itself does not multiply."""
        if self.computed:
            raise ShrinkbenchError(
                f"what multiplies is not '{self.parameter}' but a weight that is computed from it, to which no "
                "new values can be fitted; choose a method without, or remove the normalisation first"
            )

    def column_sums(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Sum of ``function(input)`` over all that each weight multiplies: (groups, inputs per group, *kernel).

        ``function`` works element by element and maps 0 to 0. For a convolution each position of the kernel
        sees other inputs at the border; the sums are exact, without unfolding.
        """
        values = function(_widen(self.input))
        if self.convolution is None:
            return values.sum(0, keepdim=True)
        *options, groups = self.convolution
        transposed = options[3]
        shape = self.weight.shape
        # The gradient of a sum of outputs by the weight is the sum of the inputs that meet it; one output
        # channel per group tells for all.
        one = (shape[0], 1, *shape[2:]) if transposed else (groups, *shape[1:])
        ones = values.new_ones(len(self.output), groups, *self.output.shape[2:])
        sums: Tensor = torch.ops.aten.convolution_backward(
            ones, values, values.new_zeros(one), None, *options, groups, (False, True, False)
        )[1]
        return sums.reshape(groups, -1, *shape[2:]) if transposed else sums

    def columns(self) -> Iterator[Tensor]:
        """The inputs as matrices in pieces, (groups, rows, inputs per group x kernel).

        Column order is that of a weight's row. Raises for convolutions in three dimensions and transposed.
        """
        if self.convolution is None:
            yield _widen(self.input).unsqueeze(0)
            return
        stride, padding, dilation, transposed, _, groups = self.convolution
        kernel = self.weight.shape[2:]
        if transposed or len(kernel) > 2:
            raise ShrinkbenchError(
                f"'{self.parameter}' is a convolution that cannot be unfolded (transposed or in three "
                "dimensions); choose a method that does not reconstruct layers"
            )
        inputs = _widen(self.input)
        if len(kernel) == 1:
            inputs, kernel = inputs.unsqueeze(2), torch.Size((1, *kernel))
            stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
        per_image = inputs[0].numel() * kernel.numel()
        for piece in inputs.split(max(1, _UNFOLDED // max(per_image, 1))):
            unfolded = F.unfold(piece, kernel, dilation=dilation, padding=padding, stride=stride)
            images, width, positions = unfolded.shape
            split = unfolded.reshape(images, groups, width // groups, positions)
            yield split.permute(1, 0, 3, 2).reshape(groups, images * positions, width // groups)


def _widen(tensor: Tensor) -> Tensor:
    """Half precision as float32: sums of squares would not fit."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@dataclass(frozen=True)
class Maps:
    """What one layer produced for one batch, after its activation function: (rows, channels, *positions)."""

    parameter: str
    values: Tensor


class UnseenError(ShrinkbenchError):
    """A weight that no product of the data at hand uses."""


class _SeenAllError(Exception):
    """Everything of interest has been seen; the rest of the pass is not needed."""


def observe_products(
    ctx: NetworkView,
    visit: Callable[[Product], None],
    *,
    names: Iterable[str] | None = None,
    values: Mapping[str, Tensor] | None = None,
    batches: Batches,
) -> int:
    """Run ``batches`` through the network and show ``visit`` every product of the weights ``names``."""
    wanted = set(ctx.weights if names is None else names)
    tensors = _tensors(ctx, values)
    images, seen = 0, set[str]()

    def watch(call: Call) -> None:
        if call.parameter not in wanted:
            return
        visit(product_of(call, tensors[call.parameter], ctx.geometry(call.parameter)))
        seen.add(call.parameter)
        if call.parameter in left:
            left.remove(call.parameter)
            if not left:
                raise _SeenAllError

    for batch in map(split_batch, batches):
        left = awaited(ctx, wanted, form_of(batch.inputs))
        _run(ctx, batch.inputs, tensors, watch)
        images += len(batch)
    unseen = sorted(wanted - seen - _biases(ctx))
    if unseen:
        raise unseen_error(ctx.module, unseen[0])
    return images


def awaited(ctx: NetworkView, wanted: Set[str], form: str) -> set[str]:
    """Weights ``wanted`` after whose products a pass of inputs of ``form`` need not go on.

    They are none where other inputs, or a layer that is used again, may bring more products than were seen.
    """
    products = Counter(step.parameter for step in ctx.flow.steps)
    weights = set(wanted) - _biases(ctx)
    return weights if form == form_of(ctx.example) and all(products[n] == 1 for n in weights) else set()


def observe_maps(ctx: NetworkView, visit: Callable[[Maps], None], *, batches: Batches) -> int:
    """Run ``batches`` through the network and show ``visit`` the maps of every weight.

    A map is the result of the first activation function behind the layer, be it behind a batch norm or a
    residual sum; where the next layer comes first, it is the layer's own result.
    """
    tensors = _tensors(ctx, None)
    images = 0
    held: dict[str, tuple[Tensor, bool]] = {}

    def show(name: str, values: Tensor, *, linear: bool) -> bool:
        channels = len(ctx.geometry(name).rows(ctx.weights[name]))
        maps = values.reshape(-1, values.shape[-1]) if linear else values
        if maps.ndim < 2 or maps.shape[1] != channels:
            return False  # gated or reshaped: not a map of this layer any more
        visit(Maps(name, maps))
        return True

    def watch(call: Call) -> None:
        activated = call.function.rstrip("_") in _ACTIVATIONS
        for name in call.sources & held.keys():
            values, linear = held[name]
            if (activated and show(name, call.outputs[0], linear=linear)) or (
                call.parameter is not None and show(name, values, linear=linear)
            ):
                del held[name]
        if call.parameter in ctx.weights and call.parameter is not None:
            held[call.parameter] = (call.outputs[0], call.function != "convolution")

    for batch in map(split_batch, batches):
        _run(ctx, batch.inputs, tensors, watch)
        for name, (values, linear) in held.items():
            show(name, values, linear=linear)
        held.clear()
        images += len(batch)
    return images


def _tensors(ctx: NetworkView, values: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Parameters and buffers for a pass, with ``values`` in place of weights."""
    tensors = {name: p.detach() for name, p in ctx.module.named_parameters()}
    for name, value in (values or {}).items():
        tensors[name] = value.to(tensors[name].dtype)
    return tensors


def _run(
    ctx: NetworkView, inputs: Inputs, tensors: Mapping[str, Tensor], watch: Callable[[Call], None]
) -> None:
    buffers = {name: b.clone() for name, b in ctx.module.named_buffers()}
    follower = Follower(tensors, list(buffers.values()), watch)
    with random_state_kept(inputs.device):
        try:
            follow(ctx.module, inputs, {**tensors, **buffers}, follower)
        except _SeenAllError:
            return


def unseen_error(module: nn.Module, name: str) -> UnseenError:
    """Why no product of the weight ``name`` was seen."""
    if name in looked_up(module):
        return UnseenError(
            f"'{name}' is an embedding, which is looked up and is the weight of no layer that multiplies, so "
            "that it cannot be scored by its inputs; leave prune_embeddings out (or ignore it), or choose a "
            "method that does not look at activations"
        )
    return UnseenError(
        f"no data passes through '{name}', so that it cannot be scored by its inputs; leave that "
        "layer out of the network or choose a method that does not look at activations"
    )


def _biases(ctx: NetworkView) -> set[str]:
    return {name for name, w in ctx.weights.items() if w.ndim < 2}


def product_of(call: Call, weight: Tensor, geometry: Geometry) -> Product:
    """The product that ``call`` is with ``weight``; refused where its inputs do not fit the columns."""
    name = call.parameter or ""
    computed = all(storage_id(tensor) != storage_id(weight) for tensor in call.inputs)
    if call.function == "convolution":
        inputs, _, _, stride, padding, dilation, transposed, output_padding, groups = call.args
        options = (stride, padding, dilation, transposed, output_padding, groups)
        return Product(name, inputs, call.outputs[0], weight, geometry, computed, options)
    operands = [(t, owner) for t, owner in zip(call.inputs, call.owners, strict=True) if t.ndim >= 2][-2:]
    usual = call.function.rstrip("_") in _MATRIX_PRODUCTS and len(operands) == 2
    if usual:
        (left, left_owner), (right, _) = operands
        inputs = left if left_owner == "" else right.transpose(-1, -2)
        outputs = call.outputs[0] if left_owner == "" else call.outputs[0].transpose(-1, -2)
    if not usual or (weight.ndim == 2 and inputs.shape[-1] != geometry.rows(weight).shape[-1]):
        raise ShrinkbenchError(
            f"the inputs of '{name}' do not fit its columns: it is used in an unusual way; choose a method "
            "that does not look at activations"
        )
    return Product(
        name,
        inputs.reshape(-1, inputs.shape[-1]),
        outputs.reshape(-1, outputs.shape[-1]),
        weight,
        geometry,
        computed,
    )
