"""What is learned: how a batch becomes a loss, and a network's outputs metrics with direction and unit."""

from shrinkbench.tasks.batches import require_measurable, split_for
from shrinkbench.tasks.classification import Classification
from shrinkbench.tasks.detection import Detection, Objects
from shrinkbench.tasks.language_modelling import LanguageModelling
from shrinkbench.tasks.regression import Regression
from shrinkbench.tasks.semantic_segmentation import SemanticSegmentation
from shrinkbench.tasks.sequence_classification import SequenceClassification
from shrinkbench.tasks.supervised import Metric, Supervised, require_scorable, scoring_loss
from shrinkbench.tasks.task import TASKS, Batch, Batches, Task, objective_for, objective_of, task_of

__all__ = [
    "TASKS",
    "Batch",
    "Batches",
    "Classification",
    "Detection",
    "LanguageModelling",
    "Metric",
    "Objects",
    "Regression",
    "SemanticSegmentation",
    "SequenceClassification",
    "Supervised",
    "Task",
    "objective_for",
    "objective_of",
    "require_measurable",
    "require_scorable",
    "scoring_loss",
    "split_for",
    "task_of",
]
