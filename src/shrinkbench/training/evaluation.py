"""Quality of a network on one split."""

from __future__ import annotations

from torch import nn

from shrinkbench.spec.measures import Quality
from shrinkbench.tasks import Batches, Classification, Task

CLASSIFY = Classification()


def evaluate(
    module: nn.Module, batches: Batches, *, precision: str = "float32", task: Task = CLASSIFY
) -> Quality:
    """The metrics of ``task`` over all examples of ``batches``.

    Without a task these are top-1, top-5 (fractions of images) and mean cross-entropy (nats), and batches are
    pairs of inputs and labels. Anything but a classifier is refused then. The network is evaluated in
    evaluation mode; modes are restored.
    """
    return task.evaluate(module, batches, precision=precision)
