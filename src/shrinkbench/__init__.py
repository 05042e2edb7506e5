"""Honest, repeatable comparison of neural network pruning methods.

The names below are imported when they are first used, so that reading results never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shrinkbench.errors import ShrinkbenchError
    from shrinkbench.metrics import count_multiply_adds, count_parameters, measure_size
    from shrinkbench.pruning import METHODS, Masks, PruneContext, PruningMethod, Upholder, prune, pruning_method
    from shrinkbench.runner import sweep
    from shrinkbench.training import evaluate, train

_HOMES = {
    "ShrinkbenchError": "errors",
    "METHODS": "pruning",
    "Masks": "pruning",
    "PruneContext": "pruning",
    "PruningMethod": "pruning",
    "Upholder": "pruning",
    "prune": "pruning",
    "pruning_method": "pruning",
    "count_multiply_adds": "metrics",
    "count_parameters": "metrics",
    "measure_size": "metrics",
    "evaluate": "training",
    "train": "training",
    "sweep": "runner",
}

__all__ = [
    "METHODS",
    "Masks",
    "PruneContext",
    "PruningMethod",
    "ShrinkbenchError",
    "Upholder",
    "count_multiply_adds",
    "count_parameters",
    "evaluate",
    "measure_size",
    "prune",
    "pruning_method",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'shrinkbench' has no attribute '{name}'")
    return getattr(import_module(f"shrinkbench.{_HOMES[name]}"), name)
