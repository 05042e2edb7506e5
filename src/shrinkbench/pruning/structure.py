"""What is removed together.

A structure groups weight-shaped scores into units with one score each, and turns the units that stay back
into masks. The score of a unit is the mean score of its weights, so units of different size can be compared,
and a score that gives each filter one value keeps that value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from shrinkbench.pruning.dataflow import Geometry
from shrinkbench.registry import Registry

if TYPE_CHECKING:
    from shrinkbench.pruning.context import PruneContext, Scores

Keep = dict[str, Tensor]  # group -> which of its units stay, in the shape of its scores


@dataclass(frozen=True)
class Units:
    """The units of one group (as a rule, of one weight tensor), which are pruned independently.

    ``scores`` has one entry per unit, in any shape; ``size`` is how many weights a unit holds, a tensor of
    the scores' shape where units differ. ``first`` marks units that stay as long as any other goes;
    ``least`` is how many units must stay.
    """

    scores: Tensor
    size: int | Tensor = 1
    first: Tensor | None = None
    least: int = 0

    @property
    def total(self) -> int:
        """Weights in all units together."""
        return self.weight_of(None)

    @property
    def least_weight(self) -> int:
        """Weights in the units that must stay, at most."""
        largest = int(self.size.max()) if isinstance(self.size, Tensor) else self.size
        return self.least * largest

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
    weights do not add up, and the budget is found by bisection. ``whole``: no layer has more than one unit.
    ``pattern`` is (n, m) of an N:M structure.
    """

    name: str
    description: str
    group: Callable[[PruneContext, Scores], Grouping]
    overlapping: bool = False
    whole: bool = False
    pattern: tuple[int, int] | None = None


def _from_name(name: str) -> Structure | None:
    """``blocks-8x8`` and ``2:4`` for any numbers."""
    if match := re.fullmatch(r"blocks-([1-9]\d*)x([1-9]\d*)", name):
        return blocks(int(match[1]), int(match[2]))
    if (match := re.fullmatch(r"([1-9]\d*):([1-9]\d*)", name)) and int(match[1]) < int(match[2]):
        return n_of_m(int(match[1]), int(match[2]))
    return None


STRUCTURES: Registry[Structure] = Registry("structure", resolve=_from_name)


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


def part_by_rows(ctx: PruneContext, name: str) -> Part:
    """One unit per output: the rows of a matrix, the filters of a convolution, the entries of a bias."""
    geometry = ctx.geometry(name)
    rows = geometry.rows(ctx.weights[name]).shape

    def scatter(keep: Tensor) -> Tensor:
        return geometry.restore(keep.reshape(-1, *[1] * (len(rows) - 1)).expand(rows))

    return Part(name, lambda t: geometry.rows(t).reshape(rows[0], -1), scatter)


def part_by_columns(ctx: PruneContext, name: str) -> Part:
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


def _weights(ctx: PruneContext, scores: Scores) -> Grouping:
    return Grouping({name: Units(scores[name]) for name in ctx.weights}, dict)


weights = STRUCTURES.add("weights", Structure("weights", "single weights (unstructured)", _weights))


def blocks(height: int, width: int) -> Structure:
    """Blocks of ``height`` outputs x ``width`` inputs of a weight laid out as (outputs, inputs x kernel).

    Blocks at the edge are smaller where the sizes do not divide.
    """

    def group(ctx: PruneContext, scores: Scores) -> Grouping:
        units = {name: block_units(scores[name], ctx.geometry(name)) for name in ctx.weights}

        def expand(keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: spread(keep[name], w.shape, ctx.geometry(name)) for name, w in ctx.weights.items()}

        return Grouping(units, expand)

    def tiles(matrix: Tensor) -> Tensor:
        """(rows of blocks, columns of blocks, height x width), edges filled with NaN."""
        down, right = -matrix.shape[0] % height, -matrix.shape[1] % width
        padded = torch.nn.functional.pad(matrix, (0, right, 0, down), value=math.nan)
        split = padded.unfold(0, height, height).unfold(1, width, width)
        return split.reshape(*split.shape[:2], -1)

    def block_units(score: Tensor, geometry: Geometry) -> Units:
        tiled = tiles(geometry.rows(score).reshape(len(geometry.rows(score)), -1))
        inside = ~tiled.isnan()
        sizes = inside.sum(-1)
        gone = tiled == -math.inf
        sums = tiled.masked_fill(gone | ~inside, 0).sum(-1)
        means = (sums / sizes).masked_fill((gone | ~inside).all(-1), -math.inf)
        return Units(means, height * width if bool(inside.all()) else sizes)

    def spread(keep: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
        rows = geometry.rows(torch.empty(shape, device="meta")).shape
        matrix = keep.repeat_interleave(height, 0).repeat_interleave(width, 1)
        return geometry.restore(matrix[: rows[0], : math.prod(rows[1:])].reshape(rows)).contiguous()

    return Structure(f"blocks-{height}x{width}", f"blocks of {height} outputs x {width} inputs", group)


blocks_4x4 = STRUCTURES.add("blocks-4x4", blocks(4, 4))


def n_of_m(n: int, m: int) -> Structure:
    """At most ``n`` of every ``m`` consecutive weights along the input channels stay.

    The ``n`` best of each run of ``m`` come before all others, so the pattern holds wherever the budget is
    no more than n/m of the weights; above it, the best of the others stay too. A layer whose inputs (per
    group) are no multiple of ``m`` cannot hold the pattern and is kept whole as long as the budget allows.
    """

    def group(ctx: PruneContext, scores: Scores) -> Grouping:
        units = {
            name: Units(scores[name], first=_first(scores[name], ctx.geometry(name))) for name in ctx.weights
        }
        return Grouping(units, dict)

    def _first(score: Tensor, geometry: Geometry) -> Tensor:
        rows = geometry.rows(score)
        if rows.ndim < 2 or rows.shape[1] % m:
            return score > -math.inf
        runs = rows.movedim(1, -1).reshape(-1, m)
        best = runs.argsort(dim=1, descending=True, stable=True)[:, :n]
        first = torch.zeros_like(runs, dtype=torch.bool).scatter_(1, best, value=True)
        outputs, inputs, *kernel = rows.shape
        placed = first.reshape(outputs, *kernel, inputs).movedim(-1, 1)
        return geometry.restore(placed).contiguous() & (score > -math.inf)

    description = f"at most {n} of every {m} weights along the input channels"
    return Structure(f"{n}:{m}", description, group, pattern=(n, m))


two_of_four = STRUCTURES.add("2:4", n_of_m(2, 4))
four_of_eight = STRUCTURES.add("4:8", n_of_m(4, 8))


def _kernels(ctx: PruneContext, scores: Scores) -> Grouping:
    parts = {}
    for name, w in ctx.weights.items():
        pairs, shape = math.prod(w.shape[:2]), w.shape
        parts[name] = [
            Part(
                name,
                lambda t, pairs=pairs: t.reshape(pairs, -1),  # type: ignore[misc]  # binds the loop's value
                lambda keep, shape=shape: keep.reshape(*shape[:2], *[1] * len(shape[2:])).expand(shape),  # type: ignore[misc]
            )
        ]
    return grouping_of(scores, parts)


kernels = STRUCTURES.add(
    "kernels",
    Structure("kernels", "kernels: the weights between one input and one output channel", _kernels),
)


def _filters(ctx: PruneContext, scores: Scores) -> Grouping:
    return grouping_of(scores, {name: [part_by_rows(ctx, name)] for name in ctx.weights}, least=1)


filters = STRUCTURES.add(
    "filters",
    Structure("filters", "filters: all weights of one output; one at least stays in each layer", _filters),
)


def _input_channels(ctx: PruneContext, scores: Scores) -> Grouping:
    parts = {name: [part_by_columns(ctx, name)] for name, w in ctx.weights.items() if w.ndim > 1}
    return grouping_of(scores, parts, least=1)


input_channels = STRUCTURES.add(
    "input-channels",
    Structure(
        "input-channels",
        "input channels: all weights that read one input; one at least stays in each layer",
        _input_channels,
    ),
)
