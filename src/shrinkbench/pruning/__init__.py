"""Pruning methods: structure x scoring x allocation x scheduling x fine-tuning."""

from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.during_training import training_hook
from shrinkbench.pruning.finetunings import FINETUNINGS, Finetuning, restart
from shrinkbench.pruning.masking import budget, prunable_names, prune
from shrinkbench.pruning.masks import Masks, Upholder, save_tensors
from shrinkbench.pruning.method import METHODS, PruningMethod, decides, pruning_method
from shrinkbench.pruning.plugins import load_entry_points, load_plugin
from shrinkbench.pruning.units import Scores

# Names of methods made from others, patterns and every method register themselves when their module is read.
from shrinkbench.pruning import names as _names  # noqa: F401  isort: skip
from shrinkbench.pruning.allocations import by_pattern as _by_pattern  # noqa: F401  isort: skip
from shrinkbench.pruning import methods as _methods  # noqa: F401  isort: skip

__all__ = [
    "FINETUNINGS",
    "METHODS",
    "Finetuning",
    "Masks",
    "PruneContext",
    "PruningMethod",
    "Scores",
    "Upholder",
    "budget",
    "decides",
    "load_entry_points",
    "load_plugin",
    "prunable_names",
    "prune",
    "pruning_method",
    "restart",
    "save_tensors",
    "training_hook",
]
