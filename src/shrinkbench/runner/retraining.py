"""The middle of a run: prune and train, in the order that the method's schedule and fine-tuning mode say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from shrinkbench.files import make_folder
from shrinkbench.metrics import measure_size
from shrinkbench.network.inputs import Batch
from shrinkbench.network.weights import load_tensors
from shrinkbench.pruning import (
    Finetuning,
    Masks,
    Proportions,
    PruningMethod,
    hook_for,
    progressed,
    proportions_of,
    prune_once,
    resolve,
    restart,
)
from shrinkbench.results.store import ResultStore
from shrinkbench.runner.pretraining import (
    place_of_step,
    weights_to_restart_from,
)
from shrinkbench.runner.round_states import (
    code_from_outside,
    keep_state,
    resume_rounds,
    wanted_states,
)
from shrinkbench.runner.sealing import is_whole, load_sealed, read_card, save_sealed, write_card
from shrinkbench.runner.smaller import chosen_for_training
from shrinkbench.runner.trial import Outcome, Trial, check_in_reach
from shrinkbench.runner.workspace import Workspace
from shrinkbench.seeds import stream
from shrinkbench.spec import UNPRUNED, Amount, Recipe, RunSpec
from shrinkbench.spec.measures import Spent
from shrinkbench.spec.training_cost import scoring_cost, scratch_b, together, training_cost
from shrinkbench.tasks import require_scorable, scoring_loss, split_for
from shrinkbench.training import Training, remove_checkpoints, train

Batches = Iterable[Batch]
SEARCHED = ("weights.safetensors", "masks.safetensors", "card.json")
"""What a training that prunes leaves behind."""


def prune_and_train(trial: Trial) -> Outcome:
    """Carry the method out on ``trial.module``, in place."""
    spec = trial.spec
    schedule = trial.method.schedule if trial.method is not None else None
    if schedule is not None and schedule.during is not None:
        if spec.searching is None:
            return _with_scoring(trial, _train_with_hook(trial))
        outcome = _found(spec.searching, trial)
        _train(trial, outcome, iteration=1)
        return outcome
    wanted = _wanted(trial)
    outcome = _find_in_rounds(trial, wanted)
    _train(trial, outcome, iteration=len(trial.rounds) - 1)
    _keep_if_wanted(trial, outcome, len(trial.rounds), wanted)
    return _with_scoring(trial, outcome)


def _wanted(trial: Trial) -> frozenset[int]:
    """After how many rounds other runs go on from this one."""
    workspace = trial.workspace

    def rounds_of(other: RunSpec) -> Sequence[Amount]:
        return check_in_reach(other, resolve(other.method), workspace)

    ends_as_others_go_on = trial.finetuning == trial.finetuning.between
    rounds = trial.rounds if ends_as_others_go_on else trial.rounds[:-1]
    return wanted_states(trial.spec, rounds, workspace, rounds_of)


def _keep_if_wanted(trial: Trial, outcome: Outcome, done: int, wanted: frozenset[int]) -> None:
    if done in wanted:
        weights, state = trial.module.state_dict(), outcome.state(trial)
        keep_state(trial.spec, trial.rounds[:done], weights, state, trial.workspace)


def _find_in_rounds(trial: Trial, wanted: frozenset[int]) -> Outcome:
    """Prune round after round, and train in between where the schedule says so."""
    outcome, proportions = Outcome(), _proportions_for(trial)
    spec, rounds, workspace = trial.spec, trial.rounds, trial.workspace
    done, state = resume_rounds(spec, rounds, trial.module, workspace)
    if state is not None:
        outcome.masks, outcome.pruning, outcome.retraining = state.masks, state.pruning, state.retraining
        outcome.smaller, trial.scored["images"] = state.smaller, state.images
    for iteration, amount in [*enumerate(rounds)][done:]:
        if amount != UNPRUNED:
            share = progressed(proportions, amount, rounds[-1])
            outcome.masks = _prune(trial, amount, outcome.masks, iteration, share)
        if iteration == len(rounds) - 1:
            break
        if trial.method is not None and trial.method.schedule.train_between:
            _train(trial, outcome, iteration, last=False)
            _keep_if_wanted(trial, outcome, iteration + 1, wanted)
        else:
            outcome.masks.apply(trial.module)
    if trial.method is not None and trial.method.like is None and trial.spec.rounds is not None:
        _keep_proportions(trial, trial.method, trial.spec.rounds, outcome.masks)
    return outcome


def _proportions_for(trial: Trial) -> Proportions | None:
    """What a control of a method of several rounds ends with: as that method does, of this seed."""
    rounds = trial.spec.rounds
    if rounds is None or trial.method is None or trial.method.like is None:
        return None
    card = read_card(ensure_rounds(rounds, trial.workspace), key=rounds.key)
    return Proportions(kept=card["kept"])


def ensure_rounds(spec: RunSpec, workspace: Workspace) -> Path:
    """The file of how much of every layer the rounds of ``spec`` end with; they are carried out if need be."""
    path = _rounds_card(spec, workspace)
    if not workspace.sees(lambda: is_whole(path, key=spec.key)):
        trial = Trial.of(spec, workspace, path.parent)
        _find_in_rounds(trial, _wanted(trial))
        if workspace.writes:
            remove_checkpoints(path.parent)
    return path


def _rounds_card(spec: RunSpec, workspace: Workspace) -> Path:
    return ResultStore(workspace.root).shared_dir("rounds", spec.key) / "card.json"


def _keep_proportions(trial: Trial, method: PruningMethod, spec: RunSpec, masks: Masks) -> None:
    kept = proportions_of(
        method,
        trial.module,
        masks,
        input_shape=trial.example,
        **spec.also_prunable,
        ignore=spec.constraints.ignore,
    ).kept
    path = _rounds_card(spec, trial.workspace)
    if trial.workspace.writes:
        make_folder(path.parent)
        write_card(path, {"spec": spec.model_dump(mode="json"), "kept": dict(kept)}, key=spec.key)
    trial.workspace.team.tell(None)


def _train(trial: Trial, outcome: Outcome, iteration: int, *, last: bool = True) -> None:
    """Go on from the weights that the fine-tuning mode names, with the masks upheld."""
    spec, module = trial.spec, trial.module
    mode = trial.finetuning if last else trial.finetuning.between
    source = weights_to_restart_from(spec, mode, trial.workspace, trial.data, iteration)
    restart(mode, module, outcome.masks, source)
    first_epoch, passed_over = place_of_step(spec, mode, trial.workspace)
    outcome.pruning = together(outcome.pruning, outcome.retraining)  # what came before has found the masks
    outcome.before = trial.tested()
    recipe = _recipe_of(mode, trial, outcome.masks)
    with chosen_for_training(
        module,
        outcome.masks,
        recipe,
        trial.data,
        trial.workspace,
        example=trial.example,
        task=trial.task,
        seed=stream(spec.seed, "comparing", iteration),
        own=code_from_outside(spec),
        so_far=outcome.smaller,
    ) as (trained, outcome.smaller):
        label = trained.label + trial.workspace.checkpoint_label
        outcome.training = train(
            trained.module,
            recipe,
            trial.data,
            seed=stream(spec.seed, "finetune", iteration),
            hooks=trained.hooks,
            first_epoch=first_epoch,
            passed_over=passed_over,
            teacher=trial.teacher(),
            checkpoint=trial.folder / f"checkpoint-{iteration}{label}.pt",
            on_epoch=trial.workspace.on_epoch,
            task=trial.task,
            team=trial.workspace.team,
            compiled=trial.workspace.compiled,
        )
    outcome.retraining = _cost(trial, outcome.training, outcome.masks)


def _cost(trial: Trial, training: Training, masks: Masks) -> Spent:
    """The epochs that were run, at the multiply-adds that ``masks`` leave."""
    size = measure_size(trial.module, trial.example, masks)
    spent = training_cost(
        epochs=len(training.epochs),
        images=len(trial.data.train_source),
        multiply_adds=size.multiply_adds_kept,
    )
    if trial.spec.recipe.distillation is None:
        return spent
    taught = scoring_cost(images=spent.images, multiply_adds=size.multiply_adds, backward=False)
    return spent.model_copy(update={"multiply_adds": spent.multiply_adds + taught.multiply_adds})


def _with_scoring(trial: Trial, outcome: Outcome) -> Outcome:
    """Add what scoring cost, on the whole network."""
    if images := trial.scored["images"]:
        scoring = scoring_cost(
            images=images,
            multiply_adds=measure_size(trial.module, trial.example, Masks({})).multiply_adds,
            backward="gradients" in trial.spec.method.score.needs,
        )
        outcome.pruning = together(outcome.pruning, scoring)
    return outcome


def _recipe_of(mode: Finetuning, trial: Trial, masks: Masks) -> Recipe:
    """The run's recipe or, for equal computation, as much more of it as the masks have saved."""
    recipe = trial.spec.recipe
    if mode.equal == "epochs":
        return recipe
    size = measure_size(trial.module, trial.example, masks)
    return scratch_b(recipe, large=size.multiply_adds, small=size.multiply_adds_kept)


def ensure_search(spec: RunSpec, workspace: Workspace) -> Path:
    """The folder of masks, weights and cost of a training that prunes, for all runs that go on from it."""
    store = ResultStore(workspace.root)
    folder = store.shared_dir("search", spec.key)
    if workspace.sees(lambda: all(is_whole(folder / name, key=spec.key) for name in SEARCHED)):
        return folder
    trial = Trial.of(spec, workspace, folder)
    outcome = _with_scoring(trial, _train_with_hook(trial))
    card = {
        "spec": spec.model_dump(mode="json"),
        "spent": together(outcome.pruning, outcome.retraining).model_dump(),
        "epochs": [record.model_dump() for record in outcome.training.epochs],
    }
    if workspace.writes:
        save_sealed(outcome.masks, folder / "masks.safetensors", key=spec.key)
        save_sealed(trial.module.state_dict(), folder / "weights.safetensors", key=spec.key)
        write_card(folder / "card.json", card, key=spec.key)
        remove_checkpoints(folder)
    workspace.team.tell(None)
    return folder


def _found(spec: RunSpec, trial: Trial) -> Outcome:
    """Bring ``trial`` to where the training ``spec`` ended."""
    folder = ensure_search(spec, trial.workspace)
    load_tensors(trial.module, load_sealed(folder / "weights.safetensors", key=spec.key))
    card = read_card(folder / "card.json", key=spec.key)
    masks = load_sealed(folder / "masks.safetensors", key=spec.key)
    on_device = {name: mask.to(trial.workspace.device) for name, mask in masks.items()}
    return Outcome(Masks(on_device), retraining=Spent(**card["spent"]))


def _train_with_hook(trial: Trial) -> Outcome:
    """Prune while training."""
    spec, module, data = trial.spec, trial.module, trial.data
    recipe = spec.recipe
    before = trial.tested()
    hook = hook_for(
        module,
        resolve(spec.method) if trial.method is None else trial.method,
        amount=spec.amount,
        epochs=recipe.epochs,
        steps_per_epoch=math.ceil(len(data.train_source) / recipe.batch_size),
        seed=stream(spec.seed, "pruning"),
        input_shape=trial.example,
        batches=lambda generator: _scoring_batches(trial, generator),
        loss=scoring_loss(trial.task),
        **spec.also_prunable,
        constraints=spec.constraints,
        batch_size=recipe.batch_size,
    )
    training = train(
        module,
        recipe,
        data,
        seed=stream(spec.seed, "finetune", 0),
        hooks=[hook],
        teacher=trial.teacher(),
        checkpoint=trial.folder / "checkpoint-0.pt",
        on_epoch=trial.workspace.on_epoch,
        task=trial.task,
        team=trial.workspace.team,
    )
    if trial.workspace.compiled:
        training.uncompiled = "the network is pruned while it is trained"
    # Masks change on the way, and the network is whole at first: counted as dense throughout.
    return Outcome(hook.masks, before, training, retraining=_cost(trial, training, Masks({})))


def _prune(
    trial: Trial, amount: Amount, masks: Masks, iteration: int, proportions: Proportions | None
) -> Masks:
    spec = trial.spec
    order = torch.Generator().manual_seed(stream(spec.seed, "scoring-batch", iteration))
    found = prune_once(
        trial.module,
        resolve(spec.method) if trial.method is None else trial.method,
        amount=amount,
        batches=_scoring_batches(trial, order),
        loss=scoring_loss(trial.task),
        input_shape=trial.example,
        masks=masks,
        generator=torch.Generator().manual_seed(stream(spec.seed, "scoring", iteration)),
        iteration=iteration,
        **spec.also_prunable,
        constraints=spec.constraints,
        proportions=proportions,
    )
    return _of_the_head(found, trial)


def _of_the_head(masks: Masks, trial: Trial) -> Masks:
    """The masks that the head has found: machines that differ may score differently in the last digit."""
    team = trial.workspace.team
    if team.size == 1:
        return masks
    plain = {n: mask.cpu() for n, mask in masks.items()}
    told = team.tell(Masks(plain, new_weights={n: w.cpu() for n, w in masks.new_weights.items()}))
    return told.beside(dict(trial.module.named_parameters()))


def _scoring_batches(trial: Trial, generator: torch.Generator) -> Batches:
    """Batches to score on, not augmented, and not drawn before somebody asks for the first; counted."""
    require_scorable(trial.task, trial.spec.method.name)
    for given in trial.data.train(trial.spec.recipe.batch_size, generator=generator, augment=False):
        batch = split_for(trial.task, given)
        trial.scored["images"] += len(batch)
        yield batch
