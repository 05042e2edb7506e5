"""Layers of which pruning leaves no weight: behind them the network may be constant."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor, nn

from shrinkbench.network.probe import weight_parameters


class LayerCollapseWarning(UserWarning):
    """Layers without a kept weight, by name."""


def emptied_layers(module: nn.Module, masks: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Weights of layers that ``masks`` empty, in the module's order."""
    return tuple(name for name in weight_parameters(module) if name in masks and not bool(masks[name].any()))


def warn_of_collapse(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Name the layers that ``masks`` empty, if any."""
    names = emptied_layers(module, masks)
    if names:
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        warnings.warn(
            f"layer collapse: no weight stays in {listed}; where no shortcut leads around it, the output no "
            "longer depends on the input",
            LayerCollapseWarning,
            stacklevel=3,
        )
