"""Collaborative channel pruning (Peng et al. 2019): what channels cost together decides which of them stay."""

from __future__ import annotations

import torch
from torch import Tensor

from shrinkbench.network.coupling import couple
from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.methods.thinet_and_regression import alive_units, kept_counts
from shrinkbench.pruning.structures.channel_masks import masks_of_units
from shrinkbench.pruning.structures.channels import chained_channels, readers, unit_sums

IMAGES = 64  # of which the curvature is taken
_STEPS = 1000


def onto_capped_simplex(values: Tensor, total: int) -> Tensor:
    """The nearest point whose entries lie in [0, 1] and sum to ``total``.

    >>> onto_capped_simplex(torch.tensor([3.0, 0.5, 0.3]), 2).round(decimals=4)
    tensor([1.0000, 0.6000, 0.4000])
    """
    low, high = values.min() - 1, values.max()
    for _ in range(60):
        middle = (low + high) / 2
        if float((values - middle).clamp(0, 1).sum()) > total:
            low = middle
        else:
            high = middle
    return (values - (low + high) / 2).clamp(0, 1)


def relaxed_choice(slope: Tensor, curvature: Tensor, keep: int) -> Tensor:
    """The b in [0, 1], ``sum b = keep``, of the least ``slope'(b - 1) + (b - 1)' curvature (b - 1) / 2``.

    ``curvature`` has no negative eigenvalue, so that the problem is convex; accelerated projected gradients.
    """
    slope, curvature = slope.double(), curvature.double()
    largest = float(torch.linalg.matrix_norm(curvature, 2))
    scale = max(largest, float(slope.abs().max()), 1e-300)
    # Where nothing curves, steps of this length go to the corner that the slope points to.
    rate = 1 / max(largest, 1e-3 * scale)
    b = torch.full_like(slope, keep / len(slope))
    ahead, momentum = b, 1.0
    for _ in range(_STEPS):
        new = onto_capped_simplex(ahead - rate * (slope + curvature @ (ahead - 1)), keep)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / following * (new - b)
        moved, b, momentum = float((new - b).abs().max()), new, following
        if moved < 1e-12:
            break
    return b


def joint_costs(ctx: PruneContext, layers: dict[str, str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each group ``layer -> weight``: ``w_i g_i`` of its channels, and ``w_i H_ij w_j`` of all pairs.

    g is the mean gradient, H the generalised Gauss-Newton matrix over the first 64 images.
    """
    groups = {group.layer: group for group in couple(ctx.module, ctx.example).free if group.layer in layers}

    def of_units(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        products = {layer: ctx.weights[name] * tensors[name] for layer, name in layers.items()}
        return {
            layer: unit_sums(groups[layer], {layers[layer]: product}).double()
            for layer, product in products.items()
        }

    curvatures = {
        layer: torch.zeros(group.units, group.units, dtype=torch.float64) for layer, group in groups.items()
    }
    for vectors in ctx.output_gradients(IMAGES):
        for layer, along in of_units(vectors).items():
            curvatures[layer] += torch.outer(along, along)
    images = min(ctx.image_count, IMAGES)
    slopes = of_units(ctx.gradients)
    return {layer: (slopes[layer], curvatures[layer] / images) for layer in layers}


@pruning_method(
    "collaborative_channel_pruning",
    kind="curvature",
    structure=chained_channels,
    allocation=layerwise,
    needs=("data", "labels", "gradients"),
    batch_count=8,
    reference="peng2019collaborative",
)
@decides("structure", "allocation")
def least_joint_cost(ctx: PruneContext) -> Masks:
    """The channels of a layer whose removal costs least together, by the loss to second order.

    ``sum (b_i - 1) w_i g_i + sum (b_i - 1)(b_j - 1) w_i H_ij w_j / 2`` is made least over b in [0, 1] that sum
    to the number that stays; the largest b stay (Peng et al. 2019).
    """
    _ = ctx.image_count  # without data there is nothing to do
    coupling = couple(ctx.module, ctx.example)
    chosen = readers(ctx, coupling)
    counts = kept_counts(ctx, coupling, chosen)
    groups = {reader.key: reader for reader in chosen}
    layers = {
        key: next(
            s.tensor
            for s in reader.group.slices  # type: ignore[union-attr]  # readers() gives no inputs of streams
            if s.role == "produces" and s.tensor.endswith("weight")
        )
        for key, reader in groups.items()
    }
    masks = Masks({})
    for layer, (slope, curvature) in joint_costs(ctx, layers).items():
        alive = alive_units(ctx, groups[layer]).nonzero().flatten().cpu()
        b = relaxed_choice(slope[alive], curvature[alive][:, alive], counts[layer])
        best = alive[b.argsort(descending=True, stable=True)[: counts[layer]]]
        keep = torch.zeros(groups[layer].units, dtype=torch.bool)
        keep[best] = True
        masks = masks.intersect(masks_of_units(ctx.module, coupling, {layer: keep}))
    return masks
