"""Heads of attention whose queries, keys and values one layer makes together, in an order that only it knows.

GPT-2 makes all queries, then all keys and all values; GPT-NeoX and BLOOM those of one head after another;
Phi-3 fewer keys than queries, Falcon one for all. The order is found by trying: each head is a range of the
inputs of the layer behind, and a gradient tells which outputs of the layer in front have a say in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.network.attention import head_slices, is_bias_of_heads, reads_its_weights_itself
from shrinkbench.network.blocks import fresh
from shrinkbench.network.dataflow import Flow, Step
from shrinkbench.network.inputs import Inputs, is_mask, map_tensors
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.network.watching import fused_layers_off, watching, watching_calls
from shrinkbench.network.weights import copy_of, in_mode, is_transposed_linear, layer_of

UNCALLED = "their layers are not called one by one"
ACROSS = "they attend across channels, not across tokens"
UNSEEN = "no head is seen to read some of them; give an example of several tokens"


@dataclass(frozen=True)
class FusedHeads:
    """One attention: ``outputs`` has the unit of each output of a source, ``inputs`` that of the layer behind.

    Query heads that share keys or values are one unit. ``given_biases``: the attention is given position
    biases, for each head of each example.
    """

    outputs: Mapping[str, Tensor]
    output: str
    inputs: Tensor
    units: int
    given_biases: bool = False

    @property
    def packed(self) -> bool:
        """Whether all queries come first, then all keys, then all values, every head with its own."""
        whole = self.inputs.repeat(3)
        return len(self.outputs) == 1 and all(torch.equal(unit, whole) for unit in self.outputs.values())


@dataclass(frozen=True)
class Fused:
    """What was found, and for each layer behind an attention that was not, why."""

    found: tuple[FusedHeads, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


def fused_steps(module: nn.Module, flow: Flow, weights: Mapping[str, Tensor]) -> list[Step]:
    """Attention among ``weights`` that is neither of a kind known by its class nor of three layers alike."""
    known = [path for path, child in module.named_modules() if head_slices(child) is not None]
    found: dict[str, Step] = {}
    for step in flow.steps:
        if step.head_size is None or not {step.parameter, *step.sources} <= weights.keys():
            continue
        inside = any(layer_of(step.parameter).startswith(f"{path}.") for path in known)
        if step.sources and len(step.sources) < 3 and not inside:
            found.setdefault(step.parameter, step)
    return list(found.values())


def read_fused_heads(module: nn.Module, example: Inputs, steps: Sequence[Step]) -> Fused:
    """The heads of ``steps``, each tried on a copy of its attention with random weights and tokens."""
    if not steps:
        return Fused()
    around = {step.parameter: _around(step) for step in steps}
    arriving = _arriving(module, example, set(around.values()))
    found: list[FusedHeads] = []
    refused: dict[str, str] = {}
    for step in steps:
        path = around[step.parameter]
        result = _try(module.get_submodule(path), path, step, arriving[path]) if path in arriving else UNCALLED
        if isinstance(result, str):
            refused[step.parameter] = result
        else:
            found.append(replace(result, given_biases=_gives_biases(arriving[path], result.units)))
    return Fused(tuple(found), refused)


def _gives_biases(given: tuple[tuple[Any, ...], dict[str, Any]], heads: int) -> bool:
    """Whether one of the arguments for a single example has a part for each head."""
    args, kwargs = given
    return any(is_bias_of_heads(value, 1, heads) for value in (*args[1:], *kwargs.values()))


def _around(step: Step) -> str:
    """The path of the smallest module around all layers of the attention."""
    paths = [layer_of(name).split(".")[:-1] for name in (*step.sources, step.parameter)]
    common: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)


def _arriving(
    module: nn.Module, example: Inputs, paths: set[str]
) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """What each of the modules is given on its first call."""
    given: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def note(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.setdefault(path, (fresh(args), fresh(kwargs)))

    like = next(module.parameters())
    inputs = example.part(0, 1).drawn(1, seed=0, dtype=torch.float32).to(like.device, like.dtype)
    layers = {path: module.get_submodule(path) for path in paths}
    with watching_calls(layers, note), evaluation_mode(module), torch.no_grad(), fused_layers_off():
        inputs.call(module)
    return given


def _try(
    attention: nn.Module, path: str, step: Step, given: tuple[tuple[Any, ...], dict[str, Any]]
) -> FusedHeads | str:
    """The heads of one attention, or why they cannot be told."""
    if reads_its_weights_itself(attention):
        return UNCALLED
    trial = _randomised(attention)
    prefix = f"{path}." if path else ""
    sources = {name: trial.get_submodule(layer_of(name).removeprefix(prefix)) for name in sorted(step.sources)}
    behind = trial.get_submodule(layer_of(step.parameter).removeprefix(prefix))
    if not all(isinstance(x, nn.Linear) or is_transposed_linear(x) for x in (*sources.values(), behind)):
        return UNCALLED
    made: dict[str, Tensor] = {}
    read: list[Tensor] = []

    def note(name: str, _: Any, output: Tensor) -> None:
        made.setdefault(name, output)

    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        watching(sources, note),
        watching_calls({"": behind}, lambda _, args, __: read.append(args[0])),
    ):
        args, kwargs = map_tensors(_drawn, given)
        trial(*args, **kwargs)
    if made.keys() != sources.keys() or not read or not read[0].requires_grad:
        return UNCALLED
    return _by_gradients(step, made, read[0])


def _randomised(attention: nn.Module) -> nn.Module:
    """A copy in double precision with matrices and shifts at random, so that no head is silent."""
    generator = torch.Generator().manual_seed(0)
    trial = in_mode(copy_of(attention).double(), training=False)
    with torch.inference_mode(mode=False), torch.no_grad():
        for parameter in trial.parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(values / max(parameter.shape[-1], 1) ** 0.5)
            parameter.requires_grad_()
    return trial


def _drawn(tensor: Tensor) -> Tensor:
    """Random values of the same shape in place of states; what masks or chooses stays."""
    if not tensor.is_floating_point():
        return tensor
    if tensor.dim() != 3 or is_mask(tensor):
        return tensor.double()
    generator = torch.Generator().manual_seed(tensor.shape[-1])
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)


def _by_gradients(step: Step, made: Mapping[str, Tensor], read: Tensor) -> FusedHeads | str:
    """Which outputs of ``made`` have a say in which head of ``read`` (..., tokens, inputs)."""
    size = step.head_size or read.shape[-1]
    heads = read.shape[-1] // size
    if not heads:  # what is read is narrower than a head: tokens and channels have changed places (XCiT)
        return ACROSS
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(read.shape, generator=generator, dtype=read.dtype).to(read.device)
    seen: dict[str, list[Tensor]] = {name: [] for name in made}
    for head in range(heads):
        ours = slice(head * size, (head + 1) * size)
        total = (read[..., ours] * weights[..., ours]).sum()
        gradients = torch.autograd.grad(total, list(made.values()), retain_graph=True, allow_unused=True)
        for (name, output), gradient in zip(made.items(), gradients, strict=True):
            rows = torch.zeros_like(output) if gradient is None else gradient
            seen[name].append((rows != 0).flatten(0, -2).any(0).cpu())
    reading = {name: torch.stack(rows) for name, rows in seen.items()}  # (heads, outputs)
    if read.shape[-1] % size or not all(bool(rows.any(0).all()) for rows in reading.values()):
        return UNSEEN
    unit = _join(heads, [column for rows in reading.values() for column in rows.t()])
    outputs = {name: unit[rows.int().argmax(0)] for name, rows in reading.items()}
    return FusedHeads(outputs, step.parameter, unit.repeat_interleave(size), int(unit.max()) + 1)


def _join(heads: int, readers: Sequence[Tensor]) -> Tensor:
    """The unit of each head: those that read one output together are one."""
    unit = torch.arange(heads)
    for together in {tuple(column.nonzero().flatten().tolist()) for column in readers}:
        some = unit[list(together)]
        unit[torch.isin(unit, some)] = some.min()
    numbered: Tensor = torch.unique(unit, return_inverse=True)[1]
    return numbered
