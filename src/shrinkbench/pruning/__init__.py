"""Pruning methods: structure x scoring x allocation x scheduling x fine-tuning."""

from shrinkbench.pruning.allocations.rules import ALLOCATIONS
from shrinkbench.pruning.amounts import amount_of, budget, check_amount, fraction_of_layers
from shrinkbench.pruning.collapse import LayerCollapseWarning, collapse_in_words
from shrinkbench.pruning.constraining import check_constraints
from shrinkbench.pruning.context import Proportions, PruneContext
from shrinkbench.pruning.course import Course, course_of, draw_course, save_course
from shrinkbench.pruning.during_training import hook_for, training_hook
from shrinkbench.pruning.finetunings import FINETUNINGS, Finetuning, restart
from shrinkbench.pruning.importing import import_masks
from shrinkbench.pruning.masking import prune_once
from shrinkbench.pruning.masks import Masks, Upholder, save_tensors
from shrinkbench.pruning.method import (
    METHODS,
    PruningMethod,
    decides,
    pruning_method,
    resolve,
    resolve_finetuning,
)
from shrinkbench.pruning.names import carried_out
from shrinkbench.pruning.plugins import load_entry_points, load_plugin
from shrinkbench.pruning.prunable import prunable_names
from shrinkbench.pruning.pruner import Pruner
from shrinkbench.pruning.rounds import progressed, proportions_of, prune, rounds_of
from shrinkbench.pruning.schedules.schedule import SCHEDULES
from shrinkbench.pruning.units import STRUCTURES, Scores

# Names of methods made from others, patterns and every method register themselves when their module is read.
from shrinkbench.pruning import names as _names  # noqa: F401  isort: skip
from shrinkbench.pruning.allocations import by_pattern as _by_pattern  # noqa: F401  isort: skip
from shrinkbench.pruning import methods as _methods  # noqa: F401  isort: skip

__all__ = [
    "ALLOCATIONS",
    "FINETUNINGS",
    "METHODS",
    "SCHEDULES",
    "STRUCTURES",
    "Course",
    "Finetuning",
    "LayerCollapseWarning",
    "Masks",
    "Proportions",
    "PruneContext",
    "Pruner",
    "PruningMethod",
    "Scores",
    "Upholder",
    "amount_of",
    "budget",
    "carried_out",
    "check_amount",
    "check_constraints",
    "collapse_in_words",
    "course_of",
    "decides",
    "draw_course",
    "fraction_of_layers",
    "hook_for",
    "import_masks",
    "load_entry_points",
    "load_plugin",
    "progressed",
    "proportions_of",
    "prunable_names",
    "prune",
    "prune_once",
    "pruning_method",
    "resolve",
    "resolve_finetuning",
    "restart",
    "rounds_of",
    "save_course",
    "save_tensors",
    "training_hook",
]
