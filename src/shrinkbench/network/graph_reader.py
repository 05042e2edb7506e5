"""What torch-pruning's dependency graph of a network says of each layer's channels (Fang et al. 2023).

Everything that knows the objects of that library is here. It numbers the places of channels behind reshapings,
concatenations, slices and repetitions, and where it fails at one of them, or comes to no end, the channels that
arrive there are refused; all others are read. It takes what it does not know for element-wise.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shrinkbench.libraries import torchvision
from shrinkbench.network.inputs import Inputs
from shrinkbench.network.opaque import Core, Entrance
from shrinkbench.network.skeleton import MIXES, Skeleton, Turned

Side = Literal["out", "in", "both"]
_Conv = nn.modules.conv._ConvNd
_TransposedConv = nn.modules.conv._ConvTransposeNd
_PerChannel = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.PReLU)
# A reading that goes in circles visits one operation more often, or counts more places in all.
_MOST_VISITS, _MOST_PLACES = 32, 5_000_000
GRADIENTS = "the network computes them without gradients (no_grad, detach, a reentrant checkpoint)"
CLOSED = (
    "no output that can be looked into depends on them: the network returns an object of class '{}' (return "
    "tensors, lists, dictionaries or dataclasses)"
)
UNCALLED = "the network reads their weights without calling their layer"
ENDLESS = "torch-pruning comes to no end with the places that they move to"
LOST = "torch-pruning cannot tell where they lie behind an operation that moves or repeats them"


@dataclass(frozen=True)
class Item:
    """One tensor side in a raw group: its positions ``at`` along ``dim`` are the root's ``channels``."""

    layer: str
    side: Side
    tensors: tuple[tuple[str, int, int], ...]  # name, dimension, size of that dimension
    at: list[int]
    channels: list[int]


@dataclass
class Raw:
    """A group as torch-pruning gives it, with stand-ins and operations left out."""

    channels: int
    items: list[Item]
    refused_because: str | None = None
    part: int = 0  # width of the equal parts that they are split into, of which each loses the same places
    is_read: bool = False  # by some layer; those of an output are not
    by_nature: bool = False  # whole because of attention, or because the network's input has as many

    def refuse(self, reason: str) -> None:
        """Note why its channels have to stay; the first reason counts."""
        self.refused_because = self.refused_because or reason


class _LostError(Exception):
    """Channels that cannot be followed; the argument is the reason."""


class GraphReader:
    """torch-pruning's graph of one skeleton; raises what that library, or the skeleton, raises.

    ``unreadable``: layer -> why it fails at the group of that layer.
    """

    def __init__(self, skeleton: Skeleton, inputs: Inputs) -> None:
        self._whole = Entrance(skeleton.module, inputs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._graph, self._lost = _build(self._whole, inputs)
        self._paths = {child: path for path, child in skeleton.module.named_modules()}
        self._opaque = {skeleton.module.get_submodule(p).core: (p, why) for p, why in skeleton.opaque.items()}
        self._called = skeleton.called
        self.unreadable: dict[str, str] = {}

    def raw_groups(self, known: Collection[str]) -> list[Raw]:
        """Every group, one for each layer that begins one; ``known`` are the tensors that the network has."""
        groups: list[Raw] = []
        visited: set[Any] = set()
        for layer, node in list(self._graph.module2node.items()):
            path = self._paths.get(layer)
            if path is None or not isinstance(layer, (_Conv, nn.Linear)) or layer in visited:
                continue
            outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            try:
                entries = self._follow(node, outputs)
                groups.append(self._raw(entries, known))
                visited.update(dep.target.module for dep, _ in entries if self._is_output(dep.handler))
            except _LostError as error:
                self.unreadable[path] = str(error)
                tensors = tuple((n, d, _size(layer, n, d)) for n, d in _layer_tensors(layer, path, "out"))
                everything = list(range(outputs))
                item = Item(path, "out", tensors, everything, everything)
                groups.append(Raw(outputs, [item], self.unreadable[path], is_read=True))
        return groups

    def _is_output(self, handler: Any) -> bool:
        return bool(self._graph.is_out_channel_pruning_fn(handler))

    def _follow(self, root: Any, outputs: int) -> list[tuple[Any, list[Any]]]:
        """All that the channels of ``root`` reach: dependencies, and places with the channel of each.

        torch-pruning's own way, which numbers the places anew for every group and does not see when it goes
        in circles.
        """
        from torch_pruning._helpers import _HybridIndex
        from torch_pruning.dependency.dependency import Dependency

        prune = self._graph.get_pruner_of_module(root.module).prune_out_channels
        everything = [_HybridIndex(i, i) for i in range(outputs)]
        start = (Dependency(prune, prune, source=root, target=root), everything)
        count = 0
        seen: dict[tuple[Any, Any], set[tuple[int, ...]]] = {}
        reached: list[tuple[Any, list[Any]]] = []
        stack = [start]
        while stack:
            dep, places = stack.pop()
            reached.append((dep, places))
            if isinstance(dep.target.module, Core):  # what else goes in or out there is of other channels
                continue
            for following in dep.target.dependencies:
                if not following.is_triggered_by(dep.handler):
                    continue
                if following.target in self._lost:
                    raise _LostError(LOST)
                there = _move(places, following.index_mapping)
                at = tuple(place.idx for place in there)
                visits = seen.setdefault((following.target, following.handler), set())
                if not there or at in visits:
                    continue
                visits.add(at)
                count += len(at)
                if len(visits) > _MOST_VISITS or count > _MOST_PLACES:
                    raise _LostError(ENDLESS)
                stack.append((following, there))
        return _merge(reached)

    def _raw(self, entries: list[tuple[Any, list[Any]]], known: Collection[str]) -> Raw:
        raw = Raw(len(entries[0][1]), [])
        root = self._paths[entries[0][0].target.module]
        for dep, places in entries:
            target = dep.target.module
            if target is self._whole.core:
                raw.refuse("they are summed with the network's input")
                raw.by_nature = True
                continue
            if target in self._opaque:
                stand_in, why = self._opaque[target]
                raw.refuse(passing := f"they pass '{stand_in}', which {why}")
                raw.by_nature |= why == MIXES
                if why != MIXES:  # attention is no surprise, and is not told
                    self.unreadable.setdefault(root, passing)
                continue
            self._read_operation(raw, target, len(places))
            path = self._path(target)
            if path is None or (isinstance(target, nn.PReLU) and target.num_parameters == 1):
                continue  # an operation without parameters, or one parameter for all channels
            if (reason := self._read_layer(raw, dep, path, places, known)) is not None:
                raw.refuse(reason)
                if path == root and not raw.items:  # no group is named by it
                    self.unreadable[root] = reason
        if not any(item.side == "in" for item in raw.items):
            raw.refuse("they reach the output")
        return raw

    @staticmethod
    def _read_operation(raw: Raw, target: Any, count: int) -> None:
        from torch_pruning import ops

        if isinstance(target, ops._ConcatOp) and target.offsets is None:
            raw.refuse("torch-pruning cannot tell where they lie in a concatenation")
        if isinstance(target, ops._SplitOp) and target.offsets and count == raw.channels:
            raw.part = target.offsets[1] - target.offsets[0]

    def _read_layer(
        self, raw: Raw, dep: Any, path: str, places: list[Any], known: Collection[str]
    ) -> str | None:
        """Add to ``raw`` the tensors of a layer that channels reach, or return why they cannot leave it."""
        target = dep.target.module
        side: Side = "both"
        if isinstance(target, nn.Parameter):
            tensors: tuple[tuple[str, int], ...] = ((path, int(dep.target.pruning_dim)),)
        elif isinstance(target, (_Conv, nn.Linear)):
            if not _is_depthwise(target):
                side = "in" if self._graph.is_in_channel_pruning_fn(dep.handler) else "out"
                raw.is_read |= side == "in"
            tensors = _layer_tensors(target, path, side)
        elif isinstance(target, _PerChannel) or norm_width(target):
            tensors = _channel_tensors(target, path)
        else:
            return f"they pass '{path}' ({type(target).__name__}), which mixes channels"
        if not all(name in known for name, _ in tensors):
            return f"a weight of '{path}' is computed from other tensors"
        channels = [place.root_idx for place in places]
        if any(channel is None for channel in channels):
            return f"torch-pruning loses track of them at '{path}'"
        sized = tuple((name, dim, _size(target, name, dim)) for name, dim in tensors)
        at = [place.idx for place in places]
        if at and any(size <= max(at) for _, _, size in sized):
            half = raw.channels // 2
            if at != list(range(2 * half)) or any(size != half for _, _, size in sized):
                return f"torch-pruning misplaces the channels of '{path}'"
            # Half as many arrive as leave: what torch's gated linear unit makes of two halves.
            raw.part, at = half, [position % half for position in at]
        raw.items.append(Item(path, side, sized, at, channels))
        return None

    def _path(self, target: Any) -> str | None:
        if isinstance(target, nn.Parameter):
            name: Any = self._graph._param_to_name.get(target)
            return None if name is None else str(name).removeprefix("body.")
        return self._paths.get(target)

    def unseen(self) -> dict[str, str]:
        """Layers that the graph does not reach, and why."""
        closed = self._whole.closed
        without = GRADIENTS if closed is None else CLOSED.format(closed)
        return {
            path: without if path in self._called else UNCALLED
            for layer, path in self._paths.items()
            if isinstance(layer, (_Conv, nn.Linear)) and layer not in self._graph.module2node
        }

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


def _build(whole: nn.Module, inputs: Inputs) -> tuple[Any, set[Any]]:
    """The graph, and its operations behind which torch-pruning fails to number the places of channels."""
    torchvision()  # torch-pruning imports it
    from torch_pruning import DependencyGraph, ops
    from torch_pruning.dependency import index_mapping, shape_infer

    class Opaque(ops.DummyPruner):  # type: ignore[misc]  # untyped
        """Of channels that reach a stand-in nothing follows for those that leave it."""

        def prune_in_channels(self, layer: Any, _: Any) -> Any:
            return layer

        def get_out_channels(self, layer: Any) -> int | None:
            return int(layer.channels) if layer.channels else None

    class Graph(DependencyGraph):  # type: ignore[misc]  # untyped
        """One that tells the operations that it fails at, instead of giving up."""

        def _build_dependency(self, module2node: Mapping[Any, Any]) -> None:
            super()._build_dependency(module2node)
            self.lost: set[Any] = set()
            for step in (shape_infer.init_shape_information, index_mapping.update_index_mapping):
                for module, node in module2node.items():
                    alone = copy.copy(self)
                    alone.module2node = {module: node}
                    try:
                        step(alone)
                    except Exception:  # IndexError, TypeError, ZeroDivisionError, RecursionError, ...
                        node.type = ops.OPTYPE.ELEMENTWISE
                        self.lost.add(node)

    graph = Graph()
    with torch.enable_grad():
        graph.build_dependency(
            whole,
            (inputs,),
            forward_fn=lambda network, given: network(*given),
            customized_pruners={Core: Opaque()},
            verbose=False,
        )
    return graph, graph.lost


def _move(places: list[Any], mappings: list[Any]) -> list[Any]:
    try:
        for mapping in mappings:
            places = places if mapping is None else mapping(places)
    except Exception:  # of sums with None, and the like
        raise _LostError(LOST) from None
    return places


def _merge(reached: list[tuple[Any, list[Any]]]) -> list[tuple[Any, list[Any]]]:
    """One entry for each operation on each target, in order of first visit, with every place once."""
    merged: dict[tuple[Any, Any], tuple[Any, dict[int, Any]]] = {}
    for dep, places in reached:
        _, at = merged.setdefault((dep.target, dep.handler), (dep, {}))
        for place in places:
            at.setdefault(place.idx, place)
    return [(dep, list(at.values())) for dep, at in merged.values()]


def _sole_input(node: Any) -> Any | None:
    """The node whose output ``node`` alone reads, and reads alone; a linear layer's weight is no input."""
    inputs = [n for n in node.inputs if n.inputs or n.grad_fn is None or "TBackward" not in n.grad_fn.name()]
    return inputs[0] if len(inputs) == 1 and len(inputs[0].outputs) == 1 else None


def _size(target: Any, name: str, dim: int) -> int:
    tensor = target if isinstance(target, nn.Parameter) else getattr(target, name.rpartition(".")[2])
    return int(tensor.shape[1 - dim if isinstance(target, Turned) and tensor.dim() == 2 else dim])


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, _Conv) and layer.groups == layer.out_channels > 1


def block_widths(layer: nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of one block of a grouped convolution; ``None`` for other layers."""
    if not isinstance(layer, _Conv) or layer.groups == 1 or _is_depthwise(layer):
        return None
    return layer.in_channels // layer.groups, layer.out_channels // layer.groups


def norm_width(layer: nn.Module) -> int:
    """Channels that a group norm takes together; 0 where none can leave, or the layer is another."""
    if not isinstance(layer, nn.GroupNorm) or layer.num_groups == 1 or not layer.affine:
        return 0
    return layer.num_channels // layer.num_groups


def _layer_tensors(layer: nn.Module, path: str, side: Side) -> tuple[tuple[str, int], ...]:
    """The tensors of a convolution or linear layer that hold its channels on ``side``."""
    outputs, inputs = (1, 0) if isinstance(layer, (_TransposedConv, Turned)) else (0, 1)
    prefix = f"{path}." if path else ""
    if side == "in":  # a block's inputs are no dimension of the weight: the block's filters stand for them
        return () if block_widths(layer) else ((f"{prefix}weight", inputs),)
    bias = () if layer.bias is None else ((f"{prefix}bias", 0),)
    return ((f"{prefix}weight", outputs), *bias)


def _channel_tensors(layer: nn.Module, path: str) -> tuple[tuple[str, int], ...]:
    names = ("weight", "bias", "running_mean", "running_var")
    prefix = f"{path}." if path else ""
    return tuple((f"{prefix}{n}", 0) for n in names if isinstance(getattr(layer, n, None), Tensor))
