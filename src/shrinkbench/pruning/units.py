"""The words of pruning: scores of weights, units that are removed together, structures that make units."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from shrinkbench.network.view import NetworkView
from shrinkbench.registry import Registry

Scores = Mapping[str, Tensor]  # parameter name -> tensor of the parameter's shape; higher = keep
Keep = dict[str, Tensor]  # group -> which of its units stay, in the shape of its scores


@dataclass(frozen=True)
class Units:
    """The units of one group (as a rule, of one weight tensor), which are pruned independently.

    ``scores`` has one entry per unit, in any shape; ``size`` is how many weights a unit holds, a tensor of
    the scores' shape where units differ. ``first`` marks units that stay as long as any other goes;
    ``least`` is how many units must stay. ``scored`` is over how many weights a score is the mean, where
    that is not all of ``size``: biases and batch norms leave with a unit and have no score.
    """

    scores: Tensor
    size: int | Tensor = 1
    first: Tensor | None = None
    least: int = 0
    scored: int | Tensor | None = None

    @property
    def single(self) -> bool:
        """Whether each unit is one weight."""
        return isinstance(self.size, int) and self.size == 1

    @property
    def sums(self) -> Tensor:
        """Sum over the scored weights of each unit, of which ``scores`` are the means."""
        count = self.size if self.scored is None else self.scored
        return self.scores if isinstance(count, int) and count == 1 else self.scores * count

    @property
    def total(self) -> int:
        """Weights in all units together."""
        return self.weight_of(None)

    @property
    def least_weight(self) -> int:
        """Weights in the units that must stay, at most: those of the largest."""
        if isinstance(self.size, Tensor):
            return int(self.size.reshape(-1).topk(min(self.least, self.size.numel())).values.sum())
        return self.least * self.size

    def weight_of(self, keep: Tensor | None) -> int:
        """Weights in the units that ``keep`` marks (``None``: in all)."""
        if isinstance(self.size, Tensor):
            return int((self.size if keep is None else self.size[keep]).sum())
        return self.size * (self.scores.numel() if keep is None else int(keep.sum()))


@dataclass(frozen=True)
class UnitScores:
    """What a method returns that scores units, not weights: group -> score of each unit of its structure."""

    scores: Mapping[str, Tensor]


@dataclass(frozen=True)
class Grouping:
    """Units by group, and ``expand``: from the units that stay to masks by parameter.

    Weights that belong to no unit get no mask; they stay.
    """

    units: Mapping[str, Units]
    expand: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Structure:
    """A named rule ``(context, scores) -> Grouping``.

    ``overlapping``: a weight may belong to several units (it stays if all of them stay), so that removed
    weights do not add up, and the budget is found by bisection. ``one_per_layer``: no layer has more than one
    unit. ``unit`` is what a unit is called; ``channel`` and ``filter`` are what a fraction of channels counts.
    ``pattern`` is (n, m) of an N:M structure. ``takes_tables``: it has units in an embedding as well,
    which is looked up and multiplies nothing. ``exchangeable``: it stays what it is where one weight of a layer
    takes the place of another. ``version`` is raised when the rule changes.
    """

    name: str
    description: str
    group: Callable[[NetworkView, Scores], Grouping]
    overlapping: bool = False
    one_per_layer: bool = False
    unit: str = "unit"
    pattern: tuple[int, int] | None = None
    takes_tables: bool = False
    exchangeable: bool = False
    version: int = 1


STRUCTURES: Registry[Structure] = Registry("structure", of=Structure)


def _weights(ctx: NetworkView, scores: Scores) -> Grouping:
    return Grouping({name: Units(scores[name]) for name in ctx.weights}, dict)


SINGLE_WEIGHTS = Structure(
    "weights",
    "single weights (unstructured)",
    _weights,
    unit="weight",
    takes_tables=True,
    exchangeable=True,
)


def mean_score(scores: Tensor, dim: int) -> Tensor:
    """Mean along ``dim``; ``-inf`` marks weights that are gone already and a unit all of them makes up."""
    gone = scores == -math.inf
    if not bool(gone.any()):
        return scores.mean(dim)
    return scores.masked_fill(gone, 0).mean(dim).masked_fill(gone.all(dim), -math.inf)


@dataclass(frozen=True)
class Part:
    """The share of one parameter in the units of a group.

    ``gather`` lays a tensor of the parameter's shape out as (units, weights per unit); ``scatter`` spreads
    one boolean per unit over the parameter's shape.
    """

    parameter: str
    gather: Callable[[Tensor], Tensor]
    scatter: Callable[[Tensor], Tensor]


def part_by_rows(ctx: NetworkView, name: str) -> Part:
    """One unit per output: the rows of a matrix, the filters of a convolution, the entries of a bias."""
    geometry = ctx.geometry(name)
    rows = geometry.rows(ctx.weights[name]).shape

    def scatter(keep: Tensor) -> Tensor:
        return geometry.restore(keep.reshape(-1, *[1] * (len(rows) - 1)).expand(rows))

    return Part(name, lambda t: geometry.rows(t).reshape(rows[0], -1), scatter)


def part_by_columns(ctx: NetworkView, name: str) -> Part:
    """One unit per input of a group: the columns of a matrix, the input slices of a convolution."""
    geometry = ctx.geometry(name)
    shape = geometry.rows(ctx.weights[name]).shape
    outputs, inputs, *kernel = shape
    groups = geometry.groups

    def gather(tensor: Tensor) -> Tensor:
        split = geometry.rows(tensor).reshape(groups, outputs // groups, inputs, *kernel)
        return split.transpose(1, 2).reshape(groups * inputs, -1)

    def scatter(keep: Tensor) -> Tensor:
        columns = keep.reshape(groups, 1, inputs, *[1] * len(kernel))
        return geometry.restore(columns.expand(groups, outputs // groups, inputs, *kernel).reshape(shape))

    return Part(name, gather, scatter)


def grouping_of(scores: Scores, groups: Mapping[str, Iterable[Part]], *, least: int = 0) -> Grouping:
    """The grouping whose units consist of parts of one or more parameters."""
    units, parts = {}, {name: tuple(members) for name, members in groups.items()}
    for name, members in parts.items():
        gathered = torch.cat([part.gather(scores[part.parameter]) for part in members], dim=1)
        units[name] = Units(mean_score(gathered, 1), size=gathered.shape[1], least=least)

    def expand(keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
        masks: dict[str, Tensor] = {}
        for name, members in parts.items():
            for part in members:
                mask = part.scatter(keep[name]).contiguous()
                masks[part.parameter] = masks[part.parameter] & mask if part.parameter in masks else mask
        return masks

    return Grouping(units, expand)
