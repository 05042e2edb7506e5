"""What is removed together.

A structure turns weight-shaped scores into one score per unit and a decision per unit back into masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from shrinkbench.registry import Registry


@dataclass(frozen=True)
class Units:
    """The units of one parameter: a score each (any shape), and how many weights a unit holds."""

    scores: Tensor
    size: int = 1

    @property
    def total(self) -> int:
        """Weights in all units together."""
        return self.scores.numel() * self.size


@dataclass(frozen=True)
class Structure:
    """How weights are grouped: ``group`` scores units, ``expand`` turns kept units into a mask."""

    name: str
    description: str
    group: Callable[[Tensor], Units]
    expand: Callable[[Tensor, torch.Size], Tensor]


STRUCTURES: Registry[Structure] = Registry("structure")

weights = STRUCTURES.add(
    "weights",
    Structure(
        "weights",
        "single weights (unstructured)",
        group=lambda scores: Units(scores),
        expand=lambda keep, shape: keep.reshape(shape),
    ),
)
