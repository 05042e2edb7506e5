"""From masks to a physically smaller network with the same outputs, checked every time.

What leaves: channels to which no kept weight listens, channels that are pruned filters and arrive as zeros,
heads that the output projection ignores, inputs that one layer no longer reads (they are selected away in
front of it), layers without a weight left, and residual blocks that have become the identity. Masked weights
inside what stays remain zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.errors import LeftWholeWarning, ShrinkbenchError
from shrinkbench.network.attention import HeadsLeft, is_attention, reads_its_weights_itself
from shrinkbench.network.blocks import fresh
from shrinkbench.network.coupling import Coupling, Group, couple
from shrinkbench.network.inputs import Example, required_example, tensors_in
from shrinkbench.network.probe import evaluation_mode, require_materialised
from shrinkbench.network.watching import watching_calls
from shrinkbench.network.weights import copy_of
from shrinkbench.pruning.masks import Masks
from shrinkbench.surgery.checking import (
    equal_up_to_rounding,
    forward,
    outputs_in_double,
    probe_inputs,
    require_numbers,
    revealing_copy,
)
from shrinkbench.surgery.dead_units import dead_units, warn_left
from shrinkbench.surgery.operation import Surgery, operate

__all__ = ["LeftWholeWarning", "plan_and_shrink", "shrink"]

_Conv = nn.modules.conv._ConvNd
_Norm = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def shrink(
    module: nn.Module,
    masks: Mapping[str, Tensor],
    input_shape: Example | None = None,
    *,
    example_inputs: Example | None = None,
    select_inputs: bool = True,
) -> nn.Module:
    """A physically smaller copy of ``module`` that computes what ``module`` computes under ``masks``.

    ``input_shape`` is one input's, without the batch dimension, in place of which ``example_inputs`` may be
    given: a tensor, a tuple of arguments, a dictionary of named ones. With ``select_inputs``, a layer that
    ignores channels which others still read gets an index selection in front. Outputs are compared in double
    precision and evaluation mode, every one. A group of channels that is not proven safe to cut is left whole
    and named in a ``LeftWholeWarning``, as are channels whose filters are gone but which still carry a
    constant. ``module`` is left untouched. Raises ``ShrinkbenchError`` where the network cannot be followed.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> keep = torch.tensor([True, False, True, False]).view(1, 4, 1, 1).expand(2, 4, 1, 1)
    >>> shrink(net, {"3.weight": keep}, (3, 8, 8))[0].out_channels
    2
    """
    example = required_example(input_shape, example_inputs)
    return plan_and_shrink(module, masks, example, select_inputs=select_inputs)[0]


def plan_and_shrink(
    module: nn.Module, masks: Mapping[str, Tensor], input_shape: Example, *, select_inputs: bool = True
) -> tuple[nn.Module, Surgery]:
    """As :func:`shrink`, with the description of what was done, which ``operate`` can repeat."""
    require_materialised(module)
    masked = copy_of(module)
    as_masks = masks if isinstance(masks, Masks) else Masks(masks)
    as_masks.apply(masked)
    coupling = couple(module, input_shape)
    revealing = revealing_copy(masked, as_masks)
    dead = dead_units(revealing, as_masks, coupling, input_shape)
    surgery = _plan(revealing, as_masks, coupling, dead, input_shape, select_inputs=select_inputs)
    expected = outputs_in_double(revealing, input_shape)
    require_numbers(expected)
    try:
        found = outputs_in_double(operate(copy_of(revealing), surgery), input_shape)
        same = equal_up_to_rounding(expected, found)
    except (RuntimeError, ValueError, IndexError):  # shapes that do not fit together
        same = False
    if not same:
        raise ShrinkbenchError(
            "the smaller network does not compute what the masked one does, and is not given out; this network "
            "cannot be made smaller with these masks"
        )
    return operate(masked, surgery), surgery


@dataclass
class _Plan:
    """A surgery under construction."""

    kept: dict[str, dict[int, Tensor]] = field(default_factory=dict)  # boolean, one per position
    heads: dict[str, HeadsLeft] = field(default_factory=dict)
    selected: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constant: dict[str, tuple[int, bool]] = field(default_factory=dict)
    zero: list[str] = field(default_factory=list)
    identity: list[str] = field(default_factory=list)

    def keep(self, tensor: str, dim: int, stays: Tensor) -> None:
        dims = self.kept.setdefault(tensor, {})
        dims[dim] = dims[dim] & stays if dim in dims else stays

    def finished(self, masked: nn.Module) -> Surgery:
        # torch normalises one channel at least; none are normal already.
        paths = {n.rpartition(".")[0]: dims for n, dims in self.kept.items()}
        empty = (
            path
            for path, dims in paths.items()
            if isinstance(masked.get_submodule(path), _Norm) and not bool(dims[0].any())
        )
        gone = (*self.zero, *self.identity)
        identity = (*self.identity, *(path for path in empty if not _inside(path, gone)))
        inside = tuple(f"{path}." for path in (*self.zero, *identity))
        kept = {
            name: {d: tuple(stays.nonzero().flatten().tolist()) for d, stays in dims.items() if not stays.all()}
            for name, dims in self.kept.items()
            if not name.startswith(inside) and self._remains(name)
        }
        return Surgery(
            kept={name: dims for name, dims in kept.items() if dims},
            heads={p: n for p, n in self.heads.items() if not _inside(p, (*self.zero, *identity))},
            selected=self.selected,
            constant={
                path: (self._outputs_left(path, channels), bias)
                for path, (channels, bias) in self.constant.items()
                if not _inside(path, identity)
            },
            zero=tuple(path for path in self.zero if not _inside(path, identity)),
            identity=identity,
        )

    def _remains(self, tensor: str) -> bool:
        """Whether a layer that became constant still holds ``tensor``."""
        path, _, name = tensor.rpartition(".")
        return path not in self.constant or (name == "bias" and self.constant[path][1])

    def _outputs_left(self, path: str, channels: int) -> int:
        stays = self.kept.get(f"{path}.weight", {}).get(0)
        return channels if channels == 1 or stays is None else int(stays.sum())


def _plan(
    masked: nn.Module,
    masks: Masks,
    coupling: Coupling,
    dead: Mapping[str, Tensor],
    input_shape: Example,
    *,
    select_inputs: bool,
) -> Surgery:
    plan = _Plan()
    _plan_empty_layers(plan, masked, masks)
    for group in coupling.groups:
        if group.layer not in dead or group.layer in plan.zero:
            continue
        units = dead[group.layer]
        if bool(units.all()):
            if group.kind == "channels" and _is_unheard(plan, group):
                _plan_hollow(plan, masked, group)
                continue
            units = units.clone()
            units[0] = False  # something has to flow where other channels are concatenated
        if group.attention is not None:
            plan.heads[group.attention] = group.heads_left(units)
        for piece in group.slices:
            plan.keep(piece.tensor, piece.dim, ~units[piece.unit] | (piece.unit < 0))
    plan.identity += _identities(masked, masks, plan, input_shape)
    if select_inputs:
        _plan_selections(plan, masked, masks, coupling)
    return plan.finished(masked)


def _plan_empty_layers(plan: _Plan, masked: nn.Module, masks: Masks) -> None:
    """Layers of which the masks leave no weight at all."""
    attention = [path for path, layer in masked.named_modules() if is_attention(layer)]
    for path, layer in masked.named_modules():
        prefix = f"{path}." if path else ""
        mask = masks.get(f"{prefix}weight")
        if mask is None or bool(mask.any()) or not path:
            continue
        keep_bias = _keeps_bias(layer, path, masks)
        inside = next((outer for outer in attention if path.startswith(f"{outer}.")), None)
        if inside is not None:  # attention reads its layers' weights itself
            if path.endswith("proj") and not keep_bias:
                plan.zero.append(inside)
            continue
        if isinstance(layer, nn.Linear) or (isinstance(layer, _Conv) and not layer.transposed):
            plan.constant[path] = (layer.weight.shape[0], keep_bias)
        elif isinstance(layer, _Norm) and not keep_bias:
            plan.zero.append(path)


def _keeps_bias(layer: nn.Module, path: str, masks: Masks) -> bool:
    mask = masks.get(f"{path}.bias")
    return getattr(layer, "bias", None) is not None and (mask is None or bool(mask.any()))


def _is_unheard(plan: _Plan, group: Group) -> bool:
    """Whether every layer that reads the group is constant and reads nothing else."""
    return all(
        s.tensor.rpartition(".")[0] in plan.constant and bool((s.unit >= 0).all())
        for s in group.slices
        if s.role == "consumes"
    ) and all(bool((s.unit >= 0).all()) for s in group.slices)


def _plan_hollow(plan: _Plan, masked: nn.Module, group: Group) -> None:
    """Shrink layers that nothing listens to, to one constant unit that only carries the image's size."""
    for path in (*group.layers("produces"), *group.layers("carries")):
        layer = masked.get_submodule(path)
        if isinstance(layer, _Conv | nn.Linear):
            plan.constant[path] = (_channels_of_a_unit(group, path), False)
        elif path not in plan.zero:
            plan.identity.append(path)


def _channels_of_a_unit(group: Group, path: str) -> int:
    """Several where what follows tells the outputs of a layer apart again: halves (GLU), a pixel shuffle."""
    made = [s.unit for s in group.slices if s.tensor == f"{path}.weight" and s.role != "consumes"]
    return max((int((unit == unit.max()).sum()) for unit in made), default=1)


def _plan_selections(plan: _Plan, masked: nn.Module, masks: Masks, coupling: Coupling) -> None:
    """Inputs that a layer ignores though others read them."""
    gone = {*plan.constant, *plan.zero, *plan.identity}
    direct = [path for path, layer in masked.named_modules() if reads_its_weights_itself(layer)]
    for path, layer in masked.named_modules():
        tensor = f"{path}.weight"
        plain = isinstance(layer, nn.Linear) or (
            isinstance(layer, _Conv) and layer.groups == 1 and not layer.transposed
        )
        if not plain or tensor not in masks or path in gone or _inside(path, plan.identity):
            continue
        read = masks[tensor].any(dim=[d for d in range(masks[tensor].dim()) if d != 1]).cpu()
        arriving = plan.kept.get(tensor, {}).get(1, torch.ones_like(read))
        if not bool((arriving & ~read).any()) or not bool(read.any()):
            continue
        if _inside(path, direct):
            left = int((arriving & ~read).sum())
            warn_left(f"{left} inputs that '{path}' ignores stay in place: attention does not call that layer")
            continue
        stays = arriving & read
        if not bool(stays.any()):  # what it reads has left: a convolution without inputs is none
            plan.constant[path] = (layer.weight.shape[0], _keeps_bias(layer, path, masks))
            continue
        plan.keep(tensor, 1, stays)
        norm = coupling.feeding_norm.get(path)
        at = path
        if norm is not None and norm not in gone:
            at = norm
            for name in ("weight", "bias", "running_mean", "running_var"):
                if isinstance(getattr(masked.get_submodule(norm), name), Tensor):
                    plan.keep(f"{norm}.{name}", 0, stays)
        plan.selected[at] = tuple(stays[arriving].nonzero().flatten().tolist())


def _inside(path: str, outer: Iterable[str]) -> bool:
    return any(path == other or path.startswith(f"{other}.") for other in outer)


def _identities(masked: nn.Module, masks: Masks, plan: _Plan, input_shape: Example) -> list[str]:
    """Outermost modules without a kept parameter that pass on their input: emptied residual blocks.

    Each is asked with random values: what arrives there may itself have become zeros, which tell nothing. Where
    all blocks are empty so is the list that holds them, which nothing calls.
    """
    candidates: list[str] = []
    for path, child in masked.named_modules():
        names = [f"{path}.{name}" for name, _ in child.named_parameters()]
        if not path or not names or not list(child.children()):
            continue
        if all(name in masks and not bool(masks[name].any()) for name in names):
            candidates.append(path)
    arriving: dict[str, list[tuple[Any, Any]]] = {}

    def note(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arriving.setdefault(path, []).append((fresh(args), fresh(kwargs)))

    if candidates:
        with watching_calls({path: masked.get_submodule(path) for path in candidates}, note):
            forward(masked, probe_inputs(masked, input_shape))
    found: list[str] = []
    for path in candidates:  # the outer ones first
        calls = arriving.get(path, [])
        if calls and not _inside(path, found):
            network = masked.get_submodule(path)
            if all(_passes_on(network, args, kwargs) for args, kwargs in calls):
                found.append(path)
    return found


def _passes_on(module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    """Whether ``module`` gives out the first of what it is given: this and random values, of its sign."""
    if not inputs or not isinstance(inputs[0], Tensor) or not inputs[0].is_floating_point():
        return False
    others = [t for t in tensors_in((inputs[1:], dict(named))) if t.is_floating_point()]
    if any(t.shape == inputs[0].shape for t in others):
        return False  # it may pass on either
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(inputs[0].shape, generator=generator).to(inputs[0])
    if inputs[0].numel() and float(inputs[0].min()) >= 0:
        drawn = drawn.abs()
    with evaluation_mode(module), torch.no_grad():
        pairs = [(x, module(x, *fresh(inputs[1:]), **fresh(dict(named)))) for x in (inputs[0], drawn)]
    return all(isinstance(y, Tensor) and torch.equal(x, y) for x, y in pairs)
