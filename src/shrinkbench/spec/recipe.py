"""How a network is trained, as a value."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shrinkbench.spec.value import Value


class EarlyStopping(Value):
    """Stop when the headline metric on the validation split was not better for ``patience`` epochs in a row."""

    patience: int = Field(ge=1)


class Recipe(Value):
    """One training or fine-tuning setting, as values only.

    ``learning_rate`` is multiplied by ``decay`` after every epoch in ``milestones`` (schedule ``multistep``)
    or follows half a cosine to zero (``cosine``); ``warmup_epochs`` rise linearly before. ``selection`` names
    the weights that are evaluated on the test split: those of the last epoch, or of the epoch with the best
    headline metric of the task on the validation split (the first such epoch). ``best-test`` repeats what some
    papers did, choosing on the reported split; recipes that use it say so in their name, and every report flags
    them.
    ``largest_stretch`` bounds the factor by which a smaller network may train longer for the same computation.
    """

    name: str
    reference: str
    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: float = Field(gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(ge=1, lt=2**63)
    epochs: int = Field(ge=0, lt=2**63)
    schedule: Literal["constant", "multistep", "cosine"] = "constant"
    milestones: tuple[int, ...] = ()
    decay: float = Field(default=0.1, gt=0)
    warmup_epochs: int = Field(default=0, ge=0, lt=2**63)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_gradient_norm: float | None = Field(default=None, gt=0)
    augment: bool = True
    early_stopping: EarlyStopping | None = None
    selection: Literal["last", "best-validation", "best-test"] = "last"
    precision: Literal["float32", "bf16-mixed"] = "float32"
    largest_stretch: float | None = Field(default=None, ge=1)
