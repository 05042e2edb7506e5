"""Which slices of which tensors make up one channel of a network.

A channel is more than a filter: removing it takes the filter, its batch norm, the input slice of every layer
that reads it and, across a residual sum, the same channel of every branch. :func:`couple` finds these groups
with the dependency graph of torch-pruning (Fang et al. 2023), traced on the meta device without data or
memory, and states them in terms of tensors. Groups that are not safe to touch are named with the reason and
left whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.libraries import torchvision
from shrinkbench.network.attention import Role, head_slices, is_attention
from shrinkbench.network.probe import require_materialised, trace
from shrinkbench.network.skeleton import Entrance, skeleton_of
from shrinkbench.network.weights import layers_that_compute

Side = Literal["out", "in", "both"]
_Conv = nn.modules.conv._ConvNd
_TransposedConv = nn.modules.conv._ConvTransposeNd
_PerChannel = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.PReLU)


@dataclass(frozen=True)
class Slice:
    """Positions along dimension ``dim`` of a parameter or buffer, by the unit that they belong to.

    ``unit`` (int64, one entry per position) holds -1 where a position belongs to another group. A tensor
    ``produces`` its channels (filters), ``carries`` them (batch norm, depthwise filters, scales) or
    ``consumes`` them (input slices of the next layer). A channel whose consumers are all masked does not
    reach the output.
    """

    tensor: str
    dim: int
    unit: Tensor = field(compare=False)
    role: Role


@dataclass(frozen=True)
class Group:
    """Units (channels, blocks of a grouped convolution, attention heads) that leave a network together.

    ``layer`` is the first layer that produces them and names the group; ``refused_because`` tells
    why none of them can leave, or is ``None``.
    """

    layer: str
    kind: Literal["channels", "heads"]
    units: int
    slices: tuple[Slice, ...]
    refused_because: str | None = None

    def layers(self, role: Role) -> tuple[str, ...]:
        """Paths of the layers in that role."""
        return tuple(dict.fromkeys(s.tensor.rpartition(".")[0] for s in self.slices if s.role == role))


@dataclass(frozen=True)
class Coupling:
    """All groups of a network; ``feeding_norm`` maps a layer to the batch norm whose output it alone reads."""

    groups: tuple[Group, ...]
    feeding_norm: Mapping[str, str] = field(default_factory=dict)

    @property
    def free(self) -> tuple[Group, ...]:
        """The groups that units can leave."""
        return tuple(g for g in self.groups if g.refused_because is None)

    def group_of(self, layer: str) -> Group:
        """The group of the channels that ``layer`` produces."""
        for group in self.groups:
            if layer == group.layer or layer in group.layers("produces"):
                return group
        raise ShrinkbenchError(f"no layer '{layer}' of the network produces channels; give a layer's path")


def couple(module: nn.Module, input_shape: Sequence[int]) -> Coupling:
    """Find the groups of ``module`` for one input of ``input_shape`` (channels, height, width).

    Raises ``ShrinkbenchError`` where the dependency graph cannot follow the network at all.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    >>> group = couple(net, (3, 3, 3)).free[0]
    >>> group.layer, group.units, [(s.tensor, s.dim, s.role) for s in group.slices if s.role != "carries"]
    ('0', 4, [('0.weight', 0, 'produces'), ('0.bias', 0, 'produces'), ('3.weight', 1, 'consumes')])
    """
    require_materialised(module)
    trace(module, input_shape)  # an input that does not fit is told here, in our own words
    skeleton, stand_ins = skeleton_of(module, tuple(input_shape))
    reader = _GraphReader(skeleton, tuple(input_shape), stand_ins, layers_that_compute(module))
    shared = _find_shared_tensors(module)
    tensors = (*dict(module.named_parameters(remove_duplicate=False)), *dict(module.named_buffers()))
    order = {name: number for number, name in enumerate(tensors)}
    joined = _join_blocks(skeleton, reader.raw_groups())
    groups = [g for merged in joined if (g := _name_groups(merged, shared, order))]
    groups.sort(key=lambda g: order[g.slices[0].tensor])
    heads = [_head_group(path, child) for path, child in module.named_modules() if is_attention(child)]
    return Coupling((*groups, *(g for g in heads if g is not None)), reader.feeding_norms())


def _head_group(path: str, attention: nn.Module) -> Group | None:
    found = head_slices(attention)
    if found is None:
        return None
    heads, slices = found
    prefix = f"{path}." if path else ""
    return Group(path, "heads", heads, tuple(Slice(prefix + t, d, u, r) for t, d, u, r in slices))


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

    def refuse(self, reason: str) -> None:
        self.refused_because = self.refused_because or reason


class _GraphReader:
    """torch-pruning's graph of one network; everything that knows its objects is in this class."""

    def __init__(
        self,
        skeleton: nn.Module,
        input_shape: tuple[int, ...],
        stand_ins: frozenset[str],
        computed: frozenset[str],
    ) -> None:
        torchvision()  # torch-pruning imports it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch_pruning

            try:
                with torch.enable_grad():
                    inputs = torch.empty((1, *input_shape), device="meta")
                    self._graph = torch_pruning.DependencyGraph()
                    whole = Entrance(skeleton, input_shape)
                    self._graph.build_dependency(whole, (inputs,), verbose=False)
            except Exception as error:  # bare assertions, KeyErrors and the like
                raise ShrinkbenchError(
                    f"torch-pruning cannot follow this network ({type(error).__name__}: {error}); its channels "
                    "cannot be removed, but single weights can be pruned"
                ) from None
        self._paths = {child: path for path, child in skeleton.named_modules()}
        self._entrance = whole.mix
        self._stand_ins = stand_ins
        self._computed = computed

    def raw_groups(self) -> list[_Raw]:
        return [self._raw(group) for group in self._graph.get_all_groups()]

    def _raw(self, entries: Any) -> _Raw:
        raw = _Raw(len(entries[0].idxs), [])
        for entry in entries:
            target, dep = entry.dep.target.module, entry.dep
            if target is self._entrance:
                raw.refuse("they are summed with the network's input")
                continue
            if type(target).__name__ == "_ConcatOp" and target.offsets is None:
                raw.refuse("torch-pruning cannot tell where they lie in a concatenation")
            path = self._path(target)
            if path is None or (isinstance(target, nn.PReLU) and target.num_parameters == 1):
                continue  # an operation without parameters, or one parameter for all channels
            if path.removesuffix(".mix") in self._stand_ins:
                raw.refuse(f"they pass '{path.removesuffix('.mix')}', which mixes or rearranges channels")
                continue
            if path in self._computed:
                raw.refuse(f"the weight of '{path}' is computed from other parameters")
                continue
            if isinstance(target, nn.Parameter):
                tensors: tuple[tuple[str, int], ...] = ((path, dep.target.pruning_dim),)
                side: Side = "both"
            elif isinstance(target, (_Conv, nn.Linear)):
                side = "in" if self._graph.is_in_channel_pruning_fn(dep.handler) else "out"
                side = "both" if _is_depthwise(target) else side
                tensors = _layer_tensors(target, path, side)
            elif isinstance(target, _PerChannel):
                side, tensors = "both", _channel_tensors(target, path)
            else:
                raw.refuse(f"they pass '{path}' ({type(target).__name__}), which mixes channels")
                continue
            sized = tuple((name, dim, self._size(target, name, dim)) for name, dim in tensors)
            if entry.idxs and any(size <= max(entry.idxs) for _, _, size in sized):
                raw.refuse(f"torch-pruning misplaces the channels of '{path}'")
                continue
            raw.items.append(_Item(path, side, sized, list(entry.idxs), list(entry.root_idxs)))
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
    """Raw groups joined through grouped convolutions; ``unit[i][c]`` is the unit of channel c of part i."""

    parts: list[_Raw]
    unit: list[list[int]]
    units: int
    refused_because: str | None
    grouped: frozenset[str]


def _join_blocks(skeleton: nn.Module, raw: list[_Raw]) -> Iterator[_Merged]:
    """Join both sides of every grouped convolution, which can only lose whole blocks, inputs with outputs."""
    offsets = [0]
    for group in raw:
        offsets.append(offsets[-1] + group.channels)
    find, union = _disjoint_sets(offsets[-1])
    blocks: dict[tuple[str, int], int] = {}
    sides: dict[str, set[str]] = {}
    for number, group in enumerate(raw):
        for item in group.items:
            blocked = None if item.side == "both" else _block_widths(skeleton.get_submodule(item.layer))
            if blocked is None:
                continue
            sides.setdefault(item.layer, set()).add(item.side)
            width = blocked[0] if item.side == "in" else blocked[1]
            for at, channel in zip(item.at, item.channels, strict=True):
                node = offsets[number] + channel
                union(node, blocks.setdefault((item.layer, at // width), node))
    spans: dict[int, set[int]] = {}  # joined channels -> the raw groups that they span
    for number, group in enumerate(raw):
        for channel in range(group.channels):
            spans.setdefault(find(offsets[number] + channel), set()).add(number)
    for members in _connect(len(raw), spans.values()):
        ids: dict[int, int] = {}
        unit = [
            [ids.setdefault(find(offsets[n] + c), len(ids)) for c in range(raw[n].channels)] for n in members
        ]
        parts = [raw[n] for n in members]
        reason = next((part.refused_because for part in parts if part.refused_because), None)
        for layer in {item.layer for part in parts for item in part.items} & sides.keys():
            if sides[layer] != {"in", "out"}:
                reason = reason or f"the blocks of the grouped convolution '{layer}' cannot be followed"
        yield _Merged(parts, unit, len(ids), reason, frozenset(sides))


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
                positions[item.at] = torch.tensor([unit[c] for c in item.channels])
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
