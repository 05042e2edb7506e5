"""A class for every pixel: cross-entropy, and mean intersection over union."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Batch, describe, split_batch
from shrinkbench.network.probe import evaluation_mode, first_tensor
from shrinkbench.spec import MetricSpec, Objective, Recipe
from shrinkbench.spec.measures import Quality
from shrinkbench.tasks.batches import called, join_last, placed, same_width
from shrinkbench.tasks.losses import mean_cross_entropy
from shrinkbench.tasks.task import TASKS, Batches
from shrinkbench.tasks.torch_metrics import torch_metrics

NOT_LABELLED = 255
"""As a target: a pixel that counts neither way, as in the masks of Pascal VOC."""

SEMANTIC_SEGMENTATION = Objective(
    name="semantic_segmentation",
    loss="cross-entropy",
    metrics=(
        MetricSpec(name="miou", direction="higher", unit="fraction", lower=0, upper=1),
        MetricSpec(name="pixel_accuracy", direction="higher", unit="fraction", lower=0, upper=1),
        MetricSpec(name="loss", direction="lower", unit="nats", lower=0),
    ),
    headline="miou",
)


@dataclass(frozen=True)
class SemanticSegmentation:
    """Batches are pairs of images and whole classes of pixels (N, H, W), or dictionaries with ``labels``.

    The network returns logits (N, classes, H, W), as a tensor or first in what it returns; those of fewer
    pixels are enlarged to the targets' (bilinear). Pixels of class 255 count neither way.
    """

    objective: Objective = SEMANTIC_SEGMENTATION

    def criterion(self, outputs: Any, targets: Any) -> Tensor:
        """Mean cross-entropy (nats) over the labelled pixels of a batch; 0 where none is."""
        return mean_cross_entropy(*_pixels(outputs, targets), ignored=NOT_LABELLED)

    def training_batches(self, batches: Batches) -> Iterator[Batch]:
        """A last batch of one image is joined to the one before where both are of one size."""
        yield from join_last(batches)

    def loss(self, module: nn.Module, batch: Any, recipe: Recipe) -> tuple[Tensor, int]:
        """Mean cross-entropy (nats) with the recipe's label smoothing, and the images of the batch."""
        given = placed(split_batch(batch), module)
        kind = given.inputs.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            logits, wanted = _pixels(called(module, given.inputs), given.targets)
            loss = mean_cross_entropy(logits, wanted, ignored=NOT_LABELLED, smoothing=recipe.label_smoothing)
        return loss, len(given)

    @torch.inference_mode()
    def evaluate(self, module: nn.Module, batches: Batches, *, precision: str = "float32") -> Quality:
        """Mean IoU, accuracy and mean cross-entropy (nats) over all labelled pixels of ``batches``.

        IoU = pixels of a class found rightly / pixels that are of it or were taken for it, all images together;
        the mean is over the classes that occur in either. By torchmetrics (the Jaccard index).
        """
        counted: Any = None
        classes: int | None = None
        loss, pixels, right, images = 0.0, 0, 0, 0
        with evaluation_mode(module):
            for each in batches:
                given = placed(split_batch(each), module)
                kind = given.inputs.device.type
                with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16-mixed"):
                    outputs = called(module, given.inputs)
                logits, wanted = _pixels(outputs, given.targets)
                classes = same_width(classes, logits, "classes")
                counted = counted or torch_metrics().classification.MulticlassJaccardIndex(
                    num_classes=classes, ignore_index=NOT_LABELLED
                )
                found, labelled = logits.argmax(1), wanted != NOT_LABELLED
                counted.update(found.cpu(), wanted.cpu())
                loss += float(_summed_loss(logits, wanted))
                right += int((found == wanted)[labelled].sum())
                pixels += int(labelled.sum())
                images += len(given)
        if not pixels:
            raise ShrinkbenchError("there are no labelled pixels to evaluate on; give a split with some")
        if not math.isfinite(loss):
            raise ShrinkbenchError(
                f"the network has diverged: its loss over {images} images is {loss}; lower the learning rate"
            )
        metrics = {"miou": float(counted.compute()), "pixel_accuracy": right / pixels, "loss": loss / pixels}
        return Quality(metrics=metrics, examples=images)


def _summed_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), wanted, ignore_index=NOT_LABELLED, reduction="sum")


def _pixels(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Logits (N, classes, H, W) and classes (N, H, W) of one size, or a sentence on why they are none."""
    logits = first_tensor(outputs)
    whole = isinstance(targets, Tensor) and not targets.is_floating_point() and not targets.is_complex()
    fits = whole and logits.dim() == 4 and targets.dim() == 3 and len(logits) == len(targets)
    if not fits or logits.shape[1] < 2:
        raise ShrinkbenchError(
            "semantic segmentation takes logits (N, classes, H, W) of two or more classes and targets (N, H, "
            f"W) of whole numbers, and here are {describe(logits)} and {describe(targets)}; give such"
        )
    wanted = targets.to(logits.device, torch.int64)
    known = wanted[wanted != NOT_LABELLED]
    if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < logits.shape[1]:
        raise ShrinkbenchError(
            f"targets name classes {int(known.min())} to {int(known.max())}, and the network tells "
            f"{logits.shape[1]} apart; give classes from 0, and {NOT_LABELLED} where nothing is labelled"
        )
    if logits.shape[2:] != wanted.shape[1:]:
        logits = F.interpolate(logits, size=wanted.shape[1:], mode="bilinear", align_corners=False)
    return logits, wanted


TASKS.add(SEMANTIC_SEGMENTATION.name, lambda *_: SemanticSegmentation())
