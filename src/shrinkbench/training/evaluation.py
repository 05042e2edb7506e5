"""Quality of a network on one split."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.probe import evaluation_mode, first_tensor
from shrinkbench.spec.measures import Quality


@torch.inference_mode()
def evaluate(
    module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, precision: str = "float32"
) -> Quality:
    """Top-1, top-5 (fractions of images) and mean cross-entropy (nats) over all images of ``batches``.

    Sums run over images, so a short last batch weighs what it holds. With fewer than five classes, top-5 is
    the fraction among all of them, which is 1. The network is evaluated in evaluation mode; modes are restored.
    """
    sums: Tensor | None = None
    images = 0
    with evaluation_mode(module):
        for inputs, labels in batches:
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                logits = first_tensor(module(inputs))
            logits = logits.float()
            ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels.unsqueeze(1)
            loss = F.cross_entropy(logits, labels, reduction="sum")
            batch = torch.stack([ranked[:, 0].sum(), ranked.sum(), loss]).double()
            sums = batch if sums is None else sums + batch
            images += len(labels)
    if sums is None:
        raise ShrinkbenchError("there are no images to evaluate on; give a split with at least one image")
    top1, top5, loss = (sums / images).tolist()
    return Quality(metrics={"top1": top1, "top5": top5, "loss": loss}, examples=images)
