"""What is learned, as a value: the objective, the data, the network and the weights before pruning.

Two runs belong together exactly when their :class:`TaskSpec` are equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from shrinkbench.spec.measures import LARGEST_FLOAT32
from shrinkbench.spec.recipe import Recipe
from shrinkbench.spec.value import Digest, Seed, Value

# The names of classes, which anybody gives, are parts of some of them.
MetricName = Annotated[str, Field(pattern=r"^\P{C}+$", max_length=200)]


class MetricSpec(Value):
    """A measure of quality: which direction is better, its unit, and the bounds that no value can leave.

    An infinite bound bounds nothing, and is none.

    >>> MetricSpec(name="error", direction="lower", unit="", lower=0, upper=math.inf).upper is None
    True
    """

    name: MetricName
    direction: Literal["higher", "lower"]
    unit: str
    lower: float | None = None
    upper: float | None = None

    @field_validator("lower", "upper", mode="before")
    @classmethod
    def _infinite_is_none(cls, value: object, info: ValidationInfo) -> object:
        nothing = -math.inf if info.field_name == "lower" else math.inf
        return None if isinstance(value, float) and value == nothing else value

    @model_validator(mode="after")
    def _has_room(self) -> MetricSpec:
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"the lower bound {self.lower:g} is above the upper, {self.upper:g}")
        return self

    def complaint(self, value: float) -> str | None:
        """What is wrong with ``value``, if anything is.

        >>> MetricSpec(name="top1", direction="higher", unit="fraction", lower=0, upper=1).complaint(1.2)
        'top1 = 1.2 is above 1'
        """
        if not math.isfinite(value):
            return f"{self.name} = {value} is not a finite number"
        if abs(value) > LARGEST_FLOAT32:
            return f"{self.name} = {value:g} is beyond float32, whose largest number is {LARGEST_FLOAT32:g}"
        if self.lower is not None and value < self.lower:
            return f"{self.name} = {value:g} is below {self.lower:g}"
        if self.upper is not None and value > self.upper:
            return f"{self.name} = {value:g} is above {self.upper:g}"
        return None


class Objective(Value):
    """The kind of task: its loss, its metrics by name, and the one that a comparison leads with."""

    name: str
    version: int = Field(default=1, ge=0)
    source: Digest | None = None
    loss: str
    metrics: tuple[MetricSpec, ...] = Field(min_length=1)
    headline: str

    @model_validator(mode="after")
    def _has_its_headline(self) -> Objective:
        names = [metric.name for metric in self.metrics]
        if self.headline not in names:
            raise ValueError(f"the headline '{self.headline}' is none of the metrics {', '.join(names)}")
        if len(set(names)) < len(names):
            raise ValueError(f"two metrics have one name: {', '.join(names)}")
        return self

    def metric(self, name: str) -> MetricSpec:
        """The metric of that name."""
        return next(metric for metric in self.metrics if metric.name == name)


CLASSIFICATION = Objective(
    name="classification",
    loss="cross-entropy",
    metrics=(
        MetricSpec(name="top1", direction="higher", unit="fraction", lower=0, upper=1),
        MetricSpec(name="top5", direction="higher", unit="fraction", lower=0, upper=1),
        MetricSpec(name="loss", direction="lower", unit="nats", lower=0),
    ),
    headline="top1",
)


def detection_of(classes: Sequence[str]) -> Objective:
    """Boxes of objects: mean average precision at an overlap of 0.5, and that of each of ``classes``.

    The classes' metrics stand in order of their labels, which count from 1.

    >>> [metric.name for metric in detection_of(("cat", "dog")).metrics]
    ['map50', 'ap50_cat', 'ap50_dog']
    """
    names = ("map50", *(f"ap50_{name}" for name in classes))
    return Objective(
        name="detection",
        version=3,
        loss="faster-rcnn",
        metrics=tuple(
            MetricSpec(name=name, direction="higher", unit="fraction", lower=0, upper=1) for name in names
        ),
        headline="map50",
    )


DETECTION = detection_of(())


class Normalisation(Value):
    """Per-channel affine map ``(x - mean) / std`` of pixels scaled to [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET_NORMALISATION = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class DataSpec(Value):
    """A dataset as a run sees it: ``revision`` is a digest of its content, subsets are the first images.

    ``source`` is a digest of the code that reads it, where that came from outside this package. ``sides`` are
    those that images of any size are scaled to: the shorter is the first, unless the longer were beyond the
    second then.
    """

    name: str
    revision: str
    source: Digest | None = None
    normalisation: Normalisation
    train_images: int | None = Field(default=None, ge=1, lt=2**63)
    validation_images: int | None = Field(default=None, ge=1, lt=2**63)
    test_images: int | None = Field(default=None, ge=1, lt=2**63)
    sides: tuple[int, int] | None = None


class ExtraSpec(Value):
    """A further evaluation split, read only when a run is measured; ``revision`` is a digest of its content."""

    name: str
    revision: str
    source: Digest | None = None


class ModelSpec(Value):
    """A network by name; ``source`` is a digest of its code where that came from outside this package."""

    name: str
    version: int = Field(default=1, ge=0)
    source: Digest | None = None


class WeightsSpec(Value):
    """Where the weights before pruning come from.

    ``kind`` is ``pretrain`` (trained here by ``recipe``, by default from the run's seed), ``random``
    (initialised from the seed, not trained) or ``file`` (``digest`` is the SHA-256 of the file, wherever it
    came from). One that is trained here begins with those of the file where there is a ``digest``. ``entry`` is
    the entry or prefix of the weights in their file, where one was named, and ``seed`` the one from which they
    are trained here for the runs of all seeds; keys of tasks without one do not know the field.
    """

    kind: Literal["pretrain", "random", "file"]
    name: str
    digest: Digest | None = None
    recipe: Recipe | None = None
    entry: str | None = Field(
        default=None, min_length=1, max_length=200, exclude_if=lambda entry: entry is None
    )
    seed: Seed | None = Field(default=None, exclude_if=lambda seed: seed is None)

    @model_validator(mode="after")
    def _seed_of_training(self) -> WeightsSpec:
        if self.seed is not None and (self.kind != "pretrain" or self.recipe is None):
            raise ValueError("a seed is of weights that are trained here; leave it out")
        return self

    @property
    def are_shared(self) -> bool:
        """Whether runs of all seeds start from one network."""
        return self.kind == "file" or self.seed is not None


class TaskSpec(Value):
    """The question that methods are compared on."""

    objective: Objective = CLASSIFICATION
    data: DataSpec
    model: ModelSpec
    weights: WeightsSpec
