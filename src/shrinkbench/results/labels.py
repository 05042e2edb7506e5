"""What runs are called in every table and figure: tasks, methods and controls, told apart by their values.

A label is short: what all share is left out, and whatever differs in value differs in its label.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from shrinkbench.spec import ExtraSpec, MethodSpec, Recipe, RunSpec, TaskSpec, Value, digest

CONTROL = "control"
"""How the unpruned network is called where there is one."""

ItemT = TypeVar("ItemT", bound=Value)

digest_once = functools.lru_cache(maxsize=4096)(digest)
"""The digest of a part of a specification; the same few stand in thousands of runs."""


@dataclass(frozen=True)
class RunLabel:
    """What one run is called. ``control`` is the name of its control, ``control_key`` that run's key.

    ``method_alone`` is the method whatever its recipe. ``control_group`` identifies the controls of all seeds.
    """

    task: str
    method: str
    method_alone: str
    amount: str
    control: str
    control_key: str
    control_group: str


def label_runs(specs: Sequence[RunSpec]) -> list[RunLabel]:
    """One label for each run, as all of ``specs`` need to be told apart."""
    same = _Canonical()
    kinds = [_kind(spec, same) for spec in specs]
    firsts: dict[_Kind, RunSpec] = {}
    for kind, spec in zip(kinds, specs, strict=True):
        firsts.setdefault(kind, spec)
    labelled = dict(zip(firsts, _label_kinds(list(firsts.values())), strict=True))
    keys: dict[tuple[int, int], str] = {}
    labels = []
    for kind, spec in zip(kinds, specs, strict=True):
        label, control = labelled[kind]
        place = (id(same(control)), spec.seed)
        if place not in keys:
            keys[place] = digest(control.model_copy(update={"seed": spec.seed}))
        labels.append(replace(label, amount=spec.amount.label, control_key=keys[place]))
    return labels


class _Canonical:
    """Gives one object for all equal values, so that thousands of runs are told apart by identity."""

    def __init__(self) -> None:
        self._known: dict[Value, Value] = {}
        self._seen: dict[int, Value] = {}

    def __call__(self, value: Value) -> Value:
        """The first value equal to ``value``, which has to outlive this object."""
        if id(value) not in self._seen:
            self._seen[id(value)] = self._known.setdefault(value, value)
        return self._seen[id(value)]


class _Kind(NamedTuple):
    """All of a run that its label depends on, amount and seed aside; the first three are identities."""

    task: int
    method: int
    recipe: int
    search: Recipe | None
    prune_classifier: bool
    prune_biases: bool
    extra: tuple[ExtraSpec, ...]
    is_control: bool


def _kind(spec: RunSpec, same: _Canonical) -> _Kind:
    return _Kind(
        task=id(same(spec.task)),
        method=id(same(spec.method)),
        recipe=id(same(spec.recipe)),
        search=spec.search,
        prune_classifier=spec.prune_classifier,
        prune_biases=spec.prune_biases,
        extra=spec.extra,
        is_control=spec.is_control,
    )


def _label_kinds(specs: Sequence[RunSpec]) -> list[tuple[RunLabel, RunSpec]]:
    """For one run of each kind its label and its control, seed aside."""
    tasks = task_labels(dict.fromkeys(spec.task for spec in specs))
    methods = _method_labels(specs)
    controls = [_control_of(spec) for spec in specs]
    names = _control_labels({(spec.task, control) for spec, control in zip(specs, controls, strict=True)})
    labels = [
        RunLabel(
            task=tasks[spec.task],
            method=method,
            method_alone=alone,
            amount="",
            control=names[spec.task, control],
            control_key="",
            control_group=digest_once(control),
        )
        for spec, (method, alone), control in zip(specs, methods, controls, strict=True)
    ]
    return list(zip(labels, controls, strict=True))


def task_labels(tasks: Iterable[TaskSpec]) -> dict[TaskSpec, str]:
    """Dataset and network, and whatever else tells tasks of that name apart: subset, weights, or a digest."""
    named: dict[str, list[TaskSpec]] = defaultdict(list)
    for task in tasks:
        named[f"{task.data.name} / {task.model.name}"].append(task)
    labels: dict[TaskSpec, str] = {}
    for name, members in named.items():
        recipes = recipe_labels([task.weights.recipe for task in members if task.weights.recipe])

        def weights(task: TaskSpec, recipes: Mapping[Recipe, str] = recipes) -> str:
            return recipes[task.weights.recipe] if task.weights.recipe else task.weights.name

        parts = _tell_apart(members, (_objective, _subset, weights))
        labels |= {task: " / ".join([name, *parts[task]]) for task in members}
    return labels


def _objective(task: TaskSpec) -> str:
    return task.objective.name


def _subset(task: TaskSpec) -> str:
    """The images that are used, where they are not all."""
    counts = (
        (task.data.train_images, "training"),
        (task.data.validation_images, "validation"),
        (task.data.test_images, "test"),
    )
    parts = [f"{count} {split}" for count, split in counts if count is not None]
    return f"{', '.join(parts)} images" if parts else "all images"


def recipe_labels(recipes: Iterable[Recipe]) -> dict[Recipe, str]:
    """The recipe's name, with the fields in which recipes of one name differ."""
    named: dict[str, list[Recipe]] = defaultdict(list)
    for recipe in dict.fromkeys(recipes):
        named[recipe.name].append(recipe)
    labels = {}
    for name, members in named.items():
        fields = [
            field
            for field in Recipe.model_fields
            if len({repr(getattr(recipe, field)) for recipe in members}) > 1
        ]
        for recipe in members:
            text = ", ".join(f"{field} {_text(getattr(recipe, field))}" for field in fields)
            labels[recipe] = f"{name} ({text})" if text else name
    return labels


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _method_labels(specs: Sequence[RunSpec]) -> list[tuple[str, str]]:
    """The method's name, what else was pruned, its recipe where it had several, and a digest at need.

    Beside it the same without the recipe.
    """
    recipes = recipe_labels(spec.recipe for spec in specs)
    used: dict[tuple[TaskSpec, MethodSpec], set[Recipe]] = defaultdict(set)
    for spec in specs:
        used[spec.task, spec.method].add(spec.recipe)
    several = {method for (_, method), found in used.items() if len(found) > 1}
    definitions: dict[str, set[MethodSpec]] = defaultdict(set)
    for spec in specs:
        definitions[spec.method.name].add(spec.method)
    labels = []
    for spec in specs:
        label = spec.method.name
        if len(definitions[label]) > 1:
            label += f" {digest_once(spec.method)[:6]}"
        if not spec.is_control:
            label += " + classifier" if spec.prune_classifier else ""
            label += " + biases" if spec.prune_biases else ""
        recipe = f", {recipes[spec.recipe]}" if spec.method in several else ""
        labels.append((label + recipe, label))
    return labels


def _control_of(spec: RunSpec) -> RunSpec:
    """The control of a run, the same for all seeds."""
    return spec.control.model_copy(update={"seed": 0})


def _control_labels(pairs: Iterable[tuple[TaskSpec, RunSpec]]) -> dict[tuple[TaskSpec, RunSpec], str]:
    """``control`` where a task has one; otherwise each is named by how it was trained."""
    of_task: dict[TaskSpec, list[RunSpec]] = defaultdict(list)
    for task, control in pairs:
        of_task[task].append(control)
    labels: dict[tuple[TaskSpec, RunSpec], str] = {}
    for task, controls in of_task.items():
        recipes = recipe_labels(control.recipe for control in controls)

        def recipe(control: RunSpec, recipes: Mapping[Recipe, str] = recipes) -> str:
            return recipes[control.recipe]

        parts = _tell_apart(controls, (how_trained, recipe), spare=_draw)
        for control in controls:
            labels[task, control] = ", ".join([CONTROL, *parts[control]])
    return labels


def how_trained(spec: RunSpec) -> str:
    """How the weights that were measured came about, in words.

    A control that starts from initial weights and goes on from them is trained from scratch like one whose
    weights are drawn anew.
    """
    mode = spec.method.finetuning
    if mode.recipe == "none":
        return "without training"
    if mode.weights == "rewound":
        return f"rewound to epoch {mode.epoch}"
    if mode.weights != "kept" or spec.method.start == "initialisation":
        return "from scratch"
    return "fine-tuned" if mode.recipe == "finetuning" else f"trained again from epoch {mode.epoch}"


def _draw(spec: RunSpec) -> str:
    """Which random weights a training from scratch starts from."""
    return "initial weights" if spec.method.finetuning.weights == "kept" else "weights drawn anew"


def _tell_apart(
    items: Sequence[ItemT],
    parts: Sequence[Callable[[ItemT], str]],
    *,
    spare: Callable[[ItemT], str] | None = None,
) -> dict[ItemT, list[str]]:
    """For each item as many of ``parts``, in their order, as tell items apart.

    Where these do not suffice ``spare`` is added and, where that does not either, a digest.
    """
    labels: dict[ItemT, list[str]] = {item: [] for item in items}
    for part in parts:
        longer = {item: [*label, part(item)] for item, label in labels.items()}
        if len(set(map(tuple, longer.values()))) > len(set(map(tuple, labels.values()))):
            labels = longer
    for more in (spare, _short_digest):
        counts = Counter(map(tuple, labels.values()))
        if more is not None:
            labels = {
                item: [*label, more(item)] if counts[tuple(label)] > 1 else label
                for item, label in labels.items()
            }
    return labels


def _short_digest(item: Value) -> str:
    return digest_once(item)[:6]
