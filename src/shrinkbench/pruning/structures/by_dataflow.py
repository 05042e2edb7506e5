"""Parts of transformers and perceptrons: attention heads, and hidden neurons between two linear layers.

They are found by how data flows (:mod:`shrinkbench.network.dataflow`), not by names. Unlike ``channels``, which
are scored by the weights that produce them, a head and a neuron are scored by the weights on both sides, and
nothing but weights is masked: biases stay. All else stays too, which bounds the compression.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.dataflow import projected_heads
from shrinkbench.network.fused_heads import FusedHeads, fused_steps, read_fused_heads
from shrinkbench.network.view import NetworkView
from shrinkbench.network.weights import layer_of
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


def _packed_parts(ctx: NetworkView, fused: Collection[str]) -> dict[str, list[Part]]:
    """Attention that makes queries, keys and values of equal width, all of one after all of another."""
    groups: dict[str, list[Part]] = {}
    for step in ctx.flow.steps:
        if step.head_size is None or step.parameter in groups or step.parameter in fused:
            continue
        if not {step.parameter, *step.sources} <= ctx.weights.keys():
            continue
        output = ctx.weights[step.parameter].shape
        heads = output[1] // step.head_size
        sources = sorted(step.sources, key=list(ctx.weights).index)
        shapes = [ctx.weights[name].shape for name in sources]
        turned = any(ctx.geometry(name).transposed for name in (step.parameter, *sources))
        if turned or output[1] % step.head_size or sum(shape[0] for shape in shapes) != 3 * output[1]:
            continue
        groups[step.parameter] = [
            _head_rows(name, shape, shape[0] // output[1], heads)
            for name, shape in zip(sources, shapes, strict=True)
        ]
        groups[step.parameter].append(_head_columns(step.parameter, output, heads))
    return groups


def _part_by_unit(whole: Part, unit: Tensor, units: int) -> Part:
    """The part of units that own several rows or columns each, as many as one another."""
    order = unit.argsort(stable=True)

    def gather(tensor: Tensor) -> Tensor:
        return whole.gather(tensor)[order.to(tensor.device)].reshape(units, -1)

    def scatter(keep: Tensor) -> Tensor:
        return whole.scatter(keep[unit.to(keep.device)])

    return Part(whole.parameter, gather, scatter)


def _parts_of(ctx: NetworkView, found: FusedHeads) -> list[Part]:
    """The parts of heads whose places are known one by one."""
    parts = [_part_by_unit(part_by_rows(ctx, n), unit, found.units) for n, unit in found.outputs.items()]
    return [*parts, _part_by_unit(part_by_columns(ctx, found.output), found.inputs, found.units)]


def _attention_parts(ctx: NetworkView) -> tuple[Mapping[str, list[Part]], Mapping[str, str]]:
    """The parts of each attention's heads, by the weight behind them; and why others have none."""
    steps = fused_steps(ctx.module, ctx.flow, ctx.weights)
    fused = read_fused_heads(ctx.module, ctx.example, steps)
    tried = {step.parameter for step in steps}
    groups = _packed_parts(ctx, tried - {found.output for found in fused.found if found.packed})
    plain = {name: w for name, w in ctx.weights.items() if not ctx.geometry(name).transposed}
    for shared in projected_heads(ctx.flow, plain):  # grouped queries: keys and values with all their queries
        if shared.output not in groups:
            groups[shared.output] = [
                *(_head_rows(name, plain[name].shape, 1, shared.units) for name in shared.sources),
                _head_columns(shared.output, plain[shared.output].shape, shared.units),
            ]
    refused = dict(fused.refused)
    for found in fused.found:
        alike = all(len(set(unit.bincount().tolist())) == 1 for unit in found.outputs.values())
        if found.output not in groups and alike:
            groups[found.output] = _parts_of(ctx, found)
        elif found.output not in groups:
            refused[found.output] = "some of them have more queries, keys or values than others"
    return groups, refused


def _kept(ctx: NetworkView, *, attention: bool) -> str:
    """Which layer would have made a unit, did it not write the outputs and stay for that."""
    stay = ctx.flow.logits - ctx.weights.keys()
    steps = (s for s in ctx.flow.steps if s.linear and (s.head_size is not None) == attention)
    named = (s.parameter for s in steps if (s.sources if attention else len(s.sources) == 1))
    names = sorted(stay.intersection(named))
    return f" but at '{names[0]}', which writes the outputs; prune_classifier frees it" if names else ""


def _heads(ctx: NetworkView, scores: Scores) -> Grouping:
    groups, refused = _attention_parts(ctx)
    if not groups:
        why = next((f" (those before '{layer_of(name)}': {why})" for name, why in refused.items()), "")
        raise ShrinkbenchError(
            "this network has no attention layers whose heads could be pruned"
            f"{why or _kept(ctx, attention=True)}; choose a transformer or another structure"
        )
    return grouping_of(scores, groups)


heads = STRUCTURES.add(
    "heads",
    Structure(
        "heads",
        "attention heads: rows of queries, keys and values with the output columns; grouped queries together",
        _heads,
        unit="head",
        version=2,
    ),
)


def _neurons(ctx: NetworkView, scores: Scores) -> Grouping:
    groups: dict[str, list[Part]] = {}
    gated = ""
    for step in ctx.flow.steps:
        names = {*step.sources, step.parameter}
        if step.head_size is not None or not step.linear or not names <= ctx.weights.keys():
            continue
        second = ctx.geometry(step.parameter).rows(ctx.weights[step.parameter]).shape
        firsts = {name: ctx.geometry(name).rows(ctx.weights[name]).shape for name in sorted(step.sources)}
        alone = all(ctx.flow.consumers(name) == {step.parameter} for name in firsts)
        if not firsts or not alone or firsts.keys() & ctx.flow.logits or len(second) != 2:
            continue
        source, first = next(iter(firsts.items()))
        if len(firsts) == 1 and len(first) == 2 and first[0] == second[1]:
            groups[source] = [part_by_rows(ctx, source), part_by_columns(ctx, step.parameter)]
        elif sum(shape[0] for shape in firsts.values()) == 2 * second[1]:
            made = f"'{layer_of(source)}'" + (" and another layer" if len(firsts) > 1 else "")
            gated = (
                f": each input of '{layer_of(step.parameter)}' is made of two outputs (of {made}), a gate, "
                "whose neurons are units of the structure channels"
            )
    if not groups:
        raise ShrinkbenchError(
            "this network has no pair of linear layers with hidden neurons between them"
            f"{gated or _kept(ctx, attention=False)}; choose a network with perceptrons or another structure"
        )
    return grouping_of(scores, groups)


neurons = STRUCTURES.add(
    "neurons",
    Structure(
        "neurons",
        "hidden neurons between two linear layers alone: a row of the first with a column of the second",
        _neurons,
        unit="neuron",
        version=2,
        overlapping=True,  # a layer between two others has both rows and columns to lose
    ),
)
