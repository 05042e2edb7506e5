"""The groups of channels that torch-pruning's dependency graph finds (Fang et al. 2023), stated by tensor.

The graph is traced on the meta device without data or memory. What it says is a guess: it takes every
operation that it does not know for an element-wise one. :mod:`shrinkbench.network.verification` checks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.network.attention import Role
from shrinkbench.network.graph_reader import Raw, Side, block_widths, norm_width
from shrinkbench.network.groups import Group, Slice
from shrinkbench.network.inputs import Inputs
from shrinkbench.network.unreadable import read_graph


@dataclass(frozen=True)
class ChannelGraph:
    """Groups as torch-pruning has them, unproven; ``unreadable``: layer -> why its channels stay whole.

    ``silent``: layers that name groups of an output, of what is summed with the input, or of what passes
    attention; they stay without a word.
    """

    groups: tuple[Group, ...]
    feeding_norms: Mapping[str, str]
    unreadable: Mapping[str, str]
    silent: frozenset[str]


def read_groups(module: nn.Module, example: Inputs) -> ChannelGraph:
    """The groups of channels of ``module``, in the order of its tensors."""
    skeleton, reader = read_graph(module, example)
    shared = _find_shared_tensors(module)
    tensors = (*dict(module.named_parameters(remove_duplicate=False)), *dict(module.named_buffers()))
    order = {name: number for number, name in enumerate(tensors)}
    groups, silent = [], set()
    for merged in _join_blocks(skeleton.module, reader.raw_groups(order)):
        group = _name_groups(merged, shared, order)
        groups += [] if group is None else [group]
        if group is not None and any(part.by_nature or not part.is_read for part in merged.parts):
            silent.add(group.layer)
    groups.sort(key=lambda g: order[g.slices[0].tensor])
    unreadable = {**skeleton.unreadable, **reader.unreadable, **reader.unseen()}
    return ChannelGraph(tuple(groups), reader.feeding_norms(), unreadable, frozenset(silent))


def _find_shared_tensors(module: nn.Module) -> frozenset[str]:
    """Names of parameters that several layers hold; removing a channel from one would take it from all."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return frozenset(name for several in names.values() if len(several) > 1 for name in several)


@dataclass(frozen=True)
class _Merged:
    """Raw groups joined through grouped convolutions and norms.

    ``unit[i][c]`` is the unit of channel c of part i. It is -1 where the channel cannot
    leave though others of its group can.
    """

    parts: list[Raw]
    unit: list[list[int]]
    units: int
    refused_because: str | None
    grouped: frozenset[str]


def _join_blocks(skeleton: nn.Module, raw: list[Raw]) -> Iterator[_Merged]:
    """Join what can only leave together.

    A grouped convolution loses whole blocks, inputs with outputs, a group norm what it takes together, and of
    channels that are split into equal parts each part loses the same.
    """
    offsets = [0]
    for group in raw:
        offsets.append(offsets[-1] + group.channels)
    find, union = _disjoint_sets(offsets[-1])
    blocks: dict[tuple[str, int], int] = {}
    read: dict[tuple[str, int], set[int]] = {}  # inputs of each block that are channels of some group
    sides: dict[str, set[str]] = {}
    for number, group in enumerate(raw):
        if group.part and group.channels % group.part == 0:
            for channel in range(group.channels):
                union(offsets[number] + channel, offsets[number] + channel % group.part)
        for item in group.items:
            width = _block_width(skeleton, item.layer, item.side)
            if not width:
                continue
            if item.side != "both":
                sides.setdefault(item.layer, set()).add(item.side)
            for at, channel in zip(item.at, item.channels, strict=True):
                node = offsets[number] + channel
                union(node, blocks.setdefault((item.layer, at // width), node))
                if item.side != "out":
                    read.setdefault((item.layer, at // width), set()).add(at)
    # The network's own input has no group: a block that reads some of it cannot leave.
    fixed = {
        find(node): layer
        for (layer, block), node in blocks.items()
        if len(read.get((layer, block), ())) < _block_width(skeleton, layer, "in")
    }
    spans: dict[int, set[int]] = {}  # joined channels -> the raw groups that they span
    for number, group in enumerate(raw):
        for channel in range(group.channels):
            spans.setdefault(find(offsets[number] + channel), set()).add(number)
    for members in _connect(len(raw), spans.values()):
        ids: dict[int, int] = {}
        roots = [[find(offsets[n] + c) for c in range(raw[n].channels)] for n in members]
        unit = [[-1 if r in fixed else ids.setdefault(r, len(ids)) for r in some] for some in roots]
        parts = [raw[n] for n in members]
        reason = next((part.refused_because for part in parts if part.refused_because), None)
        for layer in {item.layer for part in parts for item in part.items} & sides.keys():
            if sides[layer] != {"in", "out"}:
                reason = reason or f"the blocks of the grouped convolution '{layer}' cannot be followed"
        if not ids:
            reason = reason or f"the blocks of '{fixed[roots[0][0]]}' read some of the network's input too"
        yield _Merged(parts, unit, len(ids), reason, frozenset(sides))


def _block_width(skeleton: nn.Module, path: str, side: Side) -> int:
    """Channels on ``side`` of the layer that can only leave together; 0 where each can leave alone."""
    try:
        layer = skeleton.get_submodule(path)
    except AttributeError:  # a parameter
        return 0
    blocked = None if side == "both" else block_widths(layer)
    return norm_width(layer) if blocked is None else blocked[side == "out"]


def _disjoint_sets(count: int) -> tuple[Any, Any]:
    parent = list(range(count))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def union(i: int, j: int) -> None:
        a, b = find(i), find(j)
        parent[max(a, b)] = min(a, b)

    return find, union


def _connect(count: int, sets: Iterable[set[int]]) -> Iterator[list[int]]:
    """Partition ``range(count)`` so that members of one set share a part."""
    find, union = _disjoint_sets(count)
    for members in sets:
        first = min(members)
        for member in members:
            union(first, member)
    parts: dict[int, list[int]] = {}
    for number in range(count):
        parts.setdefault(find(number), []).append(number)
    yield from parts.values()


def _name_groups(merged: _Merged, shared: frozenset[str], order: Mapping[str, int]) -> Group | None:
    """The group in terms of tensors; ``None`` where only stand-ins and depthwise layers are in it.

    Producing slices come first, in the module's order, and units are numbered as the first of them has them.
    """
    units: dict[tuple[str, int], Tensor] = {}
    roles: dict[tuple[str, int], Role] = {}
    reason = merged.refused_because
    for part, unit in zip(merged.parts, merged.unit, strict=True):
        for item in part.items:
            role: Role = "carries"
            if item.side != "both" and item.layer not in merged.grouped:
                role = "consumes" if item.side == "in" else "produces"
            for tensor, dim, size in item.tensors:
                positions = units.setdefault((tensor, dim), torch.full((size,), -1))
                here, before = torch.tensor([unit[c] for c in item.channels]), positions[item.at]
                if bool(((before >= 0) & (before != here)).any()):
                    reason = reason or f"several of them meet in one place of '{tensor}'"
                positions[item.at] = here
                roles[tensor, dim] = role
                if tensor in shared:
                    reason = reason or f"'{tensor}' is shared by several layers"
    places = sorted(units, key=lambda at: (roles[at] != "produces", order[at[0]], at[1]))
    if not places or roles[places[0]] != "produces":
        return None
    seen = torch.cat([units[at] for at in places if roles[at] == "produces"])
    number = torch.full((merged.units + 1,), -1)  # the last entry stands for "another group", -1
    for new, old in enumerate(dict.fromkeys(seen[seen >= 0].tolist())):
        number[old] = new
    slices = tuple(Slice(t, d, number[units[t, d]], roles[t, d]) for t, d in places)
    return Group(places[0][0].rpartition(".")[0], "channels", merged.units, slices, reason)
