"""Whole blocks of a network that is a chain of them, such as a transformer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.blocks import passes_on, read_blocks
from shrinkbench.network.view import NetworkView
from shrinkbench.network.weights import weight_parameters
from shrinkbench.pruning.units import STRUCTURES, Grouping, Scores, Structure, Units


def removable_blocks(ctx: NetworkView) -> dict[str, tuple[str, ...]]:
    """Path -> all parameters of each block whose weights are prunable and that passes on what it is given."""
    parameters = dict(ctx.module.named_parameters())
    weights = weight_parameters(ctx.module)
    like = next(iter(parameters.values()))
    inputs = ctx.example.part(0, 1).filled(0).to(like.device, like.dtype)
    found: dict[str, tuple[str, ...]] = {}
    for call in read_blocks(ctx.module, inputs):
        names = tuple(name for name in parameters if name.startswith(f"{call.path}."))
        inside = [name for name in names if name in weights]
        if inside and all(name in ctx.weights for name in inside) and passes_on(ctx.module, call):
            found[call.path] = names
    if not found:
        raise ShrinkbenchError(
            "no block of this network can leave whole: none is beside a shortcut that passes its input on "
            "unchanged; choose the structure branches, heads or channels"
        )
    return found


def _group(ctx: NetworkView, scores: Scores) -> Grouping:
    blocks = removable_blocks(ctx)
    parameters = dict(ctx.module.named_parameters())
    units: dict[str, Units] = {}
    for path, names in blocks.items():
        flat = torch.cat(
            [scores[name].detach().reshape(-1).float().cpu() for name in names if name in ctx.weights]
        )
        gone = flat == -math.inf
        mean = flat.new_tensor(-math.inf) if bool(gone.all()) else flat.masked_fill(gone, 0).mean()
        size = sum(parameters[name].numel() for name in names)
        units[path] = Units(mean.reshape(1), size, scored=len(flat))

    def expand(keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: torch.full_like(parameters[name], bool(stays), dtype=torch.bool)
            for path, stays in keep.items()
            for name in blocks[path]
        }

    return Grouping(units, expand)


whole_blocks = STRUCTURES.add(
    "whole-blocks",
    Structure(
        "whole-blocks",
        "whole blocks of a transformer or another chain, norms and all; their input is passed on",
        _group,
        overlapping=True,  # norms are not prunable on their own: removals are counted, not added up
        one_per_layer=True,
        unit="block",
    ),
)
