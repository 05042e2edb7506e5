"""From which weights training goes on after pruning."""

from __future__ import annotations

from dataclasses import dataclass

from shrinkbench.registry import Registry


@dataclass(frozen=True)
class Finetuning:
    """A named mode; the runner carries it out."""

    name: str
    description: str


FINETUNINGS: Registry[Finetuning] = Registry("fine-tuning mode")

continue_ = FINETUNINGS.add(
    "continue", Finetuning("continue", "go on from the weights that pruning left, with the mask fixed")
)
