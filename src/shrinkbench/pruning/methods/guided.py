"""Networks guided by the pattern of others (Liu et al. 2019, Section 5): a stage's share in place of a score.

Widths are set, or sparse kernels drawn. The budget is what comes of the shares; as an allocation, which meets
a given one, patterns are in :mod:`shrinkbench.pruning.allocations.by_pattern`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import Coupling
from shrinkbench.network.stages import same_stages, stages_of
from shrinkbench.pruning.masks import Masks

_Conv = nn.modules.conv._ConvNd


def guided_counts(
    module: nn.Module, coupling: Coupling, pattern: Mapping[int, float], input_shape: Sequence[int]
) -> dict[str, int]:
    """Guided pruning: how many units each group keeps, by the share of the stage of its first layer.

    ``module`` may be another network than the pattern's, with the same number of stages.
    """
    stages = stages_of(module, input_shape)
    same_stages(stages, pattern)
    counts = {}
    for group in coupling.free:
        if group.layer in stages:
            counts[group.layer] = max(1, round(group.units * float(pattern[stages[group.layer]])))
    return counts


def guided_sparsity(
    module: nn.Module, pattern: Mapping[int, Tensor], input_shape: Sequence[int], generator: torch.Generator
) -> Masks:
    """Guided sparsification: weights of kernels stay at random, with the share of their stage and position.

    Kernels of another size than the pattern's stay with the stage's mean share.
    """
    stages = stages_of(module, input_shape)
    same_stages(stages, pattern)
    masks = {}
    for path, stage in stages.items():
        layer = module.get_submodule(path)
        if isinstance(layer, nn.Conv2d):
            share = pattern[stage]
            fits = share.shape == layer.weight.shape[2:]
            chance = share if fits else torch.full(layer.weight.shape[2:], float(share.mean()))
            masks[f"{path}.weight"] = torch.rand(layer.weight.shape, generator=generator) < chance
    return Masks(masks)


def uniform_sparsity(module: nn.Module, kept: float, generator: torch.Generator) -> Masks:
    """Uniform sparsification: every weight of a convolution stays with the same chance ``kept``."""
    if not 0 < kept <= 1:
        raise ShrinkbenchError(f"a share of {kept:g} cannot be kept; give one above 0 and at most 1")
    return Masks(
        {
            f"{path}.weight": torch.rand(layer.weight.shape, generator=generator) < kept
            for path, layer in module.named_modules()
            if isinstance(layer, _Conv)
        }
    )
