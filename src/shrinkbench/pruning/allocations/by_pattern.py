"""Pruning guided by a pattern: where others were pruned tells how much of each stage stays.

``METHOD[allocation=pattern:FILE]`` keeps of every stage in proportion to what the networks behind FILE kept,
and picks inside a stage by METHOD's own score: Guided Pruning with channels, Guided Sparsification with single
weights (Liu et al. 2019, Section 5). The pattern may come from another network and other data with as many
stages. `shrinkbench patterns` writes such files.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from shrinkbench.errors import InputError, ShrinkbenchError
from shrinkbench.files import is_file, parse_json, read_file, write_atomically
from shrinkbench.network.stages import same_stages, stages_of
from shrinkbench.pruning.allocations.rules import (
    ALLOCATIONS,
    Allocation,
    fill,
    keep_best,
    keep_counts,
    limits_of,
    whole_units,
)
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.units import Keep, Units
from shrinkbench.spec import Value, parse_value

_LEAST = 1e-6  # a share of nothing gets what is left over when all others are full


class ShapePoint(Value):
    """The shares at one compression: one per stage, or one per stage and position of a square kernel."""

    compression: float = Field(ge=1)
    networks: int = Field(ge=1)
    stages: tuple[tuple[float, ...], ...] = Field(min_length=1)


class Pattern(Value):
    """Shares of channels or of kernel positions that were kept in each stage, at one compression or several."""

    format: Literal[1] = 1
    kind: Literal["channels", "kernels"]
    source: str
    points: tuple[ShapePoint, ...] = Field(min_length=1)

    def at(self, compression: float) -> ShapePoint:
        """The point whose compression is nearest on a logarithmic scale."""
        return min(self.points, key=lambda point: abs(math.log(point.compression / compression)))

    def save(self, path: Path) -> None:
        """Write the pattern as JSON."""
        text = json.dumps(self.model_dump(mode="json"), indent=1)
        write_atomically(path, f"{text}\n".encode())

    @classmethod
    def load(cls, path: Path) -> Pattern:
        """Read a pattern written by :meth:`save`."""
        try:
            data = parse_json(read_file(path, most=16 << 20))
        except (OSError, ValueError) as error:
            raise ShrinkbenchError(
                f"cannot read a pattern from {path}: {error}; write one with `shrinkbench patterns --out`"
            ) from None
        if not isinstance(data, dict):
            raise ShrinkbenchError(f"{path} is no pattern; write one with `shrinkbench patterns --out`")
        return parse_value(cls, data, where=str(path))


def _channels(source: str, shares: Mapping[float, tuple[float, ...]]) -> Pattern:
    points = (
        ShapePoint(compression=c, networks=5, stages=tuple((s,) for s in stages))
        for c, stages in shares.items()
    )
    return Pattern(kind="channels", source=source, points=tuple(points))


# Compressions are those of the networks that the shares make, means of five runs.
PUBLISHED = {
    "liu2019-vgg16": _channels(
        "Liu et al. 2019, Table 21: VGG-16 on CIFAR-10 by network slimming, 10 to 60 % of channels removed",
        {
            1.2714: (0.969, 1.0, 0.991, 0.861, 0.871),
            1.6584: (0.914, 1.0, 0.975, 0.718, 0.751),
            2.2482: (0.883, 1.0, 0.966, 0.575, 0.626),
            3.1479: (0.875, 1.0, 0.957, 0.446, 0.486),
            4.5613: (0.844, 1.0, 0.947, 0.312, 0.352),
            6.2936: (0.836, 1.0, 0.947, 0.258, 0.132),
        },
    ),
}


@ALLOCATIONS.add_resolver
def _from_name(name: str) -> Allocation | None:
    """``pattern:NAME`` and ``pattern:FILE``, the shares of another network's stages."""
    family, colon, text = name.partition(":")
    return allocation_of(text) if family == "pattern" and colon else None


def allocation_of(text: str) -> Allocation:
    """The allocation by the pattern ``text``: a published one's name, or a file.

    The allocation's name carries a digest of the content, so that runs by an edited file are other runs.
    """
    name, _, expected = text.partition("#")
    pattern = PUBLISHED.get(name) or Pattern.load(_find_file(name))
    digest = hashlib.sha256(pattern.model_dump_json().encode()).hexdigest()[:8]
    if expected and expected != digest:
        raise InputError(
            f"the pattern {name} has changed since ({digest}, it was {expected}); bring the old one back, or "
            "run the sweep again"
        )

    def decide(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Keep:
        rule = _by_channels if pattern.kind == "channels" else _by_positions
        return rule(pattern.at(ctx.target), units, budget, ctx)

    return Allocation(
        f"pattern:{name}#{digest}", f"the shares per stage of {pattern.source}", decide, scope="given"
    )


def _find_file(name: str) -> Path:
    path = Path(name)
    if not is_file(path):
        raise ShrinkbenchError(
            f"there is no pattern '{name}'; write one with `shrinkbench patterns --out {name}`, or use "
            f"{', '.join(PUBLISHED)}"
        )
    return path


def _stage_of(units: Mapping[str, Units], point: ShapePoint, ctx: PruneContext) -> dict[str, int]:
    """Stage of every group, from 0; layers behind the last map (linear ones) count as its last stage."""
    stages = stages_of(ctx.module, ctx.example)
    same_stages(stages, dict(enumerate(point.stages, start=1)))
    last = len(point.stages)
    return {name: stages.get(name, stages.get(name.removesuffix(".weight"), last)) - 1 for name in units}


def _by_channels(point: ShapePoint, units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Keep:
    """Of every group as much as its stage's share says, all shares scaled alike to spend the budget."""
    stage = _stage_of(units, point, ctx)
    weights = {name: u.total * max(point.stages[stage[name]][0], _LEAST) for name, u in units.items()}
    return keep_counts(units, whole_units(units, fill(weights, limits_of(units), budget), budget))


def _by_positions(point: ShapePoint, units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Keep:
    """The same for every position of every kernel; kernels of another size keep the stage's mean share."""
    stage = _stage_of(units, point, ctx)
    split: dict[str, Units] = {}
    weights: dict[str, float] = {}
    for name, u in units.items():
        if not u.single or name not in ctx.weights or u.scores.shape != ctx.weights[name].shape:
            raise ShrinkbenchError(
                "a pattern of kernels tells which single weights stay; use it with structure "
                "'convolution-weights' or 'weights'"
            )
        shares = point.stages[stage[name]]
        columns = u.scores.flatten(2).flatten(0, 1) if u.scores.dim() > 2 else u.scores.reshape(-1, 1)
        fits = columns.shape[1] == len(shares)
        for position, column in enumerate(columns.unbind(1)):
            split[f"{name}@{position}"] = Units(column)
            share = shares[position] if fits else sum(shares) / len(shares)
            weights[f"{name}@{position}"] = column.numel() * max(share, _LEAST)
    counts = whole_units(split, fill(weights, limits_of(split), budget), budget)
    return {name: _join(name, u, split, counts) for name, u in units.items()}


def _join(name: str, units: Units, split: Mapping[str, Units], counts: Mapping[str, int]) -> Tensor:
    """The kept weights of all positions, in the shape of the weight."""
    positions = units.scores[0, 0].numel() if units.scores.dim() > 2 else 1
    columns = [
        keep_best({key: split[key]}, counts[key])[key]
        for key in (f"{name}@{position}" for position in range(positions))
    ]
    return torch.stack(columns, dim=1).reshape(units.scores.shape)
