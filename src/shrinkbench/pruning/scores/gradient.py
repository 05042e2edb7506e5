"""First-order scores: what the loss would do if a weight, filter, head, neuron or block were zero."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.schedules import before_training as scheduling
from shrinkbench.pruning.schedules import dynamic as during
from shrinkbench.pruning.structures.by_dataflow import heads, neurons
from shrinkbench.pruning.structures.channels import branches
from shrinkbench.pruning.structures.single import filters, input_channels
from shrinkbench.pruning.units import Scores, UnitScores

_NEEDS = ("data", "labels", "gradients")


@pruning_method(
    "iterative_gradient", schedule=scheduling.iterative_20, needs=_NEEDS, reference="blalock2020state"
)
@pruning_method("layerwise_gradient", allocation=layerwise, needs=_NEEDS, reference="blalock2020state")
@pruning_method("global_gradient", kind="gradient", needs=_NEEDS, reference="blalock2020state")
def gradient(ctx: PruneContext) -> Scores:
    """First-order saliency ``|w * dL/dw|``, on one minibatch."""
    return {name: (w * ctx.gradients[name]).abs() for name, w in ctx.weights.items()}


@pruning_method(
    "residual_block_taylor",
    structure=branches,
    needs=_NEEDS,
    batch_count=8,
    reference="molchanov2019importance",
)
@pruning_method(
    "neuron_taylor", structure=neurons, needs=_NEEDS, batch_count=8, reference="molchanov2019importance"
)
@pruning_method(
    "input_channel_taylor",
    structure=input_channels,
    needs=_NEEDS,
    batch_count=8,
    reference="molchanov2019importance",
)
@pruning_method(
    "filter_taylor_2019",
    structure=filters,
    needs=_NEEDS,
    batch_count=8,
    reference="molchanov2019importance",
)
@pruning_method(
    "global_taylor", kind="gradient", needs=_NEEDS, batch_count=8, reference="molchanov2019importance"
)
def taylor_2019(ctx: PruneContext) -> UnitScores:
    """Squared first-order change ``(sum of w * dL/dw over the unit)^2``, added up over minibatches."""
    totals: dict[str, Tensor] = {}
    for gradients in ctx.batch_gradients():
        for name, effect in _effects(ctx, gradients).items():
            totals[name] = effect.square_().add_(totals.get(name, 0))
    return UnitScores(totals)


@pruning_method("head_taylor", structure=heads, needs=_NEEDS, reference="michel2019sixteen")
@pruning_method(
    "filter_taylor_2016", kind="gradient", structure=filters, needs=_NEEDS, reference="molchanov2017pruning"
)
def taylor_2016(ctx: PruneContext) -> UnitScores:
    """Absolute first-order change ``|sum of w * dL/dw over the unit|``, added up over images, norm 1 per layer.

    For a filter without bias the sum equals ``sum over positions of z * dL/dz`` of its map z, and of the
    rectified map where a ReLU follows directly, which is the paper's criterion; with batch norm in between,
    z is the map before it.
    """
    totals: dict[str, Tensor] = {}
    for gradients in ctx.image_gradients():
        for name, effect in _effects(ctx, gradients).items():
            totals[name] = effect.abs_().add_(totals.get(name, 0))
    return UnitScores({name: total / total.norm().clamp(min=1e-30) for name, total in totals.items()})


@pruning_method(
    "neuron_skeletonization",
    structure=neurons,
    needs=_NEEDS,
    batch_count=8,
    reference="mozer1989skeletonization",
)
@pruning_method(
    "skeletonization",
    kind="gradient",
    structure=filters,
    needs=_NEEDS,
    batch_count=8,
    reference="mozer1989skeletonization",
)
def relevance(ctx: PruneContext) -> UnitScores:
    """Relevance ``-sum of w * dL/dw over the unit`` (of a gate on its output), added up over minibatches.

    Signed: units whose removal would lower the loss go first. Mozer and Smolensky 1989 average over time with a
    factor of 0.8 and take the absolute error, whose derivative does not vanish in a minimum; here it is the
    training loss.
    """
    totals: dict[str, Tensor] = {}
    for gradients in ctx.batch_gradients():
        for name, effect in _effects(ctx, gradients).items():
            totals[name] = totals.get(name, 0) - effect
    return UnitScores(totals)


def _effects(ctx: PruneContext, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum of ``w * dL/dw`` over each unit of the method's structure; overwrites ``gradients``."""
    products = {name: gradients[name].mul_(w) for name, w in ctx.weights.items()}
    return {name: u.sums for name, u in ctx.structure.group(ctx, products).units.items()}


@pruning_method(
    "movement",
    kind="gradient",
    allocation=layerwise,
    schedule=during.straight_through,
    needs=_NEEDS,
    reference="sanh2020movement",
)
def movement(ctx: PruneContext) -> Scores:
    """``- w * dL/dw``, added up over training: high for weights that move away from zero.

    Masks are fixed after the first half of training; Sanh et al. 2020 decide anew in every step to the end.
    """
    return {name: -w * ctx.gradients[name] for name, w in ctx.weights.items()}
