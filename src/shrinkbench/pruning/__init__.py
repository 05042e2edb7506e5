"""Pruning methods: structure x scoring x allocation x scheduling x fine-tuning."""

from shrinkbench.pruning.context import PruneContext, Scores
from shrinkbench.pruning.deciding import budget, prunable_names, prune, training_hook
from shrinkbench.pruning.finetuning import FINETUNINGS, Finetuning, restart
from shrinkbench.pruning.masks import Masks, Upholder, save_tensors
from shrinkbench.pruning.method import METHODS, PruningMethod, decides, pruning_method
from shrinkbench.pruning.plugins import load_entry_points, load_plugin

# The methods register themselves when their module is read.
from shrinkbench.pruning import scoring as _scoring  # noqa: F401  isort: skip
from shrinkbench.pruning.structured import methods as _methods  # noqa: F401  isort: skip
from shrinkbench.pruning.structured import reconstruction as _reconstruction  # noqa: F401  isort: skip
from shrinkbench.pruning.structured import selection_by_scaling as _scaling  # noqa: F401  isort: skip
from shrinkbench.pruning.structured import slimming as _slimming  # noqa: F401  isort: skip

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
