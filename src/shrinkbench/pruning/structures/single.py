"""What is removed together.

A structure groups weight-shaped scores into units with one score each, and turns the units that stay back
into masks. The score of a unit is the mean score of its weights, so units of different size can be compared,
and a score that gives each filter one value keeps that value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from shrinkbench.network.dataflow import Geometry
from shrinkbench.network.view import NetworkView
from shrinkbench.pruning.units import (
    SINGLE_WEIGHTS,
    STRUCTURES,
    Grouping,
    Part,
    Scores,
    Structure,
    Units,
    grouping_of,
    part_by_columns,
    part_by_rows,
)


@STRUCTURES.add_resolver
def _from_name(name: str) -> Structure | None:
    """``blocks-8x8`` and ``2:4`` for any numbers."""
    if match := re.fullmatch(r"blocks-([1-9][0-9]{0,8})x([1-9][0-9]{0,8})", name):
        return blocks(int(match[1]), int(match[2]))
    if (match := re.fullmatch(r"([1-9][0-9]{0,8}):([1-9][0-9]{0,8})", name)) and int(match[1]) < int(match[2]):
        return n_of_m(int(match[1]), int(match[2]))
    return None


weights = STRUCTURES.add("weights", SINGLE_WEIGHTS)


def blocks(height: int, width: int) -> Structure:
    """Blocks of ``height`` outputs x ``width`` inputs of a weight laid out as (outputs, inputs x kernel).

    Blocks at the edge are smaller where the sizes do not divide.
    """

    def group(ctx: NetworkView, scores: Scores) -> Grouping:
        units = {name: block_units(scores[name], ctx.geometry(name)) for name in ctx.weights}

        def expand(keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: spread(keep[name], w.shape, ctx.geometry(name)) for name, w in ctx.weights.items()}

        return Grouping(units, expand)

    def tiles(matrix: Tensor) -> Tensor:
        """(rows of blocks, columns of blocks, height x width), edges filled with NaN; a layer at most."""
        tall, wide = min(height, matrix.shape[0]), min(width, matrix.shape[1])
        down, right = -matrix.shape[0] % tall, -matrix.shape[1] % wide
        padded = torch.nn.functional.pad(matrix, (0, right, 0, down), value=math.nan)
        split = padded.unfold(0, tall, tall).unfold(1, wide, wide)
        return split.reshape(*split.shape[:2], -1)

    def block_units(score: Tensor, geometry: Geometry) -> Units:
        tiled = tiles(geometry.rows(score).reshape(len(geometry.rows(score)), -1))
        inside = ~tiled.isnan()
        sizes = inside.sum(-1)
        gone = tiled == -math.inf
        sums = tiled.masked_fill(gone | ~inside, 0).sum(-1)
        means = (sums / sizes).masked_fill((gone | ~inside).all(-1), -math.inf)
        return Units(means, tiled.shape[-1] if bool(inside.all()) else sizes)

    def spread(keep: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
        rows = geometry.rows(torch.empty(shape, device="meta")).shape
        columns = math.prod(rows[1:])
        matrix = keep.repeat_interleave(min(height, rows[0]), 0).repeat_interleave(min(width, columns), 1)
        return geometry.restore(matrix[: rows[0], :columns].reshape(rows)).contiguous()

    return Structure(
        f"blocks-{height}x{width}", f"blocks of {height} outputs x {width} inputs", group, unit="block"
    )


blocks_4x4 = STRUCTURES.add("blocks-4x4", blocks(4, 4))


def n_of_m(n: int, m: int) -> Structure:
    """At most ``n`` of every ``m`` consecutive weights along the input channels stay.

    The ``n`` best of each run of ``m`` come before all others, so the pattern holds wherever the budget is
    no more than n/m of the weights; above it, the best of the others stay too. A layer whose inputs (per
    group) are no multiple of ``m`` cannot hold the pattern and is kept whole as long as the budget allows.
    """

    def group(ctx: NetworkView, scores: Scores) -> Grouping:
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
    return Structure(f"{n}:{m}", description, group, unit="weight", pattern=(n, m))


two_of_four = STRUCTURES.add("2:4", n_of_m(2, 4))
four_of_eight = STRUCTURES.add("4:8", n_of_m(4, 8))


def _kernels(ctx: NetworkView, scores: Scores) -> Grouping:
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
    Structure(
        "kernels", "kernels: the weights between one input and one output channel", _kernels, unit="kernel"
    ),
)


def _filters(ctx: NetworkView, scores: Scores) -> Grouping:
    return grouping_of(scores, {name: [part_by_rows(ctx, name)] for name in ctx.weights}, least=1)


filters = STRUCTURES.add(
    "filters",
    Structure(
        "filters",
        "filters: all weights of one output; one at least stays in each layer",
        _filters,
        unit="filter",
    ),
)


def _input_channels(ctx: NetworkView, scores: Scores) -> Grouping:
    parts = {name: [part_by_columns(ctx, name)] for name, w in ctx.weights.items() if w.ndim > 1}
    return grouping_of(scores, parts, least=1)


input_channels = STRUCTURES.add(
    "input-channels",
    Structure(
        "input-channels",
        "input channels: all weights that read one input; one at least stays in each layer",
        _input_channels,
        unit="input channel",
    ),
)
