"""The named training and fine-tuning settings. Values only: what a number does is in spec.Recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.registry import Registry
from shrinkbench.spec import EarlyStopping, Recipe, parse_value

RECIPES: Registry[Recipe] = Registry("recipe", of=Recipe)


@RECIPES.take_objects
def _recipe_of(name: str, found: object) -> Recipe:
    """A recipe as it is, or its fields; a function is called for either."""
    value = found() if callable(found) else found
    if isinstance(value, Recipe):
        return value
    if not isinstance(value, dict):
        raise ShrinkbenchError(
            f"'{name}' is a {type(value).__name__}; let it be a Recipe, a dictionary of its fields, or a "
            "function that returns one"
        )
    return recipe_from(value, name=name)


def recipe_from(fields: Mapping[str, Any], *, name: str) -> Recipe:
    """The recipe of ``fields``, called ``name`` where they do not say."""
    return parse_value(Recipe, {"name": name, "reference": "", **fields}, where=f"recipe '{name}'")


def _add(**fields: Any) -> None:
    recipe = Recipe(**fields)
    RECIPES.add(recipe.name, recipe)


NONE = "none"  # a file of TOML has no other word for it


def with_overrides(recipe: Recipe, overrides: dict[str, Any]) -> Recipe:
    """``recipe`` with single fields replaced and checked; ``"none"`` is no early stopping, no averaging, ..."""
    if not overrides:
        return recipe
    optional = {name for name, field in Recipe.model_fields.items() if field.default is None}
    given = {n: None if n in optional and v == NONE else v for n, v in overrides.items()}
    return parse_value(Recipe, {**recipe.model_dump(), **given}, where=f"recipe '{recipe.name}'")


# Appendix C.2 of Blalock et al. 2020. "If the validation accuracy repeatedly decreases after some point we
# stop"; the paper gives no number of epochs, ours is five.
_BLALOCK: dict[str, Any] = {
    "reference": "blalock2020state",
    "schedule": "constant",
    "early_stopping": EarlyStopping(patience=5),
    "selection": "best-validation",
}
_add(name="cifar-finetune", optimizer="adam", learning_rate=3e-4, batch_size=64, epochs=30, **_BLALOCK)
_add(
    name="imagenet-finetune",
    optimizer="sgd",
    learning_rate=1e-3,
    momentum=0.9,
    nesterov=True,
    batch_size=256,
    epochs=20,
    **_BLALOCK,
)
# Figure 8 of the same paper: two sets of weights that differ in Adam's learning rate alone ("A" and "B").
for _label, _rate in (("a", 1e-3), ("b", 1e-4)):
    _add(
        name=f"cifar-train-adam-{_label}",
        reference="blalock2020state",
        optimizer="adam",
        learning_rate=_rate,
        batch_size=64,
        epochs=160,
        early_stopping=EarlyStopping(patience=20),
        selection="best-validation",
    )

# The digits are small enough that seconds of training suffice, and so are data of one's own without a recipe.
for _data in ("digits", "small"):
    _add(
        name=f"{_data}-train",
        reference="shrinkbench",
        optimizer="adam",
        learning_rate=3e-3,
        batch_size=64,
        epochs=20,
        schedule="cosine",
        selection="last",
    )
    _add(
        name=f"{_data}-finetune",
        reference="shrinkbench",
        optimizer="adam",
        learning_rate=1e-3,
        batch_size=64,
        epochs=15,
        early_stopping=EarlyStopping(patience=5),
        selection="best-validation",
    )

# Language models of a million parameters on text of a few megabytes.
_add(
    name="text-train",
    reference="shrinkbench",
    optimizer="adamw",
    learning_rate=3e-3,
    weight_decay=0.1,
    batch_size=32,
    epochs=4,
    schedule="cosine",
    warmup_epochs=0,
    clip_gradient_norm=1.0,
    augment=False,
)
_add(
    name="text-finetune",
    reference="shrinkbench",
    optimizer="adamw",
    learning_rate=3e-4,
    batch_size=32,
    epochs=1,
    schedule="cosine",
    clip_gradient_norm=1.0,
    augment=False,
)

# Liu et al. 2019 as their released code has it: no Nesterov momentum, constant fine-tuning rate. On ImageNet
# training from scratch is doubled at most.
_LIU: dict[str, Any] = {
    "reference": "liu2019rethinking",
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-4,
}
_add(
    name="cifar-train",
    learning_rate=0.1,
    batch_size=64,
    epochs=160,
    schedule="multistep",
    milestones=(80, 120),
    **_LIU,
)
_add(
    name="cifar-train-best-test-epoch",
    learning_rate=0.1,
    batch_size=64,
    epochs=160,
    schedule="multistep",
    milestones=(80, 120),
    selection="best-test",
    **_LIU,
)
for _epochs in (40, 80, 160):
    _add(
        name=f"cifar-finetune-liu-{_epochs}",
        learning_rate=1e-3,
        batch_size=64,
        epochs=_epochs,
        **_LIU,
    )
_add(
    name="cifar-train-300",
    learning_rate=0.1,
    batch_size=64,
    epochs=300,
    schedule="multistep",
    milestones=(150, 225),
    **_LIU,
)
_add(
    name="cifar-train-small-rate",
    learning_rate=0.01,
    batch_size=64,
    epochs=160,
    schedule="multistep",
    milestones=(80, 120),
    **_LIU,
)
_add(
    name="cifar-train-sfp",
    reference="liu2019rethinking",
    optimizer="sgd",
    learning_rate=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    batch_size=128,
    epochs=200,
    schedule="multistep",
    milestones=(60, 120, 160),
    decay=0.2,
)
_add(
    name="imagenet-train",
    learning_rate=0.1,
    batch_size=256,
    epochs=90,
    schedule="multistep",
    milestones=(30, 60),
    largest_stretch=2,
    **_LIU,
)
_add(
    name="imagenet-train-plain-vgg",
    learning_rate=0.01,
    batch_size=256,
    epochs=90,
    schedule="multistep",
    milestones=(30, 60),
    largest_stretch=2,
    **_LIU,
)
_add(name="imagenet-finetune-liu", learning_rate=1e-3, batch_size=256, epochs=20, **_LIU)

# Lottery tickets (Frankle and Carbin 2019; the CIFAR settings are those of the authors' later code).
_add(
    name="mnist-train",
    reference="frankle2019lottery",
    optimizer="adam",
    learning_rate=1.2e-3,
    batch_size=60,
    epochs=55,
    augment=False,
)
_add(
    name="mnist-finetune",
    reference="frankle2019lottery",
    optimizer="adam",
    learning_rate=1.2e-3,
    batch_size=60,
    epochs=20,
    augment=False,
    early_stopping=EarlyStopping(patience=5),
    selection="best-validation",
)
_add(
    name="cifar-train-lottery",
    reference="frankle2019lottery",
    optimizer="sgd",
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    batch_size=128,
    epochs=160,
    schedule="multistep",
    milestones=(80, 120),
)

# A modern ImageNet recipe: the schedule and regularisation of torchvision's second weights (Vryniotis 2021),
# without its mixing and random-augment operations.
_add(
    name="imagenet-train-modern",
    reference="vryniotis2021",
    optimizer="sgd",
    learning_rate=0.5,
    momentum=0.9,
    weight_decay=2e-5,
    batch_size=1024,
    epochs=600,
    schedule="cosine",
    warmup_epochs=5,
    label_smoothing=0.1,
    precision="bf16-mixed",
)

# Table 12 of Liu et al. 2019, by the PyTorch code that they refer to; they release none for detection.
_add(
    name="voc-faster-rcnn",
    learning_rate=1e-3,
    batch_size=1,
    epochs=7,
    schedule="multistep",
    milestones=(5,),
    **_LIU,
)
