"""One of several classes for each example: cross-entropy, top-1 and top-5."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Batch, describe, split_batch
from shrinkbench.network.probe import evaluation_mode, first_tensor
from shrinkbench.spec import CLASSIFICATION, Objective, Recipe
from shrinkbench.spec.measures import Quality
from shrinkbench.tasks.batches import called, join_last, placed, same_width
from shrinkbench.tasks.task import TASKS, Batches


@dataclass(frozen=True)
class Classification:
    """Batches are pairs of inputs and labels (int64, one per example), or dictionaries with ``labels``."""

    objective: Objective = CLASSIFICATION
    averages: ClassVar[bool] = True  # metrics are means over examples

    def training_batches(self, batches: Batches) -> Iterator[Batch]:
        """Join a last batch of one image to the one before: batch norm has no variance over one image."""
        yield from join_last(batches)

    def loss(self, module: nn.Module, batch: Any, recipe: Recipe) -> tuple[Tensor, int]:
        """Mean cross-entropy (nats), with the recipe's label smoothing."""
        given = placed(split_batch(batch), module)
        inputs, labels = given.inputs, given.targets
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            logits = first_tensor(called(module, inputs))
            _check_shapes(logits, labels)
            if labels.device.type == "cpu":  # elsewhere the question would wait for the device at every step
                _check_range(logits, labels)
            loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        return loss, len(labels)

    @torch.inference_mode()
    def evaluate(self, module: nn.Module, batches: Batches, *, precision: str = "float32") -> Quality:
        """Top-1, top-5 (fractions of examples) and mean cross-entropy (nats) over all of ``batches``.

        Sums run over examples, so a short last batch weighs what it holds. With fewer than five classes, top-5
        is the fraction among all of them, which is 1. Raises ``ShrinkbenchError`` where outputs are no scores
        of classes, labels no classes, or the loss is not finite.
        """
        sums: Tensor | None = None
        classes: int | None = None
        images = 0
        with evaluation_mode(module):
            for given in batches:
                split = placed(split_batch(given), module)
                inputs, labels = split.inputs, split.targets
                with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                    logits = first_tensor(called(module, inputs))
                _check_shapes(logits, labels)
                _check_range(logits, labels)
                classes = same_width(classes, logits, "classes")
                logits = logits.float()
                ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels.unsqueeze(1)
                loss = F.cross_entropy(logits, labels, reduction="sum")
                broken = (~torch.isfinite(logits).all(dim=1)).sum()
                batch = torch.stack([ranked[:, 0].sum(), ranked.sum(), loss, broken]).double()
                sums = batch if sums is None else sums + batch
                images += len(labels)
        if sums is None or not images:
            raise ShrinkbenchError("there are no images to evaluate on; give a split with at least one image")
        top1, top5, loss, broken_part = (sums / images).tolist()
        if 0 < broken_part < 1:
            raise ShrinkbenchError(
                f"the network's scores of {round(broken_part * images)} of {images} images are not finite, and "
                "those of the others are; look for NaN and infinity in these data, or for scores that overflow"
            )
        if not math.isfinite(loss):
            raise ShrinkbenchError(
                f"the network has diverged: its mean loss over {images} images is {loss}; lower the learning "
                "rate, or look for NaN in the data"
            )
        return Quality(metrics={"top1": top1, "top5": top5, "loss": loss}, examples=images)


TASKS.add(CLASSIFICATION.name, Classification)


def _check_shapes(logits: Tensor, labels: Any) -> None:
    """Refuse outputs that are no scores of classes: their top-1 and cross-entropy would mean nothing."""
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ShrinkbenchError(
            f"classification takes a score for each of two or more classes, of shape (examples, classes), and "
            f"the network gives {tuple(logits.shape)}; pass a classifier, or task= of another kind"
        )
    if not isinstance(labels, Tensor):
        raise ShrinkbenchError(
            f"classification takes labels, and the targets of a batch are {describe(labels)}; give (inputs, "
            "labels) or dictionaries with 'labels'"
        )
    if labels.dtype not in (torch.int64, torch.uint8) or labels.shape != logits.shape[:1]:
        raise ShrinkbenchError(
            f"classification takes one whole number as label of each of {len(logits)} examples, and the "
            f"labels are {str(labels.dtype).removeprefix('torch.')} of shape {tuple(labels.shape)}; give "
            "classes from 0 as int64"
        )


def _check_range(logits: Tensor, labels: Tensor) -> None:
    """Refuse labels that name no output of the network."""
    if not labels.numel():
        return
    lowest, highest = (int(end) for end in labels.aminmax())
    classes = logits.shape[1]
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise ShrinkbenchError(
            f"the label {wrong} is none of the {classes} classes that the network tells apart (0 to "
            f"{classes - 1}); give labels from 0, and a network of as many outputs as there are classes"
        )
