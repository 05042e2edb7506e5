"""From the grid that a person wrote to runs with nothing left open."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from shrinkbench.datasets import DATASETS, EXTRAS, Dataset
from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.models import MODELS, ModelCard, build, get_model, locate_weights, read_state_dict
from shrinkbench.pruning import (
    METHODS,
    PruningMethod,
    carried_out,
    check_amount,
    check_constraints,
    fraction_of_layers,
    prunable_names,
)
from shrinkbench.pruning.finetunings import rewind_learning_rate, rewind_weights
from shrinkbench.runner.rewinding import check_rewinding
from shrinkbench.runner.subsets import check_subsets
from shrinkbench.runner.workspace import Workspace, example_of, normalisation_for
from shrinkbench.spec import (
    CLASSIFICATION,
    UNCONSTRAINED,
    UNPRUNED,
    Amount,
    ChannelFraction,
    Compression,
    DataSpec,
    ExperimentSpec,
    ExtraSpec,
    MethodSpec,
    ModelSpec,
    Normalisation,
    Recipe,
    RunSpec,
    Speedup,
    TaskSpec,
    WeightsSpec,
    parse_value,
)
from shrinkbench.spec.value import of_own_parts
from shrinkbench.tasks import objective_for, require_scorable, task_of
from shrinkbench.training import RECIPES, with_overrides


@dataclass(frozen=True)
class PlannedRuns:
    """The runs of an experiment, and where the weights files that they name lie."""

    runs: tuple[RunSpec, ...]
    weights: Mapping[str, Path]


def plan(experiment: ExperimentSpec, workspace: Workspace) -> PlannedRuns:
    """Resolve every name and default of ``experiment``; each mistake is told before anything runs."""
    with of_own_parts(f"experiment '{experiment.name}' cannot be planned"):
        return _planned(experiment, workspace)


def _planned(experiment: ExperimentSpec, workspace: Workspace) -> PlannedRuns:
    methods = [METHODS.get(name) for name in experiment.method]
    values = {name: _carried_out(experiment, m) for name, m in zip(experiment.method, methods, strict=True)}
    _refuse_twins(experiment, values)
    _refuse_idle_amounts(experiment, methods)
    _refuse_idle_entry(experiment)
    _refuse_idle_seed(experiment, methods)
    runs: dict[str, RunSpec] = {}
    files: dict[str, Path] = {}
    for dataset_name, model_name in product(experiment.dataset, experiment.model):
        dataset = workspace.dataset(dataset_name)
        card = get_model(model_name)
        check_compatible(dataset, card)
        if card.configuration is not None and card.digest is not None:
            files[card.digest] = card.configuration
        objective = objective_for(experiment.task or dataset.card.task)
        learned = task_of(objective)
        if dataset_name == experiment.dataset[0]:  # layers have the same names whatever the data are
            _check_ignored(experiment, dataset, card)
        pretrain = _recipe(experiment.pretrain_recipe or dataset.card.pretrain_recipe, experiment.pretrain)
        recipes = [_recipe(n, experiment.finetune) for n in experiment.recipe or (dataset.card.recipe,)]
        for source in experiment.weights:
            weights, normalisation, path = _weights(
                source, card, pretrain, seed=experiment.pretrain_seed, entry=experiment.weights_entry
            )
            if path is not None and weights.digest is not None:
                files[weights.digest] = path
            data = DataSpec(
                name=dataset.card.name,
                revision=dataset.revision,
                source=DATASETS.source(dataset.card.name),
                normalisation=normalisation_for(dataset, normalisation),
                train_images=experiment.train_images,
                validation_images=experiment.validation_images,
                test_images=experiment.test_images,
            )
            check_subsets(dataset, experiment, learned)
            task = TaskSpec(
                objective=objective,
                data=data,
                model=ModelSpec(name=card.name, source=MODELS.source(card.name)),
                weights=weights,
            )
            extra = _extra(experiment, dataset, workspace)
            for recipe, (method, at) in product(recipes, zip(methods, values.values(), strict=True)):
                check_rewinding(
                    method, weights, pretrain, examples=experiment.train_images or len(dataset.train)
                )
                _check_learning(method, recipe, pretrain, task)
                if "data" in method.needs_to_decide and method.schedule.during is None:
                    require_scorable(learned, method.name)
                for (amount, value), seed in product(at.items(), experiment.seed):
                    spec = RunSpec(
                        task=task,
                        method=value,
                        amount=amount,
                        constraints=UNCONSTRAINED if amount == UNPRUNED else experiment.constraints,
                        seed=seed,
                        recipe=_recipe_of(method, finetune=recipe, pretrain=pretrain),
                        search=_search_of(method, finetune=recipe, pretrain=pretrain),
                        prune_classifier=experiment.prune_classifier,
                        prune_biases=experiment.prune_biases,
                        prune_embeddings=experiment.prune_embeddings,
                        extra=extra,
                    )
                    # Methods that train by the pretraining recipe are alike for all others.
                    runs[spec.key] = spec
    return PlannedRuns(tuple(runs.values()), files)


def label_methods(experiment: ExperimentSpec) -> ExperimentSpec:
    """``experiment`` with a label by the full name of each method that it, or the method itself, gives one."""
    labels: dict[str, str] = {}
    for name in experiment.method:
        method = METHODS.get(name)
        value = method.spec
        given = experiment.labels.get(name) or experiment.labels.get(value.name)
        label = given or ("" if value.changed else method.label)
        at = [carried for amount, carried in _carried_out(experiment, method).items() if amount != UNPRUNED]
        value = at[0] if len(set(at)) == 1 else value  # what amounts settle in several ways is called apart
        if label and labels.setdefault(value.name, label) != label:
            raise ShrinkbenchError(
                f"method '{value.name}' of experiment '{experiment.name}' is labelled '{labels[value.name]}' "
                f"and '{label}'; give it one label"
            )
    if labels == experiment.labels:
        return experiment
    fields = {**experiment.model_dump(), "labels": labels}
    return parse_value(ExperimentSpec, fields, where=f"experiment '{experiment.name}'")


def _amounts(experiment: ExperimentSpec, method: PruningMethod) -> tuple[Amount, ...]:
    """The amounts of the grid; a method that brings its own takes it in their place, beside its control."""
    controls = (UNPRUNED,) if experiment.has_controls else ()
    asked: tuple[Amount, ...] = (
        *(Compression(ratio=ratio) for ratio in experiment.compression),
        *(fraction_of_layers(method, fraction) for fraction in experiment.fraction_per_layer),
        *(ChannelFraction(fraction=fraction) for fraction in experiment.channels),
        *(UNPRUNED if ratio == 1 else Speedup(ratio=ratio) for ratio in experiment.speedup),
    )
    if method.amount is not None:
        asked = (*controls, method.amount)
    for amount in asked:
        check_amount(method, amount)
        if amount != UNPRUNED:
            check_constraints(method, experiment.constraints, amount)
    return tuple(dict.fromkeys(asked))


def _carried_out(experiment: ExperimentSpec, method: PruningMethod) -> dict[Amount, MethodSpec]:
    """The method as a value at each amount of the grid: what decides the amount may decide the allocation."""
    found: dict[str, MethodSpec] = {}
    at = {}
    for amount in _amounts(experiment, method):
        carried = carried_out(method, amount)
        if carried.name not in found:
            found[carried.name] = carried.spec
        at[amount] = found[carried.name]
    return at


def _refuse_idle_amounts(experiment: ExperimentSpec, methods: Sequence[PruningMethod]) -> None:
    """Refuse amounts that no method of the grid asks for: all bring their own."""
    asked = [
        *(f"compression {ratio:g}" for ratio in experiment.compression if ratio != 1),
        *(f"fraction_per_layer {fraction:g}" for fraction in experiment.fraction_per_layer),
        *(f"channels {fraction:g}" for fraction in experiment.channels),
        *(f"speedup {ratio:g}" for ratio in experiment.speedup if ratio != 1),
    ]
    if asked and all(method.amount is not None for method in methods):
        raise ShrinkbenchError(
            f"{asked[0]} of experiment '{experiment.name}' has no say: its methods bring their own amount "
            f"({methods[0].name}); write compression = 1 for the control alone"
        )


def _refuse_idle_entry(experiment: ExperimentSpec) -> None:
    """Refuse an entry of a weights file where no weights are of a file."""
    if experiment.weights_entry is not None and set(experiment.weights) <= {"pretrain", "random"}:
        raise ShrinkbenchError(
            f"weights_entry = '{one_line(experiment.weights_entry, 60)}' of experiment '{experiment.name}' "
            "has no say: none of its weights are of a file; leave it out"
        )


def _refuse_idle_seed(experiment: ExperimentSpec, methods: Sequence[PruningMethod]) -> None:
    """Refuse a seed of pretraining where nothing is pretrained."""
    if experiment.pretrain_seed is not None and all(m.spec.start == "initialisation" for m in methods):
        raise ShrinkbenchError(
            f"pretrain_seed = {experiment.pretrain_seed} of experiment '{experiment.name}' has no say: its "
            "methods all prune before training, from each run's own seed; leave it out"
        )
    if experiment.pretrain_seed is not None and "pretrain" not in experiment.weights:
        raise ShrinkbenchError(
            f"pretrain_seed = {experiment.pretrain_seed} of experiment '{experiment.name}' has no say: none of "
            "its weights are trained here; leave it out, or set weights = 'pretrain'"
        )


def _refuse_twins(experiment: ExperimentSpec, values: Mapping[str, Mapping[Amount, MethodSpec]]) -> None:
    """Refuse two names of one grid for one method and amount: compared is what is done."""
    seen: dict[tuple[MethodSpec, Amount | None], str] = {}
    for name, at in values.items():
        own = METHODS.get(name)
        pruning = {amount: value for amount, value in at.items() if amount != UNPRUNED}
        for amount, value in pruning.items() or [(own.amount, own.spec)]:
            twin = seen.setdefault((_unnamed(value), amount), name)
            if twin != name:
                raise ShrinkbenchError(
                    f"methods '{twin}' and '{name}' of experiment '{experiment.name}' are one method"
                    f"{f' at {amount.label}' if amount is not None else ''}; name it once"
                )


def _unnamed(method: MethodSpec) -> MethodSpec:
    """What is done, whatever it is called, and whatever that is called whose proportions it has."""
    allocation = method.allocation
    if allocation.like is not None:
        allocation = allocation.model_copy(update={"name": "", "like": _unnamed(allocation.like)})
    return method.model_copy(update={"base": "", "changed": (), "allocation": allocation})


def _recipe_of(method: PruningMethod, *, finetune: Recipe, pretrain: Recipe) -> Recipe:
    """The recipe by which ``method`` trains after (or while) pruning."""
    mode = method.finetuning
    if mode.recipe == "none":
        return with_overrides(finetune, {"epochs": 0, "distillation": None, "averaging": None})
    if mode.recipe == "finetuning" and (method.schedule.start == "trained" or method.schedule.train_after):
        return finetune
    if mode.epoch >= pretrain.epochs:
        raise _too_few_epochs(method, pretrain)
    return pretrain


def _too_few_epochs(method: PruningMethod, pretrain: Recipe) -> ShrinkbenchError:
    """Why ``method`` cannot train as pretraining does, and what helps; a name is given once it is tried."""
    mode, most = method.finetuning, pretrain.epochs - 1
    does = f"goes on from epoch {mode.epoch}" if mode.epoch else "trains"
    make = {"rewound": rewind_weights, "kept": rewind_learning_rate}.get(mode.weights)
    remedy = ""
    if make is not None and mode.recipe == "pretraining" and most >= 0:
        found = METHODS.get(f"{method.name}[finetuning={make(min(1, most)).name}]")
        if found.amount == method.amount:
            remedy = f", or name {found.name}"
    return ShrinkbenchError(
        f"method '{method.name}' {does} by recipe '{pretrain.name}', which has {pretrain.epochs} epochs; set "
        f"pretrain.epochs to {mode.epoch + 1} at least{remedy}"
    )


def _search_of(method: PruningMethod, *, finetune: Recipe, pretrain: Recipe) -> Recipe | None:
    """The recipe by which ``method`` finds its masks, where it trains to that end and once more afterwards."""
    schedule = method.schedule
    if schedule.during is None or not (schedule.train_after or method.finetuning.name != "continue"):
        return None
    return finetune if schedule.start == "trained" else pretrain


def _extra(experiment: ExperimentSpec, dataset: Dataset, workspace: Workspace) -> tuple[ExtraSpec, ...]:
    """The further evaluations that belong to ``dataset``; one that belongs to none in the grid is a mistake."""
    cards = [EXTRAS.get(name) for name in experiment.extra]
    names = {DATASETS.get(name).name for name in experiment.dataset}
    for card in cards:
        if card.dataset not in names:
            raise ShrinkbenchError(
                f"the extra evaluation '{card.name}' belongs to dataset '{card.dataset}', "
                "which is not in the grid"
            )
    own = [card.name for card in cards if card.dataset == dataset.card.name]
    return tuple(
        ExtraSpec(name=name, revision=workspace.extra(name).revision, source=EXTRAS.source(name))
        for name in own
    )


def _recipe(recipe: str | Recipe, overrides: dict[str, object]) -> Recipe:
    return with_overrides(recipe if isinstance(recipe, Recipe) else RECIPES.get(recipe), overrides)


def _weights(
    source: str, card: ModelCard, pretrain: Recipe, *, seed: int | None, entry: str | None
) -> tuple[WeightsSpec, Normalisation | None, Path | None]:
    if source == "pretrain":
        name = "pretrain" if seed is None else f"pretrain, seed {seed}"
        return WeightsSpec(kind="pretrain", name=name, recipe=pretrain, seed=seed), None, None
    if source == "random":
        return WeightsSpec(kind="random", name="random"), None, None
    file = locate_weights(source, card=card)
    if entry is not None:
        read_state_dict(file.path, sha256=file.sha256, entry=entry)  # one that is not there is told now
    name = file.name if entry is None else f"{file.name}:{entry}"
    spec = WeightsSpec(kind="file", name=name, digest=file.sha256, entry=entry)
    return spec, file.normalisation, file.path


def check_compatible(dataset: Dataset, card: ModelCard) -> None:
    """Refuse a network whose input the dataset's images are not."""
    shape = dataset.card.image_shape
    numbers = dataset.example is None and dataset.card.task is None  # as data of images are
    if card.takes == "tokens" and shape is not None and numbers:
        raise ShrinkbenchError(
            f"model '{card.name}' takes tokens, and dataset '{dataset.card.name}' has numbers of shape "
            f"{_text(shape)}; choose data of text (shrinkbench list datasets)"
        )
    if shape is not None and card.input_shape and shape[0] != card.input_shape[0]:
        raise ShrinkbenchError(
            f"model '{card.name}' takes images of shape {_text(card.input_shape)}, dataset "
            f"'{dataset.card.name}' has {_text(shape)}; choose a model made for it (shrinkbench list models)"
        )


def _check_ignored(experiment: ExperimentSpec, dataset: Dataset, card: ModelCard) -> None:
    """Refuse patterns of layers that match none of this network, or all of them."""
    if not experiment.ignore:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is left whole is told when it is pruned
            prunable_names(
                build(card.name, num_classes=len(dataset.class_names)),
                input_shape=example_of(card, dataset),
                prune_classifier=experiment.prune_classifier,
                prune_biases=experiment.prune_biases,
                prune_embeddings=experiment.prune_embeddings,
                ignore=experiment.constraints.ignore,
            )
    except ShrinkbenchError as error:
        raise ShrinkbenchError(f"experiment '{experiment.name}', model '{card.name}': {error}") from None


def _check_learning(method: PruningMethod, finetune: Recipe, pretrain: Recipe, task: TaskSpec) -> None:
    """Refuse a teacher where there is none, and a mean of weights whose masks change on the way."""
    if pretrain.distillation is not None:
        raise ShrinkbenchError(
            f"the pretraining recipe '{pretrain.name}' has distillation, and the unpruned network has no "
            "teacher; set finetune.distillation"
        )
    untrained = method.schedule.start == "initialisation" or task.weights.kind == "random"
    if finetune.distillation is not None and untrained:
        raise ShrinkbenchError(
            f"recipe '{finetune.name}' has distillation, and the network of '{method.name}' is not trained "
            "before it is pruned, so that it can teach nothing; leave it out"
        )
    own = _recipe_of(method, finetune=finetune, pretrain=pretrain)
    search = _search_of(method, finetune=finetune, pretrain=pretrain)
    for recipe in (own, *([] if search is None else [search])):
        if recipe.averaging is not None and method.schedule.during is not None:
            raise ShrinkbenchError(
                f"recipe '{recipe.name}' averages weights, and '{method.name}' changes masks while it trains; "
                "leave averaging out, or choose a method that prunes before it trains"
            )
        if recipe.distillation is None:
            continue
        if task.objective.name != CLASSIFICATION.name:
            raise ShrinkbenchError(
                f"recipe '{recipe.name}' has distillation, which compares scores of classes, and the task is "
                f"'{task.objective.name}'; leave it out"
            )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)
