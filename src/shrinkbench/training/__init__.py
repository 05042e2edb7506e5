"""Training, fine-tuning and evaluation from recipes that are values."""

from shrinkbench.spec.recipe import learning_rate
from shrinkbench.training.checkpoint import KeepEpochs, KeepStep, remove_checkpoints
from shrinkbench.training.data import Data
from shrinkbench.training.evaluation import evaluate
from shrinkbench.training.loop import Training, train
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
