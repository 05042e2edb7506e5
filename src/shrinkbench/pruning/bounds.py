"""What may leave a layer, whatever the amount: channels in multiples, a largest share, or nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import couple
from shrinkbench.network.view import NetworkView
from shrinkbench.network.weights import layer_of
from shrinkbench.pruning.top_k import keep_highest
from shrinkbench.pruning.units import Grouping, Keep, Structure, Units
from shrinkbench.spec.axes import CHANNELS


@dataclass(frozen=True)
class Bounds:
    """Limits on what leaves each layer; the others make up for what they hold back.

    ``round_to``: every group of channels keeps a multiple of it, or stays whole. ``ignore``: paths of layers,
    ``*`` and ``?`` allowed, that lose none of their own units; inputs that no layer produces any more leave
    them still. ``max_ratio``: the largest fraction of a layer's units that leaves.

    >>> Bounds(round_to=8).least(64, 1), Bounds(max_ratio=0.5).least(9, 1), Bounds(round_to=8).least(4, 1)
    (8, 5, 4)
    """

    round_to: int = 1
    ignore: tuple[str, ...] = ()
    max_ratio: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.round_to, bool) or not isinstance(self.round_to, int) or self.round_to < 1:
            raise ShrinkbenchError(f"round_to = {self.round_to!r} is not a whole number of at least 1")
        if not 0 < self.max_ratio <= 1:
            raise ShrinkbenchError(
                f"max_ratio = {self.max_ratio!r} is not a fraction above 0 and up to 1; it is the largest "
                "share of a layer's units that leaves"
            )

    @property
    def hold(self) -> bool:
        """Whether anything is bounded."""
        return self != Bounds()

    def least(self, units: int, least: int) -> int:
        """How many of ``units`` have to stay, where ``least`` have to anyway."""
        stay = max(least, math.ceil(units * (1 - self.max_ratio) - 1e-9), min(self.round_to, units))
        return min(units, math.ceil(stay / self.round_to) * self.round_to)

    def round(self, units: Mapping[str, Units], keep: Keep) -> Keep:
        """``keep`` with the lowest units gone until every group keeps a multiple, unless it stays whole."""
        if self.round_to == 1:
            return keep
        return {name: self._round(units[name], mask) for name, mask in keep.items()}

    def _round(self, units: Units, mask: Tensor) -> Tensor:
        count = int(mask.sum())
        excess = 0 if count == mask.numel() else count % self.round_to
        if not excess or count < self.round_to:
            return mask
        chosen = keep_highest({"": units.scores[mask]}, count - excess)[""]
        rounded = mask.clone()
        rounded[mask] = chosen
        return rounded


def bounded(grouping: Grouping, bounds: Bounds, structure: Structure, ctx: NetworkView) -> Grouping:
    """``grouping`` whose layers have to keep what ``bounds`` say."""
    if not bounds.hold:
        return grouping
    if structure.pattern is not None:
        raise ShrinkbenchError(
            f"structure '{structure.name}' keeps {structure.pattern[0]} of {structure.pattern[1]} everywhere, "
            "so that round_to, ignore and max_ratio cannot be asked of it; leave them out"
        )
    if bounds.round_to > 1 and structure.unit not in CHANNELS:
        raise ShrinkbenchError(
            f"round_to rounds channels, and structure '{structure.name}' removes units of another kind "
            f"({structure.unit}); leave it out, or choose a method over channels or filters"
        )
    ignored = _ignored(grouping.units, bounds.ignore, structure, ctx)
    units = {}
    for name, found in grouping.units.items():
        count = found.scores.numel()
        alive = int((found.scores > -math.inf).sum())
        least = count if name in ignored else bounds.least(count, found.least)
        units[name] = replace(found, least=min(least, alive))
    return Grouping(units, grouping.expand)


def _ignored(
    groups: Iterable[str], patterns: Iterable[str], structure: Structure, ctx: NetworkView
) -> frozenset[str]:
    """The groups that some layer of ``patterns`` produces."""
    patterns = tuple(patterns)
    if not patterns:
        return frozenset()
    members = {name: {name, layer_of(name) if name in ctx.weights else name} for name in groups}
    if structure.unit in CHANNELS:
        for group in couple(ctx.module, ctx.input_shape).groups:
            if group.layer in members:
                members[group.layer].update(group.layers("produces"))
    layers = {path for path, _ in ctx.module.named_modules()} | {n for n, _ in ctx.module.named_parameters()}
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise ShrinkbenchError(
                f"ignore: no layer of the network is called '{pattern}'; give paths as named_modules() has them"
            )
    return frozenset(
        name
        for name, layers in members.items()
        if any(_is_within(layer, pattern) for layer in layers for pattern in patterns)
    )


def _is_within(layer: str, pattern: str) -> bool:
    """Whether ``pattern`` names the layer or a module that holds it."""
    parts = layer.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))
