"""Methods over whole channels and branches that use scores defined elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import couple
from shrinkbench.network.view import NetworkView
from shrinkbench.network.weights import layer_of, weight_parameters
from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import PerLayer, decides, pruning_method
from shrinkbench.pruning.scores.filters import batch_norm_scale
from shrinkbench.pruning.scores.magnitude import magnitude, random
from shrinkbench.pruning.structures.channels import branches, channels, prunable_groups, unit_sums
from shrinkbench.pruning.units import STRUCTURES, Grouping, Scores, Structure, Units, UnitScores

_AS_LI = PerLayer(rounding="keep-floor")
pruning_method(
    "channel_l1", structure=channels, allocation=layerwise, reference="li2017pruning", per_layer=_AS_LI
)(magnitude)
pruning_method("global_channel_l1", structure=channels, reference="li2017pruning")(magnitude)
pruning_method(
    "uniform_channels",
    structure=channels,
    allocation=layerwise,
    reference="liu2019rethinking",
    per_layer=PerLayer(rounding="nearest"),
)(random)
pruning_method("channel_batch_norm_scale", structure=channels, reference="liu2017learning")(batch_norm_scale)
pruning_method("branch_l1", structure=branches, reference="huang2018data")(magnitude)


@pruning_method(
    "channel_taylor",
    kind="gradient",
    structure=channels,
    needs=("data", "labels", "gradients"),
    batch_count=8,
    reference="molchanov2019importance",
)
@decides("structure")
def channel_taylor(ctx: PruneContext) -> UnitScores:
    """Squared first-order change ``(sum of w * dL/dw over a channel's filters)^2``, summed over minibatches."""
    groups = prunable_groups(ctx, couple(ctx.module, ctx.example))
    totals = {group.layer: torch.zeros(group.units) for group, _ in groups}
    for gradients in ctx.batch_gradients():
        for group, weights in groups:
            products = {name: ctx.weights[name] * gradients[name] for name in weights}
            totals[group.layer] += unit_sums(group, products).square()
    return UnitScores(totals)


def _convolutions(ctx: NetworkView, scores: Scores) -> Grouping:
    weights = weight_parameters(ctx.module)
    layers = {name: ctx.module.get_submodule(layer_of(name)) for name in ctx.weights}
    names = [
        name for name, layer in layers.items() if isinstance(layer, nn.modules.conv._ConvNd) and name in weights
    ]
    if not names:
        raise ShrinkbenchError(
            "this network has no convolutions; prune 'weights' in place of 'convolution-weights'"
        )

    def expand(keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(keep)

    return Grouping({name: Units(scores[name]) for name in names}, expand)


convolution_weights = STRUCTURES.add(
    "convolution-weights",
    Structure(
        "convolution-weights",
        "single weights of convolutions; linear layers stay whole",
        _convolutions,
        unit="weight",
        exchangeable=True,
    ),
)
pruning_method("convolution_magnitude", structure=convolution_weights, reference="han2015learning")(magnitude)
pruning_method(
    "uniform_sparsification",
    structure=convolution_weights,
    allocation=layerwise,
    reference="liu2019rethinking",
)(random)
