"""One forward pass without data or memory: who multiplies what, and which layer makes the logits.

The pass runs on the meta device (shapes only) with fused attention switched off, so that every product is seen
as the convolution or matrix product that it is. Each tensor is followed through its storage: a product is
attributed to the parameter that it reads, also where the weight was reshaped, split or standardised first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.calling import call_with, require_decoder_inputs
from shrinkbench.network.following import Call, CountedProduct, Follower
from shrinkbench.network.inputs import Example, Inputs, tensors_in
from shrinkbench.network.watching import fused_layers_off
from shrinkbench.network.weights import bias_parameters, layer_of, require_network, weight_parameters
from shrinkbench.network.zeros import Zeros


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put every submodule into evaluation mode and restore each one's own mode afterwards."""
    modes = [(child, child.training) for child in require_network(module).modules()]
    module.eval()
    try:
        yield
    finally:
        for child, training in modes:
            child.training = training


@dataclass(frozen=True)
class Trace:
    """What one forward pass of a single input computes.

    ``outputs`` holds, for every floating tensor that is returned, the logits first, its shape and the
    parameters whose product reaches it with no other weighted product in between. ``read`` are the parameters
    that any operation reads: the others take no part in an evaluation. ``multiplied`` are those that take part
    in a product, be it through a weight that is computed from them. ``uncounted`` are operations that may
    multiply, in a way that is not known, and ``hidden`` the parameters that they read.
    """

    products: tuple[CountedProduct, ...]
    outputs: tuple[tuple[tuple[int, ...], frozenset[str]], ...]
    read: frozenset[str]
    multiplied: frozenset[str] = frozenset()
    uncounted: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()

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
        """All multiply-adds of one input; raises ``ShrinkbenchError`` where some are not known."""
        if self.uncounted:
            raise ShrinkbenchError(
                f"the multiply-adds of '{self.uncounted[0]}' are not known, so that this network's cannot be "
                "counted; register its formula with torch.utils.flop_counter.register_flop_formula"
            )
        return sum(product.multiply_adds for product in self.products)

    @property
    def kept(self) -> int:
        """Those that are left under the masks."""
        return sum(product.kept for product in self.products)

    @property
    def by_parameter(self) -> dict[str, int]:
        """Multiply-adds per parameter; those of attention and of computed weights belong to none."""
        counts: dict[str, int] = {}
        for product in self.products:
            if product.parameter is not None:
                counts[product.parameter] = counts.get(product.parameter, 0) + product.multiply_adds
        return counts


def floating_leaves(output: Any) -> list[Tensor]:
    """Every floating tensor in what a network returns: in lists, tuples, mappings and dataclasses."""
    return [leaf for leaf in tensors_in(output) if leaf.is_floating_point()]


def first_tensor(output: Any) -> Tensor:
    """The logits of a forward pass: the tensor itself, what is called so, or the first floating tensor inside.

    A number without dimensions (a loss beside the logits) is passed over where there is anything else.
    """
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    leaves = floating_leaves(output if named is None else named)
    for leaf in (*(leaf for leaf in leaves if leaf.dim()), *leaves):
        return leaf
    raise ShrinkbenchError(
        f"the network returned {type(output).__name__} with no floating-point tensor in it; "
        "wrap it in a module that returns the logits"
    )


# By name: importing torch's compiler takes seconds.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}


def require_materialised(module: nn.Module) -> None:
    """Refuse lazy parameters, and networks that are compiled or wrapped, whose layers cannot be looked at."""
    require_network(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise ShrinkbenchError(
            "the network is compiled (TorchScript), and its layers cannot be looked at; pass the nn.Module "
            "that it was made of"
        )
    wrapper = _WRAPPERS.get(type(module).__name__)
    if wrapper is not None and isinstance(getattr(module, wrapper, None), nn.Module):
        raise ShrinkbenchError(
            f"the network is wrapped in {type(module).__name__}, which names its parameters anew and runs "
            f"copies of it; give the network inside, network.{wrapper}: the masks hold for both"
        )
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise ShrinkbenchError(
                f"parameter '{name}' is lazy and has no shape yet; run one batch through the network first"
            )


Watch = Callable[[], Callable[[Call], None]]


def trace(
    module: nn.Module,
    example: Example,
    *,
    watch: Watch | None = None,
    masks: Mapping[str, Tensor] | None = None,
) -> Trace:
    """Run one input through ``module`` in evaluation mode: the first of ``example``, or one of that shape.

    Where the first runs with what all examples share not alone, all of ``example`` are run, and counted.

    The module is left as it was: parameters and buffers are replaced for the pass, modes are restored.
    ``watch`` makes a visitor that is told of every operation; a pass that has to start again makes another.
    Under ``masks`` the multiply-adds that are left are counted too.

    >>> t = trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (4,))
    >>> t.multiply_adds, sorted(t.logits)
    (18, ['2.weight'])
    """
    require_materialised(module)
    parameters = dict(module.named_parameters())
    dtype = next((p.dtype for p in parameters.values() if p.is_floating_point()), torch.float32)
    given = Inputs.of(example)
    if not given.rows:
        raise ShrinkbenchError(
            f"the example inputs {given} hold no example; give tensors with one row for each"
        )
    seen = (watch, masks or {})
    one, all_of_them = given.part(0, 1), given.fewest
    try:
        return _trace_on(module, one.to("cpu", dtype), torch.device("meta"), *seen)
    except Exception as on_meta:
        # Data-dependent control flow has no meaning without data; a real pass has, of zeros where nothing
        # but a shape is known. What a network may raise for an input that it was not made for is unbounded.
        device = next((p.device for p in parameters.values()), torch.device("cpu"))
        for inputs in (one,) if all_of_them.rows == one.rows else (one, all_of_them):
            try:
                return _trace_on(module, inputs.filled(0).to(device, dtype), device, *seen)
            except Exception as error:
                failure = error
        require_decoder_inputs(module, all_of_them)
        raise ShrinkbenchError(_does_not_run(all_of_them, _first_line(failure))) from on_meta


def _does_not_run(inputs: Inputs, reason: str) -> str:
    reason = reason if len(reason) < 120 else f"{reason[:117]}..."
    if "SparseTensorImpl" in reason:
        return f"the network computes with sparse tensors, which cannot be followed ({reason}); use dense ones"
    if inputs.tensors[0].is_meta:
        shape = "x".join(str(n) for n in inputs.single.shape[1:])
        return (
            f"the network does not run on one input of shape {shape}: {reason}; pass the input shape that it "
            "expects (channels, height, width), or example_inputs= where it takes other than one float tensor"
        )
    return (
        f"the network does not run on the example inputs {inputs}: {reason}; give what its forward pass takes: "
        "a tensor, a tuple of arguments or a dictionary of named ones"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _is_of_masks(buffer: str, masks: Mapping[str, Tensor]) -> bool:
    """Whether the buffer is a mask of ``torch.nn.utils.prune`` on a parameter whose mask is given."""
    return buffer.endswith("_mask") and f"{buffer.removesuffix('_mask')}_orig" in masks


def _trace_on(
    module: nn.Module,
    inputs: Inputs,
    device: torch.device,
    watch: Watch | None,
    masks: Mapping[str, Tensor],
    *,
    compute: bool = False,
) -> Trace:
    def moved(tensor: Tensor) -> Tensor:
        if device.type == "meta":
            return torch.empty_like(tensor, device=device)
        return tensor.detach().clone()

    with torch.inference_mode(mode=False):
        parameters = {name: moved(p) for name, p in module.named_parameters()}
        buffers = {name: moved(b) for name, b in module.named_buffers()}
        given = inputs.map(moved)
        zeros = Zeros(masks, compute=compute)
        for name, tensor in parameters.items():
            zeros.add_parameter(name, tensor)
        for name, values in module.named_buffers():
            zeros.add_buffer(buffers[name], torch.ones_like(values) if _is_of_masks(name, masks) else values)
    follower = Follower(parameters, list(buffers.values()), watch() if watch else None, zeros)
    # Fused attention would hide its products.
    with sdpa_kernel(SDPBackend.MATH):
        output = follow(module, given, {**parameters, **buffers}, follower)
    if follower.computes_weights and not compute:  # what is left of them takes values to tell
        return _trace_on(module, inputs, device, watch, masks, compute=True)
    logits = first_tensor(output)
    leaves = (logits, *(leaf for leaf in floating_leaves(output) if leaf is not logits))
    return Trace(
        tuple(follower.products),
        tuple((tuple(leaf.shape), follower.last(leaf)) for leaf in leaves),
        frozenset(follower.read),
        frozenset(follower.multiplied),
        tuple(follower.uncounted),
        frozenset(follower.hidden),
    )


def follow(module: nn.Module, inputs: Inputs, tensors: Mapping[str, Tensor], follower: Follower) -> Any:
    """The output of ``module`` with ``tensors`` as its parameters and buffers, watched by ``follower``.

    The pass is one of evaluation: no gradients, modes restored; fused attention layers, which show no
    products, are switched off.
    """
    with (
        fused_layers_off(),
        torch.inference_mode(mode=False),
        evaluation_mode(module),
        torch.no_grad(),
        follower,
    ):
        return call_with(module, dict(tensors), *inputs.bound(module))


def classifier_weights(module: nn.Module, example: Example) -> frozenset[str]:
    """Names of the weights (and their biases) of the layer that produces the logits, or of one for each output.

    It is found by following the data, not by attribute names, and so holds for any network: the weighted
    product whose result reaches the output with no other in between, and whose size is that of the output.

    >>> sorted(classifier_weights(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (4,)))
    ['2.bias', '2.weight']
    """
    return layer_parameters(module, classifier_of(module, trace(module, example)))


def classifier_of(module: nn.Module, traced: Trace) -> frozenset[str]:
    """The weights that make an output and have one row per logit of it.

    Channels of maps are their second dimension; a linear layer writes the last.
    """
    weights = weight_parameters(module)
    return frozenset(
        name
        for shape, makers in traced.outputs
        for name in makers & weights.keys()
        if len(shape) > 1 and weights[name].shape[0] == shape[-1 if weights[name].dim() == 2 else 1]
    )


def layer_parameters(module: nn.Module, weights: frozenset[str]) -> frozenset[str]:
    """``weights`` together with the biases of the same layers."""
    biases = bias_parameters(module)
    paths = {layer_of(name) for name in weights}
    return weights | {name for name in biases if layer_of(name) in paths}
