"""The parts of a dataset that an experiment takes: as large as asked for, and of which its task can be told."""

from __future__ import annotations

from shrinkbench.datasets import Dataset
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import ExperimentSpec
from shrinkbench.tasks import Task, require_measurable


def check_subsets(dataset: Dataset, experiment: ExperimentSpec, task: Task) -> None:
    """Refuse more examples than a split has, and test targets of which a metric of ``task`` cannot be told."""
    for name, count, source in (
        ("train_images", experiment.train_images, dataset.train),
        ("validation_images", experiment.validation_images, dataset.validation),
        ("test_images", experiment.test_images, dataset.test),
    ):
        if count is not None and count > len(source):
            raise ShrinkbenchError(
                f"{name} = {count} is more than the {len(source)} images that '{dataset.card.name}' has there"
            )
    count, source = experiment.test_images, dataset.test
    labels = getattr(source if count is None else source.subset(count), "labels", None)
    if labels is not None:
        require_measurable(task, labels)
