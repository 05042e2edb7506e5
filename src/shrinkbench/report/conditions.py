"""Under which conditions a run was made, field by field in words: what checklist and pitfalls compare."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from shrinkbench.results.apart import value_text
from shrinkbench.results.frame import timed_as_reported
from shrinkbench.results.record import RunResult
from shrinkbench.spec import MethodSpec, Objective, Recipe, RunSpec, StructureSpec, Value
from shrinkbench.spec.axes import AXES

Facts = tuple[tuple[str, str], ...]
"""What one run has of one side of its condition: fields in words and their values as text."""

_NOT_TRAINING = frozenset({"name", "reference", "largest_stretch"})
"""Fields of a recipe in which two trainings may differ and yet be one."""
_DIGITS = 12
_WORDS = {"augment": "augmentation", "train images": "training images"}
_ABSENT = dict.fromkeys(("train_images", "validation_images", "test_images"), "all")
_TOLD: Mapping[object, str] = {True: "on", False: "off"}


@functools.lru_cache(maxsize=1024)
def fields_of(value: Value, prefix: str = "", left_out: frozenset[str] = frozenset({"name"})) -> Facts:
    """Every field of a value in words, those ``left_out`` aside; a digest by its first digits."""
    found = []
    for field in type(value).model_fields:
        content, words = getattr(value, field), field.replace("_", " ")
        if field in left_out:
            continue
        text = _TOLD[content] if isinstance(content, bool) else value_text(content)
        if content is None:
            text = _ABSENT.get(field, "none")
        elif field in ("revision", "source", "digest"):
            text = text[:_DIGITS]
        found.append((prefix + _WORDS.get(words, words), text))
    return tuple(found)


def recipe_facts(recipe: Recipe, *, prefix: str = "") -> Facts:
    """Every value of a recipe that makes it another training, its name aside."""
    return fields_of(recipe, prefix, _NOT_TRAINING)


def part_of_recipe(method: MethodSpec) -> str:
    """Which of a sweep's recipes a method trains by: ``finetuning``, ``pretraining`` or ``none``."""
    mode, schedule = method.finetuning, method.schedule
    if mode.recipe != "finetuning":
        return mode.recipe
    return "finetuning" if schedule.start == "trained" or schedule.train_after else "pretraining"


def weights_facts(spec: RunSpec) -> Facts:
    """The initial weights, with the recipe of their training."""
    weights = spec.weights
    trained = recipe_facts(weights.recipe, prefix="pretraining ") if weights.recipe else ()
    facts = fields_of(weights, "weights ", frozenset({"recipe", "name"}))
    return (("weights", weights.name), *facts, *trained)


@functools.lru_cache(maxsize=256)
def objective_facts(objective: Objective) -> Facts:
    """What runs were judged by."""
    metrics = ", ".join(metric.name for metric in objective.metrics)
    own = (fact for metric in objective.metrics for fact in fields_of(metric, f"{metric.name} "))
    whole = fields_of(objective, "objective ", frozenset({"name", "metrics"}))
    return (("objective", objective.name), *whole, ("metrics", metrics), *own)


@functools.lru_cache(maxsize=1024)
def axis_versions(method: MethodSpec) -> Mapping[tuple[str, str], Facts]:
    """What stands behind the name of every axis value of a method, by axis and name.

    Those of the method whose proportions it takes are its own too.
    """
    like = method.allocation.like
    found = {**axis_versions(like)} if like is not None else {}
    for axis in (*AXES, "score", "update"):
        value = getattr(method, axis)
        if value is not None:
            version = str(value.version) if value.version else "not recorded"
            code = value.source[:_DIGITS] if value.source else "that of shrinkbench"
            name = f"{axis} {value.name}"
            found[axis, value.name] = ((f"version of {name}", version), (f"code of {name}", code))
    return found


def pruned_parts(spec: RunSpec) -> Facts:
    """What of the network may be pruned."""
    return (
        ("pruning of the classifier", _TOLD[spec.prune_classifier]),
        ("pruning of biases", _TOLD[spec.prune_biases]),
        ("pruning of embeddings", _TOLD[spec.prune_embeddings]),
        ("bounds on layers", spec.constraints.label or "none"),
    )


def loading(spec: RunSpec) -> Facts:
    """How a recipe feeds the network."""
    named = dict(recipe_facts(spec.recipe))
    return tuple((field, named[field]) for field in ("augmentation", "batch size", "precision"))


def machine_facts(run: RunResult) -> Facts:
    """What a run's numbers may depend on beside its specification and the commit; empty where unknown."""
    p = run.provenance
    named = {
        "device": p.device,
        "processor": p.processor,
        "threads": str(p.threads or ""),
        "processes": str(p.processes or ""),
        "Python": p.python,
        "operating system": p.platform.partition("-")[0],  # what follows is the kernel's release
        "training steps": "compiled" if p.uncompiled == "" else "not compiled",
    }
    return tuple((named | dict(sorted(p.versions.items()))).items())


def trained_network(run: RunResult) -> Facts:
    """Which network was trained under masks that take units out; nothing where both are one network."""
    smaller = run.provenance.smaller
    if smaller is None:
        unit = run.spec.method.structure.unit
        trained = "masked" if unit not in ("weight", StructureSpec.model_fields["unit"].default) else ""
    elif smaller.smaller == smaller.trainings:
        trained = "smaller" if smaller.trainings else ""
    else:
        trained = "masked and smaller" if smaller.smaller else "masked"
    return (("trained network", trained),) if trained else ()


def measured_on(run: RunResult) -> Facts:
    """How many examples the reported quality is a mean of."""
    return (("measured examples", str(run.after.examples)),) if run.after is not None else ()


def validated_on(run: RunResult) -> Facts:
    """How many examples the epoch was validated on; nothing where there was no epoch, or none was taken."""
    if run.validation is None and (not run.epochs or run.selected_epoch == 0):
        return ()
    return (("validation examples", str(run.validation.examples if run.validation is not None else "none")),)


def timing(run: RunResult) -> Facts:
    """How the wall time was taken that the report shows; nothing where none was."""
    timed = timed_as_reported(run)
    if timed is None:
        return ()
    return (
        ("timed batch size", str(timed.batch_size)),
        ("timed threads", str(timed.threads)),
        ("timed precision", timed.precision),
        ("timed memory format", timed.memory_format or "unrecorded"),
    )
