"""What a run is made of: frozen values, resolved to the last number, and the key over all of them.

An :class:`ExperimentSpec` is what a person writes (a grid, in TOML); a :class:`RunSpec` is one cell of it
with nothing left to defaults. Two runs are the same run exactly when their keys are equal.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from shrinkbench.errors import ShrinkbenchError

ValueT = TypeVar("ValueT", bound="Value")


class Value(BaseModel):
    """Base of every stored value: immutable, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Normalisation(Value):
    """Per-channel affine map ``(x - mean) / std`` of pixels scaled to [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET_NORMALISATION = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class EarlyStopping(Value):
    """Stop when validation top-1 has not risen for ``patience`` epochs in a row."""

    patience: int = Field(ge=1)


class Recipe(Value):
    """One training or fine-tuning setting, as values only.

    ``learning_rate`` is multiplied by ``decay`` after every epoch in ``milestones`` (schedule ``multistep``)
    or follows half a cosine to zero (``cosine``); ``warmup_epochs`` rise linearly before. ``selection`` names
    the weights that are evaluated on the test split: those of the last epoch, or of the epoch with the
    highest validation top-1 (the first such epoch). ``best-test`` repeats what some papers did, choosing on
    the reported split; recipes that use it say so in their name, and every report flags them.
    ``largest_stretch`` bounds the factor by which a smaller network may train longer for the same computation.
    """

    name: str
    reference: str
    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: float = Field(gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=0)
    schedule: Literal["constant", "multistep", "cosine"] = "constant"
    milestones: tuple[int, ...] = ()
    decay: float = Field(default=0.1, gt=0)
    warmup_epochs: int = Field(default=0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_gradient_norm: float | None = Field(default=None, gt=0)
    augment: bool = True
    early_stopping: EarlyStopping | None = None
    selection: Literal["last", "best-validation", "best-test"] = "last"
    precision: Literal["float32", "bf16-mixed"] = "float32"
    largest_stretch: float | None = Field(default=None, ge=1)


class DataSpec(Value):
    """A dataset as a run sees it: ``revision`` is a digest of its content, subsets are the first images."""

    name: str
    revision: str
    normalisation: Normalisation
    train_images: int | None = Field(default=None, ge=1)
    validation_images: int | None = Field(default=None, ge=1)
    test_images: int | None = Field(default=None, ge=1)


class ExtraSpec(Value):
    """A further evaluation split, read only when a run is measured; ``revision`` is a digest of its content."""

    name: str
    revision: str


class WeightsSpec(Value):
    """Where the weights before pruning come from.

    ``kind`` is ``pretrain`` (trained here by ``recipe`` from the run's seed), ``random`` (initialised from
    the seed, not trained) or ``file`` (``digest`` is the SHA-256 of the file, wherever it came from).
    """

    kind: Literal["pretrain", "random", "file"]
    name: str
    digest: str | None = None
    recipe: Recipe | None = None


class MethodSpec(Value):
    """A pruning method by its axes; ``source`` is a digest of its code where a plug-in supplied it.

    ``start`` is which weights it prunes first: ``trained`` ones, or those at ``initialisation``.
    """

    name: str
    structure: str
    score: str
    allocation: str
    schedule: str
    finetuning: str
    start: Literal["trained", "initialisation"] = "trained"
    source: str | None = None

    @property
    def from_scratch(self) -> bool:
        """Whether the pruned architecture is trained from random weights, and nothing else is kept."""
        return self.finetuning in ("scratch-e", "scratch-b")

    @property
    def name_without_finetuning(self) -> str:
        """The method whose fine-tuning is varied: ``m`` of ``m[finetuning=scratch-e]``; other axes stay."""
        return re.sub(r",?finetuning=[^,\]]*", "", self.name).replace("[,", "[").removesuffix("[]")


class RunSpec(Value):
    """One run, resolved in full.

    ``compression`` is original parameters / kept parameters, at least 1, over the whole network. ``recipe`` is
    the training whose outcome is measured; ``search`` that of a method which prunes while it trains, where
    another training follows.
    """

    data: DataSpec
    model: str
    weights: WeightsSpec
    method: MethodSpec
    compression: float = Field(ge=1)
    seed: int = Field(ge=0)
    recipe: Recipe
    search: Recipe | None = None
    prune_classifier: bool = False
    prune_biases: bool = False
    extra: tuple[ExtraSpec, ...] = ()

    @property
    def key(self) -> str:
        """SHA-256 over the canonical JSON of every resolved value."""
        return digest(self)

    @property
    def pretraining(self) -> PretrainSpec | None:
        """What has to be trained first, for ``pretrain`` weights and methods that start from trained ones."""
        if self.weights.recipe is None or self.method.start == "initialisation":
            return None
        return PretrainSpec(data=self.data, model=self.model, recipe=self.weights.recipe, seed=self.seed)

    @property
    def searching(self) -> RunSpec | None:
        """The run that only finds the masks: equal for all that differ in the training afterwards."""
        if self.search is None or self.compression == 1:
            return None
        name = self.method.name_without_finetuning
        method = self.method.model_copy(update={"name": name, "finetuning": "continue"})
        return self.model_copy(update={"method": method, "recipe": self.search, "search": None, "extra": ()})

    @property
    def control(self) -> RunSpec:
        """The unpruned network under the same fine-tuning: equal for every method that has the same."""
        same = {"finetuning": self.method.finetuning, "start": self.method.start}
        if self.method.from_scratch:  # nothing pruned: equal epochs are equal computation
            same = {"finetuning": "scratch-e", "start": "initialisation"}
        elif self.search is not None:  # in place of a training that prunes stands one that does not
            same["start"] = "trained"
        return self.model_copy(
            update={
                "method": CONTROL_METHOD.model_copy(update=same),
                "compression": 1.0,
                "search": None,
                "prune_classifier": False,
                "prune_biases": False,
            }
        )


class PretrainSpec(Value):
    """A network trained here: everything that its weights follow from."""

    data: DataSpec
    model: str
    recipe: Recipe
    seed: int = Field(ge=0)

    @property
    def key(self) -> str:
        """SHA-256 over the canonical JSON of every value."""
        return digest(self)


CONTROL_METHOD = MethodSpec(
    name="control", structure="none", score="none", allocation="none", schedule="none", finetuning="continue"
)


def digest(value: Value, *, as_written: bool = False) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``.

    ``as_written`` leaves out fields that the file did not have from which ``value`` was read: an earlier
    version, which did not know them, computed its keys without.

    >>> digest(EarlyStopping(patience=3)) == digest(EarlyStopping(patience=3))
    True
    """
    fields = value.model_dump(mode="json", exclude_unset=as_written)
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _as_tuple(value: object) -> object:
    """Let a grid axis be written as one value or as a list of values."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Seed = Annotated[int, Field(ge=0)]
AxisOfText = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]


class ExperimentSpec(Value):
    """A grid as a person writes it: every axis is one value or a list.

    ``recipe`` and ``pretrain_recipe`` may be left out: the dataset's card names its standard ones.
    ``finetune`` and ``pretrain`` override single fields of those recipes. ``extra`` names further evaluation
    splits (CIFAR-10.1, corrupted images), which become columns of the result table. ``latency`` lists batch
    sizes at which each pruned network is timed beside the unpruned one.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    reference: str = ""
    dataset: AxisOfText
    model: AxisOfText
    weights: AxisOfText = ("pretrain",)
    method: AxisOfText
    compression: Annotated[tuple[float, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
    seed: Annotated[tuple[Seed, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (0,)
    recipe: AxisOfText | None = None
    pretrain_recipe: str | None = None
    finetune: dict[str, Any] = Field(default_factory=dict)
    pretrain: dict[str, Any] = Field(default_factory=dict)
    prune_classifier: bool = False
    prune_biases: bool = False
    train_images: int | None = Field(default=None, ge=1)
    validation_images: int | None = Field(default=None, ge=1)
    test_images: int | None = Field(default=None, ge=1)
    extra: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    latency: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_as_tuple)] = ()

    @field_validator("compression")
    @classmethod
    def _at_least_one(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        for compression in value:
            if not 1 <= compression < float("inf"):
                raise ValueError(f"compression {compression:g} must be a finite number of at least 1")
        return value

    @field_validator("dataset", "model", "weights", "method", "compression", "seed", "recipe")
    @classmethod
    def _no_repeats(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("names a value twice")
        return value


def parse_value(kind: type[ValueT], data: Mapping[str, Any], *, where: str) -> ValueT:
    """Validate ``data`` as ``kind``; a violation becomes one sentence that names field, value and place."""
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "value"
        if first["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise ShrinkbenchError(f"{where}: unknown key '{field}'; known keys: {known}") from None
        if first["type"] == "missing":
            raise ShrinkbenchError(f"{where}: the key '{field}' is missing; add it") from None
        message = first["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        raise ShrinkbenchError(f"{where}: {field} = {first['input']!r}: {message}") from None


def read_experiments(path: Path, overrides: Mapping[str, Any] | None = None) -> tuple[ExperimentSpec, ...]:
    """Read an experiment file: one grid, or one for each of its ``[[part]]`` tables.

    A part's keys stand in place of the file's; its name is added to the file's. ``overrides`` maps dotted keys
    to values and wins over both.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ShrinkbenchError(f"cannot read the experiment file {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ShrinkbenchError(f"{path} is not valid TOML: {error}") from None
    parts = data.pop("part", [{}])
    if not (isinstance(parts, list) and parts and all(isinstance(part, dict) for part in parts)):
        raise ShrinkbenchError(f"{path}: 'part' has to be a list of tables; write [[part]] above each of them")
    grids = [_overridden({**data, **part}, overrides or {}) for part in parts]
    names = [part.get("name") for part in parts]
    if len(parts) > 1 and len({str(name) for name in names} - {"None"}) < len(parts):
        raise ShrinkbenchError(f"{path}: each part needs a name of its own; its runs are stored under it")
    base = (overrides or {}).get("name", data.get("name"))
    for grid, name in zip(grids, names, strict=True):
        if name is not None:
            grid["name"] = f"{base}-{name}"
    return tuple(
        parse_value(ExperimentSpec, grid, where=str(path) if name is None else f"{path}, part '{name}'")
        for grid, name in zip(grids, names, strict=True)
    )


def _overridden(data: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` with the values of dotted keys replaced."""
    data = copy.deepcopy(data)
    for key, value in overrides.items():
        *parents, last = key.split(".")
        table = data
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ShrinkbenchError(f"--set {key}: '{parent}' is not a table; set '{parent}' itself")
        table[last] = value
    return data
