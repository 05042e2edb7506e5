"""Parts of transformers and perceptrons: attention heads, and hidden neurons between two linear layers.

They are found by how data flows (:mod:`shrinkbench.network.dataflow`), not by names. Unlike ``channels``, which
are scored by the weights that produce them, a head and a neuron are scored by the weights on both sides, and
nothing but weights is masked: biases stay. All else stays too, which bounds the compression.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.dataflow import projected_heads
from shrinkbench.network.view import NetworkView
from shrinkbench.pruning.units import (
    STRUCTURES,
    Grouping,
    Part,
    Scores,
    Structure,
    grouping_of,
    part_by_columns,
    part_by_rows,
)


def _head_rows(name: str, shape: torch.Size, packed: int, heads: int) -> Part:
    """Rows of a projection that holds ``packed`` of queries, keys and values one after the other."""
    split = (packed, heads, shape[0] // packed // heads, shape[1])

    def gather(tensor: Tensor) -> Tensor:
        return tensor.reshape(split).transpose(0, 1).reshape(heads, -1)

    def scatter(keep: Tensor) -> Tensor:
        return keep.reshape(1, heads, 1, 1).expand(split).reshape(shape)

    return Part(name, gather, scatter)


def _head_columns(name: str, shape: torch.Size, heads: int) -> Part:
    split = (shape[0], heads, shape[1] // heads)

    def gather(tensor: Tensor) -> Tensor:
        return tensor.reshape(split).transpose(0, 1).reshape(heads, -1)

    def scatter(keep: Tensor) -> Tensor:
        return keep.reshape(1, heads, 1).expand(split).reshape(shape)

    return Part(name, gather, scatter)


def _attention_parts(ctx: NetworkView) -> Mapping[str, list[Part]]:
    groups: dict[str, list[Part]] = {}
    for step in ctx.flow.steps:
        if step.head_size is None or step.parameter in groups:
            continue
        if not {step.parameter, *step.sources} <= ctx.weights.keys():
            continue
        output = ctx.weights[step.parameter].shape
        heads = output[1] // step.head_size
        sources = sorted(step.sources, key=list(ctx.weights).index)
        shapes = [ctx.weights[name].shape for name in sources]
        if output[1] % step.head_size or sum(shape[0] for shape in shapes) != 3 * output[1]:
            continue
        groups[step.parameter] = [
            _head_rows(name, shape, shape[0] // output[1], heads)
            for name, shape in zip(sources, shapes, strict=True)
        ]
        groups[step.parameter].append(_head_columns(step.parameter, output, heads))
    plain = {name: w for name, w in ctx.weights.items() if not ctx.geometry(name).transposed}
    for shared in projected_heads(ctx.flow, plain):  # grouped queries: keys and values with all their queries
        if shared.output not in groups:
            groups[shared.output] = [
                *(_head_rows(name, plain[name].shape, 1, shared.units) for name in shared.sources),
                _head_columns(shared.output, plain[shared.output].shape, shared.units),
            ]
    return groups


def _kept(ctx: NetworkView, *, attention: bool) -> str:
    """Which layer would have made a unit, did it not write the outputs and stay for that."""
    stay = ctx.flow.logits - ctx.weights.keys()
    steps = (s for s in ctx.flow.steps if s.sources and s.linear and (s.head_size is not None) == attention)
    names = sorted(stay.intersection(step.parameter for step in steps))
    return f" but at '{names[0]}', which writes the outputs; prune_classifier frees it" if names else ""


def _heads(ctx: NetworkView, scores: Scores) -> Grouping:
    groups = _attention_parts(ctx)
    if not groups:
        raise ShrinkbenchError(
            f"this network has no attention layers whose heads could be pruned{_kept(ctx, attention=True)}; "
            "choose a transformer or another structure"
        )
    return grouping_of(scores, groups)


heads = STRUCTURES.add(
    "heads",
    Structure(
        "heads",
        "attention heads: rows of queries, keys and values with the output columns; grouped queries together",
        _heads,
        unit="head",
    ),
)


def _neurons(ctx: NetworkView, scores: Scores) -> Grouping:
    groups: dict[str, list[Part]] = {}
    for step in ctx.flow.steps:
        if len(step.sources) != 1 or step.head_size is not None or not step.linear:
            continue
        (source,) = step.sources
        if not {source, step.parameter} <= ctx.weights.keys() or source in ctx.flow.logits:
            continue
        first, second = ctx.weights[source], ctx.weights[step.parameter]
        alone = ctx.flow.consumers(source) == {step.parameter}
        if first.ndim == second.ndim == 2 and first.shape[0] == second.shape[1] and alone:
            groups[source] = [part_by_rows(ctx, source), part_by_columns(ctx, step.parameter)]
    if not groups:
        raise ShrinkbenchError(
            "this network has no pair of linear layers with hidden neurons between them"
            f"{_kept(ctx, attention=False)}; choose a network with perceptrons or another structure"
        )
    return grouping_of(scores, groups)


neurons = STRUCTURES.add(
    "neurons",
    Structure(
        "neurons",
        "hidden neurons between two linear layers alone: a row of the first with a column of the second",
        _neurons,
        unit="neuron",
        overlapping=True,  # a layer between two others has both rows and columns to lose
    ),
)
