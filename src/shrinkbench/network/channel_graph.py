"""The groups of channels that torch-pruning's dependency graph finds (Fang et al. 2023), stated by tensor.

The graph is traced on the meta device without data or memory. What it says is a guess: it takes every
operation that it does not know for an element-wise one. :mod:`shrinkbench.network.verification` checks it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.libraries import torchvision
from shrinkbench.network.attention import Role
from shrinkbench.network.groups import Group, Slice
from shrinkbench.network.inputs import Inputs
from shrinkbench.network.skeleton import Entrance, one_of, skeleton_of

Side = Literal["out", "in", "both"]
_Conv = nn.modules.conv._ConvNd
_TransposedConv = nn.modules.conv._ConvTransposeNd
_PerChannel = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.PReLU)


@dataclass(frozen=True)
class ChannelGraph:
    """Groups as torch-pruning has them, unproven; ``unreadable``: layer -> why it fails at its group."""

    groups: tuple[Group, ...]
    feeding_norms: Mapping[str, str]
    unreadable: Mapping[str, str]


def read_groups(module: nn.Module, example: Inputs) -> ChannelGraph:
    """The groups of channels of ``module``, in the order of its tensors."""
    skeleton, stand_ins, device = skeleton_of(module, example)
    reader = _GraphReader(skeleton, one_of(example, device), stand_ins)
    shared = _find_shared_tensors(module)
    tensors = (*dict(module.named_parameters(remove_duplicate=False)), *dict(module.named_buffers()))
    order = {name: number for number, name in enumerate(tensors)}
    joined = _join_blocks(skeleton, reader.raw_groups(order))
    groups = [g for merged in joined if (g := _name_groups(merged, shared, order))]
    groups.sort(key=lambda g: order[g.slices[0].tensor])
    return ChannelGraph(tuple(groups), reader.feeding_norms(), reader.unreadable)


def _find_shared_tensors(module: nn.Module) -> frozenset[str]:
    """Names of parameters that several layers hold; removing a channel from one would take it from all."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return frozenset(name for several in names.values() if len(several) > 1 for name in several)


@dataclass(frozen=True)
class _Item:
    """One tensor side in a raw group: its positions ``at`` along ``dim`` are the root's ``channels``."""

    layer: str
    side: Side
    tensors: tuple[tuple[str, int, int], ...]  # name, dimension, size of that dimension
    at: list[int]
    channels: list[int]


@dataclass
class _Raw:
    """A group as torch-pruning gives it, with stand-ins and operations left out."""

    channels: int
    items: list[_Item]
    refused_because: str | None = None
    part: int = 0  # width of the equal parts that they are split into, of which each loses the same places

    def refuse(self, reason: str) -> None:
        self.refused_because = self.refused_because or reason


class _GraphReader:
    """torch-pruning's graph of one network; everything that knows its objects is in this class."""

    def __init__(self, skeleton: nn.Module, inputs: Inputs, stand_ins: frozenset[str]) -> None:
        torchvision()  # torch-pruning imports it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch_pruning

            try:
                with torch.enable_grad():
                    self._graph = torch_pruning.DependencyGraph()
                    whole = Entrance(skeleton, inputs)
                    self._graph.build_dependency(whole, (inputs,), verbose=False)
            except Exception as error:  # bare assertions, KeyErrors and the like
                raise ShrinkbenchError(
                    f"torch-pruning cannot follow this network ({type(error).__name__}: {error}); its channels "
                    "cannot be removed, but single weights can be pruned"
                ) from None
        self._paths = {child: path for path, child in skeleton.named_modules()}
        self._entrance = whole.mix
        self._stand_ins = stand_ins
        self.unreadable: dict[str, str] = {}

    def raw_groups(self, known: Collection[str]) -> list[_Raw]:
        """Every group, one for each layer that begins one; a layer at which torch-pruning fails stays whole."""
        groups: list[_Raw] = []
        visited: set[Any] = set()
        for layer in list(self._graph.module2node):
            path = self._paths.get(layer)
            if path is None or not isinstance(layer, (_Conv, nn.Linear)) or layer in visited:
                continue
            if path.removesuffix(".mix") in self._stand_ins:
                continue
            outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            function = self._graph.get_pruner_of_module(layer).prune_out_channels
            try:
                entries = self._graph.get_pruning_group(layer, function, list(range(outputs)))
                groups.append(self._raw(entries, known))
                visited.update(e.dep.target.module for e in entries if self._is_output(e.dep.handler))
            except Exception as error:  # IndexError, TypeError, ZeroDivisionError, ...
                reason = f"torch-pruning cannot read what becomes of them ({type(error).__name__}: {error})"
                self.unreadable[path] = reason[:160]
                tensors = tuple((n, d, self._size(layer, n, d)) for n, d in _layer_tensors(layer, path, "out"))
                everything = list(range(outputs))
                item = _Item(path, "out", tensors, everything, everything)
                groups.append(_Raw(outputs, [item], self.unreadable[path]))
        return groups

    def _is_output(self, handler: Any) -> bool:
        return bool(self._graph.is_out_channel_pruning_fn(handler))

    def _raw(self, entries: Any, known: Collection[str]) -> _Raw:
        from torch_pruning import ops

        raw = _Raw(len(entries[0].idxs), [])
        for entry in entries:
            target, dep = entry.dep.target.module, entry.dep
            if target is self._entrance:
                raw.refuse("they are summed with the network's input")
                continue
            if isinstance(target, ops._ConcatOp) and target.offsets is None:
                raw.refuse("torch-pruning cannot tell where they lie in a concatenation")
            if isinstance(target, ops._SplitOp) and target.offsets and len(entry.idxs) == raw.channels:
                raw.part = target.offsets[1] - target.offsets[0]
            path = self._path(target)
            if path is None or (isinstance(target, nn.PReLU) and target.num_parameters == 1):
                continue  # an operation without parameters, or one parameter for all channels
            if path.removesuffix(".mix") in self._stand_ins:
                raw.refuse(f"they pass '{path.removesuffix('.mix')}', which mixes or rearranges channels")
                continue
            if isinstance(target, nn.Parameter):
                tensors: tuple[tuple[str, int], ...] = ((path, dep.target.pruning_dim),)
                side: Side = "both"
            elif isinstance(target, (_Conv, nn.Linear)):
                side = "in" if self._graph.is_in_channel_pruning_fn(dep.handler) else "out"
                side = "both" if _is_depthwise(target) else side
                tensors = _layer_tensors(target, path, side)
            elif isinstance(target, _PerChannel) or _norm_width(target):
                side, tensors = "both", _channel_tensors(target, path)
            else:
                raw.refuse(f"they pass '{path}' ({type(target).__name__}), which mixes channels")
                continue
            if not all(name in known for name, _ in tensors):
                raw.refuse(f"a weight of '{path}' is computed from other tensors")
                continue
            if any(channel is None for channel in entry.root_idxs):
                raw.refuse(f"torch-pruning loses track of them at '{path}'")
                continue
            sized = tuple((name, dim, self._size(target, name, dim)) for name, dim in tensors)
            at = list(entry.idxs)
            if at and any(size <= max(at) for _, _, size in sized):
                half = raw.channels // 2
                if at != list(range(2 * half)) or any(size != half for _, _, size in sized):
                    raw.refuse(f"torch-pruning misplaces the channels of '{path}'")
                    continue
                # Half as many arrive as leave: what torch's gated linear unit makes of two halves.
                raw.part, at = half, [position % half for position in at]
            raw.items.append(_Item(path, side, sized, at, list(entry.root_idxs)))
        if not any(item.side == "in" for item in raw.items):
            raw.refuse("they reach the output")
        return raw

    def _path(self, target: Any) -> str | None:
        if isinstance(target, nn.Parameter):
            name = self._graph._param_to_name.get(target)
            return None if name is None else str(name).removeprefix("body.")
        return self._paths.get(target)

    @staticmethod
    def _size(target: Any, name: str, dim: int) -> int:
        tensor = target if isinstance(target, nn.Parameter) else getattr(target, name.rpartition(".")[2])
        return int(tensor.shape[dim])

    def feeding_norms(self) -> dict[str, str]:
        """Layer -> the batch norm whose output, after element-wise operations, that layer alone reads."""
        found: dict[str, str] = {}
        for module, node in self._graph.module2node.items():
            if not isinstance(module, (_Conv, nn.Linear)) or self._paths.get(module) is None:
                continue
            above = node
            while (below := _sole_input(above)) is not None:
                above = below
                if isinstance(above.module, nn.modules.batchnorm._BatchNorm):
                    width = module.in_features if isinstance(module, nn.Linear) else module.in_channels
                    if above.module.num_features == width:
                        found[self._paths[module]] = self._paths[above.module]
                    break
                # One input in the graph may be one of several to the operation, the others without gradient.
                if above.module in self._paths or len(above.grad_fn.next_functions) != 1:
                    break
        return found


def _sole_input(node: Any) -> Any | None:
    """The node whose output ``node`` alone reads, and reads alone; a linear layer's weight is no input."""
    inputs = [n for n in node.inputs if n.inputs or n.grad_fn is None or "TBackward" not in n.grad_fn.name()]
    return inputs[0] if len(inputs) == 1 and len(inputs[0].outputs) == 1 else None


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, _Conv) and layer.groups == layer.out_channels > 1


def _block_widths(layer: nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of one block of a grouped convolution; ``None`` for other layers."""
    if not isinstance(layer, _Conv) or layer.groups == 1 or _is_depthwise(layer):
        return None
    return layer.in_channels // layer.groups, layer.out_channels // layer.groups


def _norm_width(layer: nn.Module) -> int:
    """Channels that a group norm takes together; 0 where none can leave, or the layer is another."""
    if not isinstance(layer, nn.GroupNorm) or layer.num_groups == 1 or not layer.affine:
        return 0
    return layer.num_channels // layer.num_groups


def _layer_tensors(layer: nn.Module, path: str, side: Side) -> tuple[tuple[str, int], ...]:
    """The tensors of a convolution or linear layer that hold its channels on ``side``."""
    outputs, inputs = (1, 0) if isinstance(layer, _TransposedConv) else (0, 1)
    prefix = f"{path}." if path else ""
    if side == "in":  # a block's inputs are no dimension of the weight: the block's filters stand for them
        return () if _block_widths(layer) else ((f"{prefix}weight", inputs),)
    bias = () if layer.bias is None else ((f"{prefix}bias", 0),)
    return ((f"{prefix}weight", outputs), *bias)


def _channel_tensors(layer: nn.Module, path: str) -> tuple[tuple[str, int], ...]:
    names = ("weight", "bias", "running_mean", "running_var")
    prefix = f"{path}." if path else ""
    return tuple((f"{prefix}{n}", 0) for n in names if isinstance(getattr(layer, n, None), Tensor))


@dataclass(frozen=True)
class _Merged:
    """Raw groups joined through grouped convolutions and norms.

    ``unit[i][c]`` is the unit of channel c of part i. It is -1 where the channel cannot
    leave though others of its group can.
    """

    parts: list[_Raw]
    unit: list[list[int]]
    units: int
    refused_because: str | None
    grouped: frozenset[str]


def _join_blocks(skeleton: nn.Module, raw: list[_Raw]) -> Iterator[_Merged]:
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
    blocked = None if side == "both" else _block_widths(layer)
    return _norm_width(layer) if blocked is None else blocked[side == "out"]


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
