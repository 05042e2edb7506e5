"""Functions of ``shrinkbench.detection`` (version 0.1.0) that have no namesake any more; they go with 0.3."""

from __future__ import annotations

from collections.abc import Callable

from shrinkbench.datasets.voc2007 import CLASSES
from shrinkbench.datasets.voc_detection import DetectionData, DetectionImages
from shrinkbench.models.faster_rcnn import Detector
from shrinkbench.spec import Recipe, detection_of
from shrinkbench.spec.measures import EpochRecord
from shrinkbench.surgery.detector import shrink_detector
from shrinkbench.tasks import Detection
from shrinkbench.training import RECIPES, evaluate, train

VOC_RECIPE = RECIPES.get("voc-faster-rcnn")
prune_detector = shrink_detector
_TASK = Detection(detection_of(CLASSES))


def train_detector(
    detector: Detector,
    images: DetectionImages,
    recipe: Recipe = VOC_RECIPE,
    *,
    seed: int,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train in place and return the mean loss of each epoch: :func:`shrinkbench.training.train` does it now."""
    data = DetectionData(train_images=images, test_images=images)

    def tell(record: EpochRecord) -> None:
        if on_epoch is not None:
            on_epoch(record.epoch, record.train_loss)

    training = train(detector, recipe, data, seed=seed, task=_TASK, on_epoch=tell)
    return [epoch.train_loss for epoch in training.epochs]


def mean_average_precision(detector: Detector, images: DetectionImages) -> dict[str, float]:
    """Precision at an overlap of 0.5, ``mean`` and by class, as ``shrinkbench.training.evaluate`` gives it."""
    names = dict(zip((metric.name for metric in _TASK.objective.metrics), ("mean", *CLASSES), strict=True))
    found = evaluate(detector, ([pair] for pair in images), task=_TASK)
    return {names[name]: value for name, value in found.metrics.items()}
