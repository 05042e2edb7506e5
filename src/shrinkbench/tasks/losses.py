"""Losses over the parts of a batch that have something to learn."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def mean_cross_entropy(logits: Tensor, wanted: Tensor, *, ignored: int, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy (nats) where ``wanted`` is not ``ignored``; 0, with such gradients, where all is."""
    if not bool((wanted != ignored).any()):
        return logits.sum() * 0  # a mean over none is no number
    return F.cross_entropy(logits, wanted, ignore_index=ignored, label_smoothing=smoothing)
