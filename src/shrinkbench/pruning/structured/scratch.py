"""Baselines that forget: the pruned architecture from fresh random weights.

Weights of a small network cannot simply be sliced from a fresh large one: its initial variance follows from
the number of its own filters. :func:`initialised_anew` draws them as Liu et al. 2019 do, for the network as
it is; with masks, for as many weights as are left.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from shrinkbench.pruning.masks import Masks

_Norm = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def initialised_anew(
    module: nn.Module,
    *,
    seed: int,
    masks: Mapping[str, Tensor] | None = None,
    gain: float = 1.0,
    linear_std: float | None = 0.01,
) -> nn.Module:
    """A copy of ``module`` with fresh weights; ``masks``, if any, are applied to them.

    Convolutions are drawn from N(0, 2 / n) with n = outputs x kernel (He et al. 2015, fan out) or, under a
    mask, n = kept weights / inputs, so that survivors alone carry the variance. Linear layers are drawn from
    N(0, linear_std^2), or by fan out where it is ``None``; biases are zero, normalisation starts at ``gain``
    and zero shift with fresh statistics. Other parameters (class tokens, position embeddings) keep their
    values.
    """
    fresh = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    masks = masks or {}
    with torch.no_grad():
        for path, layer in fresh.named_modules():
            if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
                convolution = not isinstance(layer, nn.Linear)
                mask = masks.get(f"{path}.weight" if path else "weight")
                fan = _fan_out(layer.weight, mask, int(getattr(layer, "groups", 1)))
                std = math.sqrt(2 / fan) if convolution or linear_std is None else linear_std
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * std)
                if layer.bias is not None:
                    layer.bias.zero_()
            elif isinstance(layer, _Norm) and layer.weight is not None:
                nn.init.constant_(layer.weight, gain)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.reset_running_stats()
    Masks(dict(masks)).apply(fresh)
    return fresh


def _fan_out(weight: Tensor, mask: Tensor | None, groups: int) -> float:
    """Weights per input channel: outputs x kernel over groups, or those of them that a mask keeps."""
    kept = weight.numel() if mask is None else max(int(mask.sum()), 1)
    return kept / (weight.shape[1] * groups)
