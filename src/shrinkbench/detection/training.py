"""Training and evaluation of detectors on one image at a time."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from shrinkbench.detection.faster_rcnn import Detector
from shrinkbench.detection.voc import CLASSES, DetectionImages, Objects
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.seeds import stream
from shrinkbench.spec import Recipe

# The settings of the PyTorch code that Liu et al. 2019 refer to, which release none of their own for detection.
VOC_RECIPE = Recipe(
    name="voc-faster-rcnn",
    reference="liu2019rethinking",
    optimizer="sgd",
    learning_rate=1e-3,
    momentum=0.9,
    weight_decay=1e-4,
    batch_size=1,
    epochs=7,
    schedule="multistep",
    milestones=(5,),
)


def train_detector(
    detector: Detector,
    images: DetectionImages,
    recipe: Recipe = VOC_RECIPE,
    *,
    seed: int,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train in place by SGD, half of the images mirrored; returns the mean loss of each epoch.

    Objects marked difficult do not take part; images without others are left out.
    """
    device = next(detector.parameters()).device
    optimizer = torch.optim.SGD(
        [p for p in detector.parameters() if p.requires_grad],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    losses: list[float] = []
    for epoch in range(1, recipe.epochs + 1):
        passed = sum(epoch > milestone for milestone in recipe.milestones)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * recipe.decay**passed
        losses.append(_train_epoch(detector, images, recipe, optimizer, seed, epoch, device))
        if on_epoch is not None:
            on_epoch(epoch, losses[-1])
    return losses


def _train_epoch(
    detector: Detector,
    images: DetectionImages,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    seed: int,
    epoch: int,
    device: torch.device,
) -> float:
    detector.train()
    generator = torch.Generator().manual_seed(stream(seed, "data", epoch))
    order = torch.randperm(len(images), generator=generator).tolist()
    mirrored = (torch.rand(len(images), generator=generator) < 0.5).tolist()
    total, seen = 0.0, 0
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(stream(seed, "noise", epoch))  # anchors and regions are sampled
        for start in range(0, len(order), recipe.batch_size):
            batch = [_prepare(*images[i], mirror=mirrored[i]) for i in order[start : start + recipe.batch_size]]
            batch = [(image, objects) for image, objects in batch if len(objects.labels)]
            if not batch:
                continue
            targets = [{"boxes": o.boxes.to(device), "labels": o.labels.to(device)} for _, o in batch]
            losses: dict[str, Tensor] = detector([image.to(device) for image, _ in batch], targets)
            loss = torch.stack(list(losses.values())).sum()
            if not bool(loss.isfinite()):
                raise ShrinkbenchError(
                    f"training diverged in epoch {epoch}; lower the learning rate ({recipe.learning_rate:g})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total, seen = total + float(loss.detach()) * len(batch), seen + len(batch)
    if not seen:
        raise ShrinkbenchError("no image has an object that is not difficult; give other images")
    return total / seen


def _prepare(image: Tensor, objects: Objects, *, mirror: bool) -> tuple[Tensor, Objects]:
    objects = objects.easy()
    if not mirror:
        return image, objects
    boxes = objects.boxes.clone()
    boxes[:, [0, 2]] = image.shape[2] - objects.boxes[:, [2, 0]]
    return image.flip(2), Objects(boxes, objects.labels, objects.difficult)


def require_metric() -> None:
    """Tell what :func:`mean_average_precision` lacks, before hours of training."""
    missing = [name for name in ("torchmetrics", "pycocotools") if find_spec(name) is None]
    if missing:
        raise ShrinkbenchError(
            f"mean average precision needs {' and '.join(missing)}; install them with: "
            "pip install 'shrinkbench[detection]'"
        )


def mean_average_precision(detector: Detector, images: DetectionImages) -> dict[str, float]:
    """Mean average precision at an overlap of 0.5, and that of every class that occurs, by torchmetrics.

    Difficult objects count neither way. Precision is averaged over 101 points of recall as COCO does; the
    challenge of 2007 took 11.
    """
    require_metric()
    from torchmetrics.detection import MeanAveragePrecision

    metric: Any = MeanAveragePrecision(iou_thresholds=[0.5], class_metrics=True)
    device = next(detector.parameters()).device
    with evaluation_mode(detector), torch.no_grad():
        for image, objects in images:
            found = detector([image.to(device)])[0]
            target = {"boxes": objects.boxes, "labels": objects.labels, "iscrowd": objects.difficult.int()}
            metric.update([{key: value.cpu() for key, value in found.items()}], [target])
    result = metric.compute()
    classes = result["classes"].reshape(-1).tolist()
    each = result["map_per_class"].reshape(-1).tolist()
    named = {CLASSES[int(c) - 1]: float(v) for c, v in zip(classes, each, strict=True) if v >= 0}
    return {"mean": float(result["map_50"]), **named}
