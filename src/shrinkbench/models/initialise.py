"""Initial weights, as the definitions of the networks state them."""

from __future__ import annotations

from typing import Literal

from torch import nn


def kaiming_normal(
    module: nn.Module, *, mode: Literal["fan_in", "fan_out"] = "fan_out", linear: bool = False
) -> None:
    """Draw convolutions (and linear layers if asked) from N(0, 2 / fan) and set their biases to zero.

    ``mode`` is ``fan_in`` or ``fan_out``. Source: He et al. 2015, equations 10 and 14.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) or (linear and isinstance(layer, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def batch_norm_gain(module: nn.Module, gain: float) -> None:
    """Set every batch-norm weight to ``gain`` and bias to zero."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(layer.weight, gain)
            nn.init.zeros_(layer.bias)


def normal_linear(module: nn.Module, *, std: float = 0.01) -> None:
    """Draw linear layers from N(0, std^2) and set their biases to zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, std)
            nn.init.zeros_(layer.bias)
