"""How a network is trained, as a value."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from shrinkbench.spec.value import Value


class EarlyStopping(Value):
    """Stop when the headline metric on the validation split was not better for ``patience`` epochs in a row."""

    patience: int = Field(ge=1)


class Distillation(Value):
    """The unpruned network as a teacher (Hinton et al. 2015).

    The loss is ``(1 - weight) * loss + weight * temperature^2 * KL(teacher || network)``, both softmaxes taken
    at ``temperature``.
    """

    temperature: float = Field(default=4.0, gt=0, le=1000)
    weight: float = Field(default=0.5, gt=0, le=1)


class Averaging(Value):
    """The weights are the mean of those after each of the last ``epochs`` epochs (Izmailov et al. 2018)."""

    epochs: int = Field(ge=2, lt=2**63)


class Recipe(Value):
    """One training or fine-tuning setting, as values only.

    ``learning_rate`` is multiplied by ``decay`` after every epoch in ``milestones`` (schedule ``multistep``)
    or follows half a cosine to zero (``cosine``); ``warmup_epochs`` rise linearly before. ``selection`` names
    the weights that are evaluated on the test split: those of the last epoch, or of the epoch with the best
    headline metric of the task on the validation split (the first such epoch). ``best-test`` repeats what some
    papers did, choosing on the reported split; recipes that use it say so in their name, and every report flags
    them.
    ``largest_stretch`` bounds the factor by which a smaller network may train longer for the same computation.
    ``distillation`` adds a teacher to the loss, ``averaging`` takes the mean of several epochs' weights; a
    recipe without them has no entry for them.
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
    distillation: Distillation | None = None
    averaging: Averaging | None = None

    @model_validator(mode="after")
    def _averages_the_last(self) -> Recipe:
        if self.averaging is None:
            return self
        if self.selection != "last" or self.early_stopping is not None:
            raise ValueError(
                "averaging is of the last epochs; set selection = 'last' and early_stopping = 'none'"
            )
        if self.averaging.epochs > self.epochs:
            raise ValueError(f"averaging is of {self.averaging.epochs} epochs, and there are {self.epochs}")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without teacher and mean, as it was before there were any: so keys stay what they are."""
        fields: dict[str, Any] = handler(self)
        for name in ("distillation", "averaging"):
            if getattr(self, name) is None:
                fields.pop(name, None)
        return fields


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Learning rate of ``epoch`` (counted from 1).

    >>> steps = {"schedule": "multistep", "milestones": (80, 120), "epochs": 160}
    >>> recipe = Recipe(name="r", reference="", optimizer="sgd", learning_rate=0.1, batch_size=8, **steps)
    >>> [round(learning_rate(recipe, e), 6) for e in (1, 80, 81, 121)]
    [0.1, 0.1, 0.01, 0.001]
    """
    done = epoch - 1
    if done < recipe.warmup_epochs:
        return recipe.learning_rate * (done + 1) / (recipe.warmup_epochs + 1)
    if recipe.schedule == "multistep":
        return recipe.learning_rate * recipe.decay ** sum(done >= m for m in recipe.milestones)
    if recipe.schedule == "cosine":
        progress = (done - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1)
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return recipe.learning_rate
