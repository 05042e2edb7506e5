"""What runs are called in every table and figure: tasks, methods and controls, told apart by their values.

A label is short: what all share is left out, and whatever differs in value differs in its label.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from shrinkbench.results.apart import add_digests, digest_once, name_with_fields, short_digest, tell_apart
from shrinkbench.results.record import RunResult
from shrinkbench.spec import (
    UNPRUNED,
    Amount,
    Constraints,
    ExtraSpec,
    MethodSpec,
    Recipe,
    RunSpec,
    TaskSpec,
    Value,
    WeightsSpec,
    digest,
)

CONTROL = "control"
"""How the unpruned network is called where there is one."""


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


def label_runs(specs: Sequence[RunSpec], *, names: Mapping[str, str] = MappingProxyType({})) -> list[RunLabel]:
    """One label for each run, as all of ``specs`` need to be told apart.

    Runs of one task, method, amount and seed differ in nothing but what else was measured. ``names`` are short
    names of methods, which stand in place of their own.
    """
    same_specs = (tuple(map(id, specs)), tuple(names.items()))
    if same_specs not in _LABELLED:
        while len(_LABELLED) >= _REMEMBERED:
            del _LABELLED[next(iter(_LABELLED))]
        _LABELLED[same_specs] = tuple(specs), _label(specs, names)
    return list(_LABELLED[same_specs][1])


# A report asks a dozen times for the labels of the same thousands of objects, which are kept with the answer:
# an address says nothing of an object that is gone.
_REMEMBERED = 6
_Asked: TypeAlias = tuple[tuple[int, ...], tuple[tuple[str, str], ...]]
_LABELLED: dict[_Asked, tuple[tuple[RunSpec, ...], list[RunLabel]]] = {}


def _label(specs: Sequence[RunSpec], names: Mapping[str, str]) -> list[RunLabel]:
    same = _Canonical()
    kinds = [_kind(spec, same) for spec in specs]
    firsts: dict[_Kind, RunSpec] = {}
    for kind, spec in zip(kinds, specs, strict=True):
        firsts.setdefault(kind, spec)
    labelled = dict(zip(firsts, _label_kinds(list(firsts.values()), names), strict=True))
    amounts = _amount_labels(
        {
            (labelled[kind][0].task, labelled[kind][0].method, spec.amount)
            for kind, spec in zip(kinds, specs, strict=True)
        }
    )
    keys: dict[tuple[int, int], str] = {}
    labels = []
    for kind, spec in zip(kinds, specs, strict=True):
        label, control = labelled[kind]
        place = (id(same(control)), spec.seed)
        if place not in keys:
            keys[place] = digest(control.model_copy(update={"seed": spec.seed}))
        labels.append(replace(label, amount=amounts[spec.amount], control_key=keys[place]))
    return labels


def distinct_runs(results: Iterable[RunResult]) -> list[tuple[RunResult, RunLabel]]:
    """Every run once, with its label: of those that differ in what else was measured, one measured most."""
    ordered = sorted(results, key=lambda r: -len(r.further))
    found: dict[tuple[str, ...], tuple[RunResult, RunLabel]] = {}
    for result, label in zip(ordered, label_runs([r.spec for r in ordered]), strict=True):
        own = label.control_key if result.spec.is_control else ""
        cell = (label.task, label.method, label.amount, str(result.spec.seed), own)
        found.setdefault(cell, (result, label))
    return list(found.values())


def share_values(results: Iterable[RunResult]) -> list[RunResult]:
    """The same results, with one object for equal parts of their specifications, as labels want them.

    Thousands of runs read from files have a few tasks, methods and recipes, which take long to compare.
    """
    same = _Canonical()
    shared = []
    for result in results:
        parts = {name: same(getattr(result.spec, name)) for name in ("task", "method", "amount", "recipe")}
        shared.append(result.model_copy(update={"spec": result.spec.model_copy(update=parts)}))
    return shared


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
    prune_embeddings: bool
    constraints: Constraints
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
        prune_embeddings=spec.prune_embeddings,
        constraints=spec.constraints,
        extra=spec.extra,
        is_control=spec.is_control,
    )


def _label_kinds(specs: Sequence[RunSpec], names: Mapping[str, str]) -> list[tuple[RunLabel, RunSpec]]:
    """For one run of each kind its label and its control, seed aside."""
    tasks = task_labels(dict.fromkeys(spec.task for spec in specs))
    methods = _method_labels(specs, names)
    controls = [_control_of(spec) for spec in specs]
    called = _control_labels({(spec.task, control) for spec, control in zip(specs, controls, strict=True)})
    methods = _unlike_controls(specs, methods, set(called.values()))
    labels = [
        RunLabel(
            task=tasks[spec.task],
            method=method,
            method_alone=alone,
            amount="",
            control=called[spec.task, control],
            control_key="",
            control_group=digest_once(control),
        )
        for spec, (method, alone), control in zip(specs, methods, controls, strict=True)
    ]
    return list(zip(labels, controls, strict=True))


def task_labels(tasks: Iterable[TaskSpec]) -> dict[TaskSpec, str]:
    """Dataset and network, and whatever else tells tasks of that name apart: subset, weights, or a digest."""
    parts = task_variants(tasks)
    labels = {t: " / ".join([f"{t.data.name} / {t.model.name}", *more]) for t, more in parts.items()}
    return add_digests(labels, " / ")


def task_variants(tasks: Iterable[TaskSpec]) -> dict[TaskSpec, list[str]]:
    """What tells tasks of one dataset and network apart, in words; nothing where there is one task."""
    named: dict[str, list[TaskSpec]] = defaultdict(list)
    for task in dict.fromkeys(tasks):
        named[f"{task.data.name} / {task.model.name}"].append(task)
    variants: dict[TaskSpec, list[str]] = {}
    for members in named.values():
        recipes = recipe_labels([task.weights.recipe for task in members if task.weights.recipe])

        def weights(task: TaskSpec, recipes: Mapping[Recipe, str] = recipes) -> str:
            return weights_label(task.weights, recipes)

        variants |= tell_apart(members, (_objective, _subset, weights))
    return variants


def weights_label(weights: WeightsSpec, recipes: Mapping[Recipe, str]) -> str:
    """The recipe by which weights are trained, as ``recipes`` call it, and its own seed; else their name."""
    if weights.recipe is None:
        return weights.name
    seed = "" if weights.seed is None else f", seed {weights.seed}"
    return f"{recipes[weights.recipe]}{seed}"


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
    return add_digests(name_with_fields(named), " ")


def _amount_labels(cells: Iterable[tuple[str, str, Amount]]) -> dict[Amount, str]:
    """The amount's own label, with the fields in which amounts of one task, method and label differ."""
    of_cell: dict[tuple[str, str, str], set[Amount]] = defaultdict(set)
    named: dict[str, list[Amount]] = defaultdict(list)
    for task, method, amount in cells:
        of_cell[task, method, amount.label].add(amount)
        if amount not in named[amount.label]:
            named[amount.label].append(amount)
    shared = {label for (_, _, label), found in of_cell.items() if len(found) > 1}
    labels = {amount: label for label, members in named.items() for amount in members}
    return labels | name_with_fields({label: named[label] for label in shared})


def _method_labels(specs: Sequence[RunSpec], names: Mapping[str, str]) -> list[tuple[str, str]]:
    """The method's name, what else was pruned, its recipes where it had several, and a digest at need.

    Beside it the same without the recipes.
    """
    recipes = recipe_labels(recipe for spec in specs for recipe in (spec.recipe, spec.search) if recipe)
    trained: dict[tuple[TaskSpec, MethodSpec], set[Recipe]] = defaultdict(set)
    searched: dict[tuple[TaskSpec, MethodSpec], set[Recipe | None]] = defaultdict(set)
    definitions: dict[str, set[MethodSpec]] = defaultdict(set)
    for spec in specs:
        trained[spec.task, spec.method].add(spec.recipe)
        searched[spec.task, spec.method].add(spec.search)
        definitions[spec.method.name].add(spec.method)
    several = {method for (_, method), found in trained.items() if len(found) > 1}
    several_searches = {method for (_, method), found in searched.items() if len(found) > 1}
    labels = []
    for spec in specs:
        label = names.get(spec.method.name, spec.method.name)
        if len(definitions[spec.method.name]) > 1:
            label += f" {digest_once(spec.method)[:6]}"
        if not spec.is_control:
            label += " + classifier" if spec.prune_classifier else ""
            label += " + biases" if spec.prune_biases else ""
            label += " + embeddings" if spec.prune_embeddings else ""
            label += f" ({spec.constraints.label})" if spec.constraints.label else ""
        recipe = f", {recipes[spec.recipe]}" if spec.method in several else ""
        if spec.method in several_searches and spec.search is not None:
            recipe += f", found by {recipes[spec.search]}"
        labels.append((label + recipe, label))
    return _tell_methods_apart(specs, labels)


def _tell_methods_apart(specs: Sequence[RunSpec], labels: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same labels, with a digest where two methods of a task came to have one, however they are spelt."""
    own = [_alone(spec) for spec in specs]
    alike: dict[tuple[TaskSpec, str], set[RunSpec]] = defaultdict(set)
    for spec, alone, (label, _) in zip(specs, own, labels, strict=True):
        if not spec.is_control:
            alike[spec.task, label].add(alone)
    return [
        (f"{label} {short_digest(alone)}", f"{short} {short_digest(alone)}")
        if not spec.is_control and len(alike[spec.task, label]) > 1
        else (label, short)
        for spec, alone, (label, short) in zip(specs, own, labels, strict=True)
    ]


def _unlike_controls(
    specs: Sequence[RunSpec], labels: Sequence[tuple[str, str]], controls: Collection[str]
) -> list[tuple[str, str]]:
    """The same labels, with a digest where a method that prunes came to be called as a control is."""
    pruning = zip(specs, labels, strict=True)
    clash = {spec.method for spec, (label, _) in pruning if not spec.is_control and label in controls}
    return [
        (f"{label} {short_digest(spec.method)}", f"{short} {short_digest(spec.method)}")
        if spec.method in clash
        else (label, short)
        for spec, (label, short) in zip(specs, labels, strict=True)
    ]


def _alone(spec: RunSpec) -> RunSpec:
    """All of a run that makes its method another: neither amount nor seed, nor what else was measured."""
    return spec.model_copy(update={"amount": UNPRUNED, "seed": 0, "extra": (), "migrated_from": None})


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

        parts = tell_apart(controls, (how_trained, recipe, _measured_on), spare=_draw)
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


def _measured_on(spec: RunSpec) -> str:
    """On which further splits the quality was measured."""
    return f"also on {' and '.join(extra.name for extra in spec.extra)}" if spec.extra else "on one split"


def _draw(spec: RunSpec) -> str:
    """Which random weights a training from scratch starts from."""
    return "initial weights" if spec.method.finetuning.weights == "kept" else "weights drawn anew"
