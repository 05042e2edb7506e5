"""Layers of which pruning leaves no weight: behind them the network may be constant."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor, nn

from shrinkbench.network.weights import weight_parameters


class LayerCollapseWarning(UserWarning):
    """Layers without a kept weight, by name."""


def _emptied_layers(module: nn.Module, masks: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Weights of layers that ``masks`` empty, in the module's order."""
    return tuple(name for name in weight_parameters(module) if name in masks and not bool(masks[name].any()))


def collapse_in_words(module: nn.Module, masks: Mapping[str, Tensor]) -> str:
    """One sentence that names the layers that ``masks`` empty; nothing where there are none."""
    names = _emptied_layers(module, masks)
    if not names:
        return ""
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        f"layer collapse: no weight stays in {listed}; where no shortcut leads around it, the output no longer "
        "depends on the input"
    )


def warn_of_collapse(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Warn of the layers that ``masks`` empty, if any."""
    sentence = collapse_in_words(module, masks)
    if sentence:
        warnings.warn(sentence, LayerCollapseWarning, stacklevel=3)
