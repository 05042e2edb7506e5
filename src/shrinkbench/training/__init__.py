"""Training, fine-tuning and evaluation from recipes that are values."""

from shrinkbench.training.checkpoint import KeepEpochs, KeepStep, remove_checkpoints
from shrinkbench.training.data import Data
from shrinkbench.training.evaluation import evaluate
from shrinkbench.training.loop import Training, learning_rate, train
from shrinkbench.training.recipe import RECIPES, with_overrides

__all__ = [
    "RECIPES",
    "Data",
    "KeepEpochs",
    "KeepStep",
    "Training",
    "evaluate",
    "learning_rate",
    "remove_checkpoints",
    "train",
    "with_overrides",
]
