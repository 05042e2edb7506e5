"""Honest, repeatable comparison of neural network pruning methods.

The names below are imported when they are first used, so that reading results never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from shrinkbench import _moved

if TYPE_CHECKING:
    from shrinkbench.datasets import DATASETS, load_dataset
    from shrinkbench.errors import ShrinkbenchError
    from shrinkbench.metrics import count_multiply_adds, count_parameters, measure_size
    from shrinkbench.models import MODELS
    from shrinkbench.models import build as build_model
    from shrinkbench.pruning import (
        ALLOCATIONS,
        FINETUNINGS,
        METHODS,
        SCHEDULES,
        STRUCTURES,
        Masks,
        PruneContext,
        Pruner,
        PruningMethod,
        Upholder,
        decides,
        prune,
        pruning_method,
    )
    from shrinkbench.pruning.conformance import check
    from shrinkbench.pruning.layer_sensitivity import sensitivity
    from shrinkbench.runner import sweep
    from shrinkbench.spec import ExperimentSpec, Recipe
    from shrinkbench.surgery.shrinking import shrink
    from shrinkbench.training import RECIPES, evaluate, train

__all__ = [
    "ALLOCATIONS",
    "DATASETS",
    "FINETUNINGS",
    "METHODS",
    "MODELS",
    "RECIPES",
    "SCHEDULES",
    "STRUCTURES",
    "ExperimentSpec",
    "Masks",
    "PruneContext",
    "Pruner",
    "PruningMethod",
    "Recipe",
    "ShrinkbenchError",
    "Upholder",
    "__version__",
    "build_model",
    "check",
    "count_multiply_adds",
    "count_parameters",
    "decides",
    "evaluate",
    "load_dataset",
    "measure_size",
    "prune",
    "pruning_method",
    "sensitivity",
    "shrink",
    "sweep",
    "train",
]

# A registry is reached through the package whose import fills it.
_HOMES = {
    "ALLOCATIONS": "pruning",
    "DATASETS": "datasets",
    "FINETUNINGS": "pruning",
    "METHODS": "pruning",
    "MODELS": "models",
    "RECIPES": "training",
    "SCHEDULES": "pruning",
    "STRUCTURES": "pruning",
    "ExperimentSpec": "spec",
    "Masks": "pruning",
    "PruneContext": "pruning",
    "Pruner": "pruning",
    "PruningMethod": "pruning",
    "Recipe": "spec",
    "ShrinkbenchError": "errors",
    "Upholder": "pruning",
    "build_model": "models",
    "check": "pruning.conformance",
    "count_multiply_adds": "metrics",
    "count_parameters": "metrics",
    "decides": "pruning",
    "evaluate": "training",
    "load_dataset": "datasets",
    "measure_size": "metrics",
    "prune": "pruning",
    "pruning_method": "pruning",
    "sensitivity": "pruning.layer_sensitivity",
    "shrink": "surgery.shrinking",
    "sweep": "runner",
    "train": "training",
}
_OTHER_NAMES = {"build_model": "build"}

_moved.install()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("shrinkbench")
    if name not in _HOMES:
        raise AttributeError(f"module 'shrinkbench' has no attribute '{name}'")
    return getattr(import_module(f"shrinkbench.{_HOMES[name]}"), _OTHER_NAMES.get(name, name))


def __dir__() -> list[str]:
    return list(__all__)
