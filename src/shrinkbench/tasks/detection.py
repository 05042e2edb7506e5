"""Boxes of objects in images: the losses of Faster R-CNN, and mean average precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.libraries import torchvision
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.spec import DETECTION, Objective, Recipe
from shrinkbench.spec.measures import Quality
from shrinkbench.tasks.task import TASKS, Batches

OVERLAP = 0.5
_FOUND = ("boxes", "labels", "scores")
RECALLS = [point * 0.01 for point in range(101)]  # torchmetrics' own are rounded to float32, and miss some
FARTHEST = 40_000
"""Of a side from the origin, in pixels: the area of what spans all of it is below the 1e10 that COCO counts."""


@dataclass(frozen=True)
class Objects:
    """Boxes (n, 4): left, top, right, bottom in pixels; labels from 1, 0 is background; difficult or not."""

    boxes: Tensor
    labels: Tensor
    difficult: Tensor

    @property
    def fit(self) -> bool:
        """Whether these are tensors of such shapes."""
        tensors = (self.boxes, self.labels, self.difficult)
        return (
            all(isinstance(tensor, Tensor) for tensor in tensors)
            and self.boxes.shape == (len(self.labels), 4)
            and self.labels.dim() == 1
            and self.labels.shape == self.difficult.shape
            and not self.labels.is_floating_point()
            and self.difficult.dtype == torch.bool
        )

    def easy(self) -> Objects:
        """Those that are not difficult."""
        keep = ~self.difficult
        return Objects(self.boxes[keep], self.labels[keep], self.difficult[keep])


Pictured = Sequence[tuple[Tensor, Objects]]


@dataclass(frozen=True)
class Detection:
    """Batches are sequences of an image (3, H, W) and its objects, moved to the network's device here.

    The network is one of torchvision's kind: losses by name while it trains, boxes, labels and scores
    otherwise. The objective's metrics after the first are the classes', in order of their labels.
    """

    objective: Objective = DETECTION
    pairs: ClassVar[bool] = (
        False  # the network takes the objects beside the images, and gives its losses itself
    )

    def training_batches(self, batches: Batches) -> Iterator[Pictured]:
        """The batches as they are: detectors take one image too."""
        yield from batches

    def loss(self, module: nn.Module, batch: Pictured, recipe: Recipe) -> tuple[Tensor, int]:
        """The sum of the network's losses; difficult objects that are in ``batch`` count as any other."""
        device = next(module.parameters()).device
        self._require_objects(batch)
        targets = [{"boxes": o.boxes.to(device), "labels": o.labels.to(device)} for _, o in batch]
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            losses = module([image.to(device) for image, _ in batch], targets)
            values = list(losses.values()) if isinstance(losses, Mapping) else []
            if not values or not all(isinstance(value, Tensor) and value.numel() == 1 for value in values):
                raise ShrinkbenchError(
                    "a detector that trains gives a dictionary of losses by name, each one number, and this "
                    f"network a value of type {type(losses).__name__}; give one of torchvision's kind"
                )
            loss = torch.stack([value.reshape(()) for value in values]).sum()
        if not bool(loss.isfinite()):  # the next step would choose regions by numbers that are none
            raise ShrinkbenchError(
                f"training diverged: the loss is {float(loss.detach())}; lower the learning rate "
                f"({recipe.learning_rate:g})"
            )
        return loss, len(batch)

    # No inference mode: the network keeps its anchors, and training reads them again.
    @torch.no_grad()
    def evaluate(self, module: nn.Module, batches: Batches, *, precision: str = "float32") -> Quality:
        """Mean average precision at an overlap of 0.5, and that of every class that occurs, by torchmetrics.

        Difficult objects count neither way, nor do boxes whose largest overlap with an object of their class is
        with a difficult one. Precision is averaged over 101 points of recall as COCO does (the challenge of
        2007 took 11), and every box of an image counts, where COCO takes the first 100.
        """
        metric = _metric()
        device = next(module.parameters()).device
        images = 0
        with evaluation_mode(module):
            for image, objects in (pair for batch in map(self._require_objects, batches) for pair in batch):
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                    found = self._found(module([image.to(device)]))
                counted, easy = _beside_difficult(found, objects), objects.easy()
                metric.update([counted], [{"boxes": easy.boxes, "labels": easy.labels}])
                images += 1
        if not images:
            raise ShrinkbenchError("there are no images to evaluate on; give a split with at least one image")
        return Quality(metrics=self._values(metric.compute()), examples=images)

    def _require_objects(self, batch: Any) -> Pictured:
        """``batch``, whose labels name classes of this task (0 is the mean's) and whose boxes are some."""
        for pair in batch:
            objects = pair[1] if isinstance(pair, Sequence) and len(pair) == 2 else None
            if not isinstance(objects, Objects) or not objects.fit:
                raise ShrinkbenchError(
                    "detection takes batches of (image, Objects(boxes, labels, difficult)), n boxes (n, 4), "
                    "n whole labels and n booleans (shrinkbench.tasks.Objects); give such"
                )
            self._require_labels(objects.labels, "objects have")
            left, top, right, bottom = objects.boxes.unbind(1)
            proper = (objects.boxes.abs() <= FARTHEST).all(1) & (left < right) & (top < bottom)
            if not bool(proper.all()):
                raise ShrinkbenchError(
                    f"an object has the box {objects.boxes[~proper][0].tolist()}, and boxes are left, top, "
                    f"right, bottom, at most {FARTHEST:,} pixels from 0, of something that is wide and high; "
                    "leave it out, or give such"
                )
        found: Pictured = batch
        return found

    def _found(self, outputs: Any) -> dict[str, Tensor]:
        """What a network found in one image, whose labels name classes of this task."""
        found = _boxes_of(outputs)
        self._require_labels(found["labels"], "the network gives")
        return found

    def _require_labels(self, labels: Tensor, whose: str) -> None:
        classes = len(self.objective.metrics) - 1
        low, high = (int(labels.min()), int(labels.max())) if labels.numel() else (1, 1)
        if low < 1 or (classes and high > classes):
            raise ShrinkbenchError(
                f"{whose} labels from {low} to {high}, and the task's {f'{classes} ' if classes else ''}"
                "classes count from 1, since 0 is background; give labels within"
            )

    def _values(self, result: dict[str, Tensor]) -> dict[str, float]:
        """Metrics by name. Precision is (overlaps, recalls, classes, areas, limits); -1: nothing to find."""
        labels = result["classes"].reshape(-1).tolist()
        precisions = result["precision"][0, :, : len(labels), 0, -1].mean(dim=0).float().tolist()
        found = {label: value for label, value in zip(labels, precisions, strict=True) if value >= 0}
        if not found:
            raise ShrinkbenchError(
                "no image has an object that is not difficult, and there is no precision without; give other "
                "images"
            )
        known = self.objective.metrics
        each = {known[label].name: value for label, value in found.items() if label < len(known)}
        return {self.objective.headline: sum(found.values()) / len(found), **each}


def _boxes_of(outputs: Any) -> dict[str, Tensor]:
    """What a network found in one image, on the processor: n boxes (n, 4) with n labels and scores."""
    found = outputs[0] if isinstance(outputs, Sequence) and len(outputs) == 1 else None
    parts = [found.get(name) if isinstance(found, Mapping) else None for name in _FOUND]
    if not all(isinstance(part, Tensor) for part in parts):
        lacking = [name for name, part in zip(_FOUND, parts, strict=True) if not isinstance(part, Tensor)]
        kind = f"of type {type(outputs).__name__}" + ("" if found is None else f" of {type(found).__name__}")
        raise ShrinkbenchError(
            "a detector gives for each image a dictionary of boxes, labels and scores in evaluation, and this "
            f"network a value {kind} without tensors named {' and '.join(lacking)}; give one of torchvision's "
            "kind"
        )
    boxes, labels, scores = (part.detach().cpu() for part in parts if part is not None)
    if not Objects(boxes, labels, labels != labels).fit or scores.shape != labels.shape:
        shapes = ", ".join(str(tuple(each.shape)) for each in (boxes, labels, scores))
        raise ShrinkbenchError(
            f"the network gives boxes, labels and scores of shapes {shapes} for an image; give (n, 4), n whole "
            "numbers and n numbers"
        )
    if not bool(boxes.isfinite().all()) or not bool(scores.isfinite().all()):
        raise ShrinkbenchError(
            "the network has diverged: it gives boxes or scores that are no finite numbers; lower the learning "
            "rate"
        )
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        raise ShrinkbenchError(
            f"the network gives scores from {float(scores.min()):g} to {float(scores.max()):g}, and a score is "
            "from 0 to 1; let it give probabilities (softmax, sigmoid) in evaluation"
        )
    # What has a negative or immense area would count neither way in torchmetrics, and is found wrongly.
    boxes = boxes.float().clamp(-FARTHEST, FARTHEST)
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:].maximum(boxes[:, :2])], dim=1)
    return {"boxes": boxes, "labels": labels.long(), "scores": scores.float()}


def _beside_difficult(found: Mapping[str, Tensor], objects: Objects) -> dict[str, Tensor]:
    """What was ``found``, without the boxes that lie on a difficult object, as the challenge has it."""
    overlap = torchvision().ops.box_iou(found["boxes"], objects.boxes.float())
    overlap = overlap.masked_fill(found["labels"][:, None] != objects.labels, 0)
    if not overlap.numel():
        return dict(found)
    largest, which = overlap.max(dim=1)
    counted = ~((largest >= OVERLAP) & objects.difficult[which])
    return {name: tensor[counted] for name, tensor in found.items()}


def require_metric() -> None:
    """Raise ``ShrinkbenchError`` where a package that mean average precision needs is not installed."""
    missing = [name for name in ("torchmetrics", "pycocotools") if find_spec(name) is None]
    if missing:
        raise ShrinkbenchError(
            f"mean average precision needs {' and '.join(missing)}; install them with: "
            "pip install 'shrinkbench[detection]'"
        )


def _metric() -> Any:
    require_metric()
    from torchmetrics.detection import MeanAveragePrecision

    return MeanAveragePrecision(
        iou_thresholds=[OVERLAP],
        rec_thresholds=RECALLS,
        max_detection_thresholds=[1, 10, 2**31 - 1],
        extended_summary=True,
    )


TASKS.add(DETECTION.name, Detection)
