"""Allocations that read from data how many outstanding weights a layer holds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shrinkbench.network.blocks import read_blocks
from shrinkbench.network.observation import Product
from shrinkbench.pruning.allocations.rules import by_layer, fill, limits_of, weight_of
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.units import Units

_TIMES = 5.0  # M of the paper: an outlier is so many times the mean of its block
_SPREAD = 0.08  # lambda of the paper: densities lie within this distance of the mean


def input_norms(ctx: PruneContext) -> dict[str, Tensor]:
    """The L2 norm of what each weight multiplies, over all batches, in the weight's shape; biases have none."""
    sums: dict[str, Tensor] = {}

    def visit(product: Product) -> None:
        squares = product.column_sums(torch.square)
        known = sums.get(product.parameter)
        sums[product.parameter] = squares if known is None else known + squares

    ctx.observe(visit)
    return {name: ctx.per_column(name, total.sqrt()) for name, total in sums.items()}


def outlier_ratio(parts: list[Tensor]) -> float:
    """The fraction of all entries that are above five times the mean of all.

    >>> outlier_ratio([torch.ones(3, 3), torch.tensor([101.0])])
    0.1
    """
    entries = sum(part.numel() for part in parts)
    line = _TIMES * sum(float(part.double().sum()) for part in parts) / entries
    return sum(int((part > line).sum()) for part in parts) / entries


def outlier_shares(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> dict[str, float]:
    """Weights to keep in each layer by the outliers of its block, ``budget`` in all (see :func:`owl`)."""
    norms = input_norms(ctx)
    paths = [call.path for call in read_blocks(ctx.module, next(ctx.each_batch()).inputs.fewest)]
    groups: dict[str, list[str]] = {}
    for name in units:
        weight = weight_of(name, ctx, "owl")
        block = next((path for path in paths if name.startswith(f"{path}.")), name)
        if weight.ndim > 1:
            groups.setdefault(block, []).append(name)
    ratios = {
        block: outlier_ratio([ctx.weights[name].abs() * norms[name] for name in names])
        for block, names in groups.items()
    }
    sizes = {block: sum(units[name].total for name in names) for block, names in groups.items()}
    low, high = min(ratios.values()), max(ratios.values())
    places = {block: (ratio - low) / (high - low) if high > low else 0.5 for block, ratio in ratios.items()}
    centre = sum(places[block] * size for block, size in sizes.items()) / sum(sizes.values())
    density = budget / sum(units[name].total for name in units)
    found = dict.fromkeys(units, density)
    for block, names in groups.items():
        found |= dict.fromkeys(names, density + 2 * _SPREAD * (places[block] - centre))
    return {name: max(units[name].total * share, 1e-6) for name, share in found.items()}


@by_layer("owl", by_values=True, needs=("data",))
def owl(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Mapping[str, float]:
    """Density of a block linear in its ratio of outliers (OWL, Yin et al. 2024).

    An outlier is a weight whose ``|w|`` times the norm of the inputs that it multiplies is above 5 times the
    mean of its block. Densities differ by 0.16 at most, around the mean; the layers of a block have one. Where
    a network has no blocks, each layer is its own.
    """
    return fill(outlier_shares(units, budget, ctx), limits_of(units), budget)
