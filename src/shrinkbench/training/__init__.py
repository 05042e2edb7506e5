"""Training, fine-tuning and evaluation from recipes that are values."""

from shrinkbench.training.checkpoint import KeepEpochs, KeepStep
from shrinkbench.training.evaluation import evaluate
from shrinkbench.training.loop import Data, Training, learning_rate, train
from shrinkbench.training.recipe import RECIPES, with_overrides

__all__ = [
    "RECIPES",
    "Data",
    "KeepEpochs",
    "KeepStep",
    "Training",
    "evaluate",
    "learning_rate",
    "train",
    "with_overrides",
]
