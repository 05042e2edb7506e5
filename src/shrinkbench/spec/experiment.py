"""The grid that a person writes, and how it is read from TOML."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import read_file
from shrinkbench.sources import split_reference
from shrinkbench.spec.constraints import Constraints, LayerGlob
from shrinkbench.spec.recipe import Recipe
from shrinkbench.spec.sequential import SeedsAdded, UntilDecided
from shrinkbench.spec.value import SafeName, TimedBatch, Value, parse_toml, parse_value


def _as_tuple(value: object) -> object:
    """Let a grid axis be written as one value or as a list of values."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


_MOST_PARENTS = 8
_MOST_RUNS = 40_000  # 155 MiB of a plan, and 1 GiB of memory to make it
_LARGEST = 1 << 20  # bytes of an experiment's file
# Strict: neither a truth value nor a text is a number here.
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Ratio = Annotated[float, Field(strict=True)]
Fraction = Annotated[float, Field(gt=0, lt=1, strict=True)]


Label = Annotated[str, Field(min_length=1, max_length=24, pattern=r"^\S(.*\S)?$")]


def _as_recipe(value: object) -> object:
    """A table is a recipe written out, called ``own`` where it has no name."""
    if isinstance(value, Mapping):
        return parse_value(Recipe, {"name": "own", "reference": "", **value}, where="the recipe table")
    return value


def _as_recipes(value: object) -> object:
    return None if value is None else tuple(map(_as_recipe, cast("tuple[object, ...]", _as_tuple(value))))


Recipes = Annotated[tuple[str | Recipe, ...], Field(min_length=1)]
AxisOfText = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]


class ExperimentSpec(Value):
    """A grid as a person writes it: every axis is one value or a list.

    ``recipe`` and ``pretrain_recipe`` may be left out: the dataset's card names its standard ones.
    ``finetune`` and ``pretrain`` override single fields of those recipes. ``extra`` names further evaluation
    splits (CIFAR-10.1, corrupted images), which become columns of the result table. ``latency`` lists batch
    sizes at which each pruned network is timed beside the unpruned one.

    How much is pruned stands in ``compression`` (original / kept parameters; 1 is the control),
    ``fraction_per_layer`` (removed of every layer's units), ``channels`` (removed of all channels) and
    ``speedup`` (original / kept multiply-adds; 1 is the control), one of them or several; a method whose name
    brings its amount along takes that in their place. ``round_to``, ``ignore`` and ``max_ratio`` are the
    :class:`~shrinkbench.spec.Constraints` within which each method of the grid prunes.

    A dataset, network, recipe or ``task`` (by default classification) of one's own is named by its file,
    ``FILE.py:NAME``; a recipe may be a table of its fields. ``plugin`` lists files that register methods or
    parts by other names. Such paths, and those of weights, count from the folder of the experiment's file.

    ``pretrain_seed`` is the seed from which ``pretrain`` weights are trained, once for the runs of all seeds;
    left out, each run's own. The rest of a run follows its own seed in any case: scoring, the order of data,
    weights that are drawn anew.

    ``weights_entry`` is the entry or prefix of the weights in their file (``state_dict_ema``), for weights of
    files. ``keep`` says what of each run's network is stored beside its result: nothing, its masks, or masks
    and weights; it decides no number, so no run's key knows it.

    ``labels`` are short names of methods for figures and tables; they decide no number, so no run's key knows
    them.

    With ``until_decided`` the grid is the most that is run: seeds are added in their order until the comparison
    is decided (:class:`~shrinkbench.spec.UntilDecided`).
    """

    name: SafeName
    description: str = ""
    reference: str = ""
    dataset: AxisOfText
    model: AxisOfText
    weights: AxisOfText = ("pretrain",)
    weights_entry: str | None = Field(default=None, min_length=1, max_length=200)
    method: AxisOfText
    compression: Annotated[tuple[Ratio, ...], BeforeValidator(_as_tuple)] = ()
    fraction_per_layer: Annotated[tuple[Fraction, ...], BeforeValidator(_as_tuple)] = ()
    channels: Annotated[tuple[Fraction, ...], BeforeValidator(_as_tuple)] = ()
    speedup: Annotated[tuple[Ratio, ...], BeforeValidator(_as_tuple)] = ()
    round_to: Annotated[int, Field(ge=1, lt=2**63, strict=True)] | None = None
    ignore: Annotated[tuple[LayerGlob, ...], BeforeValidator(_as_tuple)] = ()
    max_ratio: Fraction | None = None
    seed: Annotated[tuple[Seed, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (0,)
    task: str | None = None
    recipe: Annotated[Recipes | None, BeforeValidator(_as_recipes)] = None
    pretrain_recipe: Annotated[str | Recipe | None, BeforeValidator(_as_recipe)] = None
    finetune: dict[str, Any] = Field(default_factory=dict)
    pretrain: dict[str, Any] = Field(default_factory=dict)
    pretrain_seed: Seed | None = None
    prune_classifier: bool = False
    prune_biases: bool = False
    prune_embeddings: bool = False
    train_images: int | None = Field(default=None, ge=1, lt=2**63)
    validation_images: int | None = Field(default=None, ge=1, lt=2**63)
    test_images: int | None = Field(default=None, ge=1, lt=2**63)
    extra: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    latency: Annotated[tuple[TimedBatch, ...], BeforeValidator(_as_tuple)] = ()
    labels: dict[str, Label] = Field(default_factory=dict)
    plugin: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    keep: Literal["none", "masks", "weights"] = "none"
    until_decided: UntilDecided | None = None

    @model_serializer(mode="wrap")
    def _leave_out_embeddings(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Unless they are prunable, as before they could be: a grid is told from others by its fields."""
        fields: dict[str, Any] = handler(self)
        if not self.prune_embeddings:
            fields.pop("prune_embeddings", None)
        return fields

    @field_validator("labels")
    @classmethod
    def _no_label_twice(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        owners: dict[str, str] = {name: name for name in info.data.get("method", ())}
        for method, label in value.items():
            owner = owners.setdefault(label, method)
            if owner != method:
                raise ValueError(
                    f"methods '{owner}' and '{method}' are both called '{label}'; label them apart"
                )
        return value

    @model_validator(mode="after")
    def _some_amount(self) -> ExperimentSpec:
        if not (self.compression or self.fraction_per_layer or self.channels or self.speedup):
            raise ValueError("say how much to prune: compression, fraction_per_layer, channels or speedup")
        return self

    @model_validator(mode="after")
    def _so_many_runs(self) -> ExperimentSpec:
        if self.most_runs > _MOST_RUNS:
            raise ValueError(_too_many(self.most_runs))
        return self

    @model_validator(mode="after")
    def _seeds_of_the_design(self) -> ExperimentSpec:
        design = self.until_decided
        if design is not None and len(self.seed) != design.max_seeds:
            raise ValueError(
                f"until_decided takes {design.max_seeds} seeds, and seed lists {len(self.seed)}; list as many"
            )
        for name in design.compare if design is not None else ():
            if name not in self.method:
                raise ValueError(f"until_decided compares '{name}', which is none of the methods of this grid")
        return self

    @property
    def seeds_added(self) -> SeedsAdded | None:
        """How seeds are added until the comparison is decided, if they are."""
        rules = self.until_decided
        return SeedsAdded(rules=rules, seeds=self.seed) if rules is not None else None

    @property
    def most_runs(self) -> int:
        """The cells of the grid; methods that bring their own amount have fewer."""
        amounts = (*self.compression, *self.fraction_per_layer, *self.channels, *self.speedup)
        axes = (self.dataset, self.model, self.weights, self.recipe or (None,), self.method, amounts, self.seed)
        return math.prod(map(len, axes))

    @property
    def constraints(self) -> Constraints:
        """The bounds that every pruned network of the grid keeps to."""
        return Constraints(round_to=self.round_to, ignore=self.ignore, max_ratio=self.max_ratio)

    @property
    def has_controls(self) -> bool:
        """Whether the unpruned network is asked for."""
        return 1 in self.compression or 1 in self.speedup

    @field_validator("compression", "speedup")
    @classmethod
    def _at_least_one(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        for ratio in value:
            if not 1 <= ratio < float("inf"):
                raise ValueError(f"{info.field_name} {ratio:g} must be a finite number of at least 1")
        return value

    @field_validator(
        "dataset",
        "model",
        "weights",
        "method",
        "compression",
        "fraction_per_layer",
        "channels",
        "speedup",
        "ignore",
        "seed",
        "recipe",
    )
    @classmethod
    def _no_repeats(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("names a value twice")
        return value


def read_experiments(path: Path, overrides: Mapping[str, Any] | None = None) -> tuple[ExperimentSpec, ...]:
    """Read an experiment file: one grid, or one for each of its ``[[part]]`` tables.

    A part's keys stand in place of the file's; its name is added to the file's. ``overrides`` maps dotted keys
    to values and wins over both.
    """
    try:
        text = read_file(path, most=_LARGEST).decode("utf-8-sig")  # some editors begin with a mark
        data = parse_toml(text)
    except OSError as error:
        raise ShrinkbenchError(f"cannot read the experiment file {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ShrinkbenchError(f"cannot read the experiment file {path}: {error}; save it as UTF-8") from None
    except ValueError as error:
        raise ShrinkbenchError(f"{path} is not valid TOML: {error}") from None
    data = _located(data, path.parent)
    parts = data.pop("part", [{}])
    if not (isinstance(parts, list) and parts and all(isinstance(part, dict) for part in parts)):
        raise ShrinkbenchError(f"{path}: 'part' has to be a list of tables; write [[part]] above each of them")
    parts = [_located(part, path.parent) for part in parts]
    grids = [_overridden({**data, **part}, overrides or {}) for part in parts]
    names = [part.get("name") for part in parts]
    if len(parts) > 1 and len({str(name) for name in names} - {"None"}) < len(parts):
        raise ShrinkbenchError(f"{path}: each part needs a name of its own; its runs are stored under it")
    _give_out_labels(grids, path)
    base = (overrides or {}).get("name", data.get("name"))
    for grid, name in zip(grids, names, strict=True):
        if name is not None:
            grid["name"] = f"{base}-{name}"
    experiments = tuple(
        parse_value(ExperimentSpec, grid, where=str(path) if name is None else f"{path}, part '{name}'")
        for grid, name in zip(grids, names, strict=True)
    )
    runs = sum(experiment.most_runs for experiment in experiments)
    if runs > _MOST_RUNS:
        raise ShrinkbenchError(f"{path}: {_too_many(runs)}")
    return experiments


def _too_many(runs: int) -> str:
    return (
        f"the grid has {runs:,} runs, and up to {_MOST_RUNS:,} are planned; make several experiments of it, "
        "each with a folder of its own"
    )


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _located(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """``data`` with files that lie in or below ``folder`` named by their whole path."""
    found = dict(data)
    for key in ("dataset", "model", "task", "recipe", "pretrain_recipe", "weights", "plugin"):
        value = data.get(key)
        if isinstance(value, str):
            found[key] = _locate(value, folder)
        elif isinstance(value, list):
            found[key] = [_locate(each, folder) if isinstance(each, str) else each for each in value]
    return found


def _locate(text: str, folder: Path) -> str:
    file, *name = split_reference(text) or (text,)
    place = folder / file
    try:
        return ":".join([str(place), *name]) if file and place.is_file() else text
    except OSError:  # a text that is too long for a path is a name
        return text


def _give_out_labels(grids: Sequence[dict[str, Any]], path: Path) -> None:
    """Leave each grid the labels of its own methods; one of a method that no grid names is a mistake."""
    # What is no text is refused when the grid is read.
    methods = [[name for name in _listed(grid.get("method")) if isinstance(name, str)] for grid in grids]
    known = {name for names in methods for name in names}
    for grid, names in zip(grids, methods, strict=True):
        labels = grid.get("labels")
        if isinstance(labels, dict):
            unknown = sorted(set(labels) - known)
            if unknown:
                raise ShrinkbenchError(
                    f"{path}: labels names '{unknown[0]}', which is none of the methods of this file; write it "
                    "as it stands under method"
                )
            grid["labels"] = {name: label for name, label in labels.items() if name in names}


def _overridden(data: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` with the values of dotted keys replaced."""
    data = copy.deepcopy(data)
    for key, value in overrides.items():
        *parents, last = key.split(".")
        if len(parents) > _MOST_PARENTS:
            raise ShrinkbenchError(f"--set {one_line(key, 60)}: no key lies that deep; write table.key")
        table = data
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ShrinkbenchError(f"--set {key}: '{parent}' is not a table; set '{parent}' itself")
        table[last] = value
    return data
