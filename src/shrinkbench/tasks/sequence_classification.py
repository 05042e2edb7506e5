"""One of several classes for each sequence: models and batches in the style of Hugging Face."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.network.inputs import Batch
from shrinkbench.spec import MetricSpec, Objective, Recipe
from shrinkbench.spec.measures import Quality
from shrinkbench.tasks.batches import join_last
from shrinkbench.tasks.classification import Classification
from shrinkbench.tasks.task import TASKS, Batches

SEQUENCE_CLASSIFICATION = Objective(
    name="sequence_classification",
    loss="cross-entropy",
    metrics=(
        MetricSpec(name="accuracy", direction="higher", unit="fraction", lower=0, upper=1),
        MetricSpec(name="loss", direction="lower", unit="nats", lower=0),
    ),
    headline="accuracy",
)


@dataclass(frozen=True)
class SequenceClassification:
    """Batches are dictionaries of named inputs with ``labels`` (int64, one per sequence), or pairs.

    The network returns logits (N, classes): as ``.logits``, under that name in a dictionary, or as a tensor.
    """

    objective: Objective = SEQUENCE_CLASSIFICATION

    @property
    def criterion(self) -> Callable[[Any, Any], Tensor]:
        """Mean cross-entropy (nats) of logits against labels."""
        return F.cross_entropy

    def training_batches(self, batches: Batches) -> Iterator[Batch]:
        """A last batch of one sequence is joined to the one before where both are of one length."""
        yield from join_last(batches)

    def loss(self, module: nn.Module, batch: Any, recipe: Recipe) -> tuple[Tensor, int]:
        """Mean cross-entropy (nats), with the recipe's label smoothing."""
        return Classification().loss(module, batch, recipe)

    def evaluate(self, module: nn.Module, batches: Batches, *, precision: str = "float32") -> Quality:
        """Accuracy (fraction of sequences) and mean cross-entropy (nats) over all of ``batches``."""
        found = Classification().evaluate(module, batches, precision=precision)
        metrics = {"accuracy": found["top1"], "loss": found["loss"]}
        return Quality(metrics=metrics, examples=found.examples)


TASKS.add(SEQUENCE_CLASSIFICATION.name, lambda *_: SequenceClassification())
