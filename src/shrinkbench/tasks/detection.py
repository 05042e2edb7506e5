"""Boxes of objects in images: the losses of Faster R-CNN, and mean average precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.spec import DETECTION, Objective, Recipe
from shrinkbench.spec.measures import Quality
from shrinkbench.tasks.task import TASKS, Batches

OVERLAP = 0.5


@dataclass(frozen=True)
class Objects:
    """Boxes (n, 4): left, top, right, bottom in pixels; labels from 1, 0 is background; difficult or not."""

    boxes: Tensor
    labels: Tensor
    difficult: Tensor

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

    def training_batches(self, batches: Batches) -> Iterator[Pictured]:
        """The batches as they are: detectors take one image too."""
        yield from batches

    def loss(self, module: nn.Module, batch: Pictured, recipe: Recipe) -> tuple[Tensor, int]:
        """The sum of the network's losses; difficult objects that are in ``batch`` count as any other."""
        device = next(module.parameters()).device
        targets = [{"boxes": o.boxes.to(device), "labels": o.labels.to(device)} for _, o in batch]
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            losses: dict[str, Tensor] = module([image.to(device) for image, _ in batch], targets)
            loss = torch.stack(list(losses.values())).sum()
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

        Difficult objects count neither way. Precision is averaged over 101 points of recall as COCO does; the
        challenge of 2007 took 11.
        """
        metric = _metric()
        device = next(module.parameters()).device
        images = 0
        with evaluation_mode(module):
            for image, objects in (pair for batch in batches for pair in batch):
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                    found = module([image.to(device)])[0]
                target = {
                    "boxes": objects.boxes,
                    "labels": objects.labels,
                    "iscrowd": objects.difficult.int(),
                }
                metric.update([{key: value.cpu() for key, value in found.items()}], [target])
                images += 1
        if not images:
            raise ShrinkbenchError("there are no images to evaluate on; give a split with at least one image")
        return Quality(metrics=self._values(metric.compute()), examples=images)

    def _values(self, result: dict[str, Tensor]) -> dict[str, float]:
        """The metrics by name; -1 stands for what has no object to be found."""
        mean = float(result["map_50"])
        if mean < 0:
            raise ShrinkbenchError(
                "no image has an object that is not difficult, and there is no precision without; give other "
                "images"
            )
        labels = result["classes"].reshape(-1).tolist()
        values = result["map_per_class"].reshape(-1).tolist()
        known = self.objective.metrics
        each = {
            known[int(label)].name: float(value)
            for label, value in zip(labels, values, strict=True)
            if value >= 0 and label < len(known)
        }
        return {self.objective.headline: mean, **each}


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

    return MeanAveragePrecision(iou_thresholds=[OVERLAP], class_metrics=True)


TASKS.add(DETECTION.name, Detection)
