"""Parameters and compression ratio, counted from masks and never from the values of weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from shrinkbench.measures import LayerDensity


def count_parameters(module: nn.Module) -> int:
    """All parameters of ``module``, prunable or not; a tied parameter once; buffers never.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in module.parameters())


def count_kept(module: nn.Module, masks: Mapping[str, Tensor]) -> int:
    """Parameters that the masks keep; parameters without a mask are kept whole."""
    pruned = sum(mask.numel() - int(mask.sum()) for mask in masks.values())
    return count_parameters(module) - pruned


def layer_densities(module: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, LayerDensity]:
    """Kept and total weights of every masked parameter, in the module's order."""
    return {
        name: LayerDensity(kept=int(masks[name].sum()), total=masks[name].numel())
        for name, _ in module.named_parameters()
        if name in masks
    }
