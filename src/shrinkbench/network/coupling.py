"""Which slices of which tensors make up one channel of a network.

A channel is more than a filter: removing it takes the filter, its batch norm, the input slice of every layer
that reads it and, across a residual sum, the same channel of every branch. :func:`couple` reads these groups
from the dependency graph of torch-pruning (Fang et al. 2023), states them in terms of tensors and proves each
one. Groups that are not safe to touch are named with the reason and left whole.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import CodeType
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from shrinkbench.errors import LeftWholeWarning
from shrinkbench.network.attention import head_slices, heads_held, is_attention
from shrinkbench.network.channel_graph import ChannelGraph, read_groups
from shrinkbench.network.dataflow import Flow, projected_heads, trace_flow
from shrinkbench.network.fused_heads import fused_steps, read_fused_heads
from shrinkbench.network.groups import Coupling, Group, Slice
from shrinkbench.network.inputs import Example, Inputs
from shrinkbench.network.probe import require_materialised
from shrinkbench.network.verification import OUTPUT, differs_in_training, find_unsound
from shrinkbench.network.weights import is_transposed_linear, layer_of

__all__ = ["Coupling", "Group", "Slice", "couple"]

FUSED = "they can only leave all together, for they pass a layer that takes all of them at once"
_KNOWN: WeakKeyDictionary[nn.Module, dict[object, Coupling]] = WeakKeyDictionary()
_TOLD: WeakKeyDictionary[nn.Module, set[tuple[str, CodeType]]] = WeakKeyDictionary()  # notes, and to whom


def couple(module: nn.Module, input_shape: Example) -> Coupling:
    """Find the groups of ``module`` for one input of ``input_shape``, or example inputs.

    Free groups are proven on random weights; those for which that failed, and those that torch-pruning cannot
    read, are refused and named in a ``LeftWholeWarning``, once for each that asks. The network's own weights
    have no say, so what was found is kept as long as its structure stays. Raises ``ShrinkbenchError`` where
    the dependency graph cannot follow the network at all.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    >>> group = couple(net, (3, 3, 3)).free[0]
    >>> group.layer, group.units, [(s.tensor, s.dim, s.role) for s in group.slices if s.role != "carries"]
    ('0', 4, [('0.weight', 0, 'produces'), ('0.bias', 0, 'produces'), ('3.weight', 1, 'consumes')])
    """
    require_materialised(module)
    key = (Inputs.of(input_shape).signature, _structure(module))
    known = _KNOWN.setdefault(module, {})
    if key not in known:
        with torch.inference_mode(mode=False):  # the graph is read off the gradients' own
            known[key] = _couple(module, Inputs.of(input_shape))
    told = _TOLD.setdefault(module, set())
    asking = sys._getframe(1).f_code  # pruning tells it once, however many targets it tries, and surgery once
    for note in known[key].notes:
        if (note, asking) not in told:
            warnings.warn(note, LeftWholeWarning, stacklevel=2)
            told.add((note, asking))
    return known[key]


def _couple(module: nn.Module, example: Inputs) -> Coupling:
    flow, traced = trace_flow(module, example)  # an input that does not fit is told here, in our own words
    unread = any(name not in traced.read for name, _ in module.named_parameters())
    graph = read_groups(module, example)
    heads = (_head_group(path, child) for path, child in module.named_modules() if is_attention(child))
    projected = (*_projected_heads(module, flow), *_fused_heads(module, flow, example))
    known = {s.tensor for group in projected for s in group.slices if s.role == "produces"}
    channels = (g for g in graph.groups if not any(s.tensor in known for s in g.slices if s.role == "produces"))
    groups = (*channels, *(g for g in heads if g is not None), *projected)
    free = [g for g in groups if g.refused_because is None]
    unsound = find_unsound(module, free, example, in_training=unread or differs_in_training(module, example))
    # What is part of an output stays without a word, as a classifier does.
    told = {layer: reason for layer, reason in unsound.items() if reason != OUTPUT}
    proven = tuple(
        replace(g, refused_because=unsound[g.layer]) if g.layer in unsound and not g.refused_because else g
        for g in groups
    )
    unreadable = {
        layer: reason for layer, reason in graph.unreadable.items() if _is_read(module, layer, traced.read)
    }
    return Coupling(
        proven, graph.feeding_norms, _name({**_refused(module, graph, groups), **unreadable, **told})
    )


def _refused(module: nn.Module, graph: ChannelGraph, groups: Iterable[Group]) -> dict[str, str]:
    """Layer -> why it stays whole, of groups that the graph refuses or makes one unit of, but for outputs."""
    parameters = dict(module.named_parameters())
    reasons: dict[str, str] = {}
    for group in groups:
        made = [s for s in group.slices if s.role == "produces" and s.tensor in parameters]
        several = any(parameters[s.tensor].shape[s.dim] > 1 for s in made)
        reason = group.refused_because if group.layer not in graph.silent else None
        if group.refused_because is None and group.units == 1:
            reason = FUSED
        if group.kind == "channels" and reason is not None and several:
            reasons |= dict.fromkeys(group.layers("produces"), reason)
    return reasons


def _is_read(module: nn.Module, path: str, read: frozenset[str]) -> bool:
    """Whether an evaluation reads a parameter of the layer: what runs in training alone is told elsewhere."""
    prefix = f"{path}." if path else ""
    return any(prefix + name in read for name, _ in module.get_submodule(path).named_parameters())


def _head_group(path: str, attention: nn.Module) -> Group | None:
    found = head_slices(attention)
    if found is None:
        return None
    heads, slices = found
    prefix = f"{path}." if path else ""
    tensors = tuple(Slice(prefix + t, d, u, r) for t, d, u, r in slices)
    return Group(path, "heads", heads, tensors, attention=path)


def _projected_heads(module: nn.Module, flow: Flow) -> tuple[Group, ...]:
    """Groups of keys and values with the query heads that read them, each projected by a layer of its own."""
    parameters = dict(module.named_parameters())
    found = []
    for heads in projected_heads(flow, parameters):
        layers = [module.get_submodule(layer_of(name)) for name in (*heads.sources, heads.output)]
        if any(type(layer) is not nn.Linear for layer in layers):
            continue
        outputs = {name: _evenly(len(parameters[name]), heads.units) for name in heads.sources}
        columns = _evenly(parameters[heads.output].shape[1], heads.units)
        found.append(_attention_group(module, outputs, heads.output, columns, heads.units))
    return tuple(found)


def _evenly(places: int, units: int) -> Tensor:
    return torch.arange(places) * units // places


def _fused_heads(module: nn.Module, flow: Flow, example: Inputs) -> tuple[Group, ...]:
    """Groups of heads whose queries, keys and values one layer makes together."""
    steps = fused_steps(module, flow, dict(module.named_parameters()))
    found = read_fused_heads(module, example, steps).found
    groups = (_attention_group(module, f.outputs, f.output, f.inputs, f.units) for f in found)
    return tuple(replace(g, given_biases=f.given_biases) for g, f in zip(groups, found, strict=True))


def _attention_group(
    module: nn.Module, outputs: Mapping[str, Tensor], output: str, inputs: Tensor, units: int
) -> Group:
    """The group of an attention: the unit of each output of its ``outputs``, and of each input behind."""
    parameters = dict(module.named_parameters())
    slices: list[Slice] = []
    for name, unit in outputs.items():
        turned = is_transposed_linear(module.get_submodule(layer_of(name)))
        slices.append(Slice(name, int(turned), unit, "produces"))
        bias = f"{layer_of(name)}.bias"
        slices += [Slice(bias, 0, unit, "produces")] if bias in parameters else []
    turned = is_transposed_linear(module.get_submodule(layer_of(output)))
    slices.append(Slice(output, int(not turned), inputs, "consumes"))
    around = layer_of(output).rpartition(".")[0]
    counted = heads_held(module.get_submodule(around)) == units
    attention = around if counted else None
    first = layer_of(next(iter(outputs)))
    return Group(first, "projected heads", units, tuple(slices), attention=attention)


def _name(reasons: Mapping[str, str]) -> tuple[str, ...]:
    """One sentence for each reason, with the layers that it holds for."""
    layers: dict[str, list[str]] = {}
    for layer, reason in reasons.items():
        layers.setdefault(reason, []).append(layer)
    return tuple(f"channels of {_list(some)} are left whole: {reason}" for reason, some in layers.items())


def _list(layers: Sequence[str]) -> str:
    shown = ", ".join(f"'{layer}'" for layer in layers[:4])
    return shown if len(layers) <= 4 else f"{shown} and {len(layers) - 4} more layers"


def _structure(module: nn.Module) -> tuple[object, ...]:
    """Everything but values: kinds of modules, their settings, the shapes of tensors and who shares them."""
    first: dict[int, str] = {}
    return tuple(
        (path, type(child), _settings(vars(child)), _shapes(path, child, first))
        for path, child in module.named_modules(remove_duplicate=False)
    )


def _settings(attributes: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    plain = (bool, int, float, str, tuple, list, type(None))
    return tuple(
        (name, repr(value) if isinstance(value, plain) else str(id(value)))
        for name, value in attributes.items()
        if name != "training" and (isinstance(value, plain) or callable(value))
    )


def _shapes(path: str, child: nn.Module, first: dict[int, str]) -> tuple[object, ...]:
    own: Iterable[tuple[str, object]] = (*child._parameters.items(), *child._buffers.items())
    return tuple(
        (name, getattr(tensor, "shape", None), first.setdefault(id(tensor), f"{path}.{name}"))
        for name, tensor in own
    )
