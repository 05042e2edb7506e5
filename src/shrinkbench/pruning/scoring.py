"""Which weights matter: each function is a score, and the methods that use it are registered above it."""

from __future__ import annotations

from shrinkbench.pruning.allocation import independent, layerwise
from shrinkbench.pruning.context import PruneContext, Scores
from shrinkbench.pruning.method import pruning_method


@pruning_method("global_magnitude", reference="blalock2020state")
@pruning_method("layerwise_magnitude", allocation=layerwise, reference="blalock2020state")
def magnitude(ctx: PruneContext) -> Scores:
    """Absolute value ``|w|``."""
    return {name: w.abs() for name, w in ctx.weights.items()}


@pruning_method("global_gradient", needs=("data", "labels", "gradients"), reference="blalock2020state")
@pruning_method(
    "layerwise_gradient",
    allocation=layerwise,
    needs=("data", "labels", "gradients"),
    reference="blalock2020state",
)
def gradient(ctx: PruneContext) -> Scores:
    """First-order saliency ``|w * dL/dw|``, on one minibatch."""
    return {name: (w * ctx.gradients[name]).abs() for name, w in ctx.weights.items()}


@pruning_method("random", allocation=independent, reference="blalock2020state")
def random(ctx: PruneContext) -> Scores:
    """Uniform noise: each weight stays on its own with the same probability."""
    return {name: ctx.uniform(w) for name, w in ctx.weights.items()}
