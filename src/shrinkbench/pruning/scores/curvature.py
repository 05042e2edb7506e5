"""Second-order scores from the diagonal of the curvature: Optimal Brain Damage and its kin."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor

from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.schedules import dynamic as during
from shrinkbench.pruning.units import Scores

_NEEDS = ("data", "labels", "gradients")
_IMAGES = 256  # of which the empirical Fisher information is taken
_PROBES = 8  # random vectors for the diagonal of the Hessian


def fisher_diagonal(ctx: PruneContext) -> dict[str, Tensor]:
    """Mean over images of ``(dL/dw)^2``: the diagonal of the empirical Fisher information."""
    sums = {name: torch.zeros_like(w) for name, w in ctx.weights.items()}
    images = 0
    for gradients in islice(ctx.image_gradients(), _IMAGES):
        images += 1
        for name, gradient in gradients.items():
            sums[name].addcmul_(gradient, gradient)
    return {name: total.div_(images) for name, total in sums.items()}


@pruning_method("obd", kind="curvature", needs=_NEEDS, batch_count=4, reference="lecun1990optimal")
def obd_fisher(ctx: PruneContext) -> Scores:
    """``h w^2 / 2`` with h the diagonal of the empirical Fisher information, over up to 256 images."""
    return {name: h.mul_(ctx.weights[name].square()).div_(2) for name, h in fisher_diagonal(ctx).items()}


@pruning_method("obd_hutchinson", kind="curvature", needs=_NEEDS, batch_count=2, reference="yao2021adahessian")
def obd_hutchinson(ctx: PruneContext) -> Scores:
    """``h w^2 / 2`` with h the diagonal of the Hessian, as the mean of ``v * (H v)`` over random signs v.

    The estimate has negative entries where the loss is not convex; these score lowest.
    """
    sums = {name: torch.zeros_like(w) for name, w in ctx.weights.items()}
    for _ in range(_PROBES):
        signs = {name: ctx.uniform(w) < 0.5 for name, w in ctx.weights.items()}
        for name, product in ctx.hessian_product(signs).items():
            sums[name] += torch.where(signs[name], product, -product)
    return {name: h.mul_(ctx.weights[name].square()).div_(2 * _PROBES) for name, h in sums.items()}


@pruning_method(
    "early_brain_damage",
    kind="curvature",
    allocation=layerwise,
    schedule=during.soft,
    needs=_NEEDS,
    batch_count=4,
    reference="tresp1997early",
)
def early_brain_damage(ctx: PruneContext) -> Scores:
    """``h (w - g/h)^2 / 2``: Optimal Brain Damage for training that has not converged.

    With ``g = dL/dw``, ``w - g/h`` is where the weight is heading, so that a pruned weight comes back if the
    loss wants it away from zero. h is the diagonal of the empirical Fisher information. The farther from a
    minimum, the more g decides and the less w does.
    """
    totals = {name: torch.zeros_like(w) for name, w in ctx.weights.items()}
    squares = {name: torch.zeros_like(w) for name, w in ctx.weights.items()}
    images = 0
    for gradients in islice(ctx.image_gradients(), _IMAGES):
        images += 1
        for name, gradient in gradients.items():
            totals[name] += gradient
            squares[name].addcmul_(gradient, gradient)
    scores = {}
    for name, square in squares.items():
        g, h = totals.pop(name).div_(images), square.div_(images)
        # (h w - g)^2 / 2 h; where h is 0 over these images, so is g, and the weight does nothing.
        scores[name] = g.addcmul_(h, ctx.weights[name], value=-1).square_().div_(h).div_(2)
        scores[name].masked_fill_(h == 0, 0)
    return scores
