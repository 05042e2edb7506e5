"""Fixed rules that cut splits and order images; none of them draws a random number."""

from __future__ import annotations

import torch
from torch import Tensor


def occurrence(labels: Tensor) -> Tensor:
    """How many images of the same class come before each image: shape (N,), int64.

    >>> occurrence(torch.tensor([3, 1, 3, 3, 1])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = torch.argsort(labels, stable=True)
    ordered = labels[order]
    starts = torch.searchsorted(ordered, ordered)
    position = torch.empty_like(order)
    position[order] = torch.arange(len(labels)) - starts
    return position


def every_nth(labels: Tensor, n: int, *, offset: int | None = None) -> tuple[Tensor, Tensor]:
    """Cut each class in stored order: its images number ``offset``, ``offset + n``, ... go to the second part.

    Returns the ascending rows of the first part and of the second. ``offset`` is ``n - 1`` by default, so the
    second part holds 1/n of each class, rounded down.

    >>> [part.tolist() for part in every_nth(torch.tensor([0, 0, 0, 1, 1, 1]), 3)]
    [[0, 1, 3, 4], [2, 5]]
    """
    taken = occurrence(labels) % n == (n - 1 if offset is None else offset)
    return (~taken).nonzero().flatten(), taken.nonzero().flatten()


def balanced_order(labels: Tensor) -> Tensor:
    """Rows ordered so that every beginning is as balanced as the classes allow: shape (N,), int64.

    First comes the first image of each class (classes ascending), then the second of each, and so on.

    >>> balanced_order(torch.tensor([1, 1, 1, 0])).tolist()
    [3, 0, 1, 2]
    """
    by_class = torch.argsort(labels, stable=True)
    return by_class[torch.argsort(occurrence(labels)[by_class], stable=True)]
