"""The training loop: one function, the same for pretraining, fine-tuning and scratch baselines."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.seeds import stream
from shrinkbench.spec import Objective, Recipe
from shrinkbench.spec.measures import EpochRecord, Quality
from shrinkbench.spec.recipe import learning_rate
from shrinkbench.tasks import Task
from shrinkbench.tasks.batches import loss_of
from shrinkbench.training.averaging import averager_of, renew_statistics
from shrinkbench.training.checkpoint import load_checkpoint, save_checkpoint
from shrinkbench.training.compiling import program_of
from shrinkbench.training.data import Data
from shrinkbench.training.distilling import learned_by
from shrinkbench.training.evaluation import CLASSIFY, evaluate
from shrinkbench.training.hook import Hook
from shrinkbench.training.shares import average_gradients, count_of, share_of, whole_batches
from shrinkbench.training.team import ALONE, Team, check_share, is_head


@dataclass
class Training:
    """What a training run went through.

    ``selected_epoch`` is the epoch whose weights the module holds and ``validation`` their quality on the
    validation split (``None``: no epoch was run, or there is no such split). ``uncompiled`` tells why steps
    that were to be compiled were not; it is empty where they were, and ``None`` where nobody asked.
    """

    epochs: list[EpochRecord] = field(default_factory=list)
    selected_epoch: int = 0
    validation: Quality | None = None
    uncompiled: str | None = None


@dataclass
class _State:
    """Everything that the next epoch depends on beyond module, optimizer and hooks."""

    training: Training
    step: int = 0
    best: float = -math.inf
    since_best: int = 0
    best_weights: dict[str, Tensor] | None = None
    best_hooks: list[dict[str, Any]] | None = None


def make_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all trainable parameters, in torch's fused form."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ShrinkbenchError(
            "the network has no parameter that trains; hold layers in nn.ModuleList in place of a list, or "
            "unfreeze some with requires_grad_()"
        )
    common: dict[str, Any] = {
        "lr": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "fused": all(p.device.type in ("cpu", "cuda") for p in parameters),
    }
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, momentum=recipe.momentum, nesterov=recipe.nesterov and recipe.momentum > 0, **common
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, **common)


def train(
    module: nn.Module,
    recipe: Recipe,
    data: Data,
    *,
    seed: int,
    after_step: Callable[[], None] | None = None,
    hooks: Sequence[Hook] = (),
    first_epoch: int = 1,
    last_epoch: int | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    task: Task = CLASSIFY,
    devices: int = 1,
    team: Team = ALONE,
    teacher: nn.Module | None = None,
    passed_over: int = 0,
    compiled: bool = False,
) -> Training:
    """Train ``module`` in place by ``recipe`` and leave in it the weights that the recipe selects.

    ``task`` says what is learned; its headline metric tells which epoch is the best. ``after_step`` runs after
    every optimizer step, before the ``hooks``, which take part in training as
    :class:`shrinkbench.training.hook.Hook` says and hold the state of the selected epoch at the end. The recipe
    is joined at ``first_epoch``, with that epoch's learning rate and order of images, which is how schedules
    are rewound, and left after ``last_epoch``. With ``checkpoint``, the state after each epoch is kept on disk,
    and a later call with the same arguments goes on from it: all randomness of an epoch follows from ``seed``
    and its number, so the outcome is the same bit for bit. Raises ``ShrinkbenchError`` when the loss is no
    longer finite, and where the recipe looks at a validation split and there is none.

    ``teacher`` is the network that a recipe with ``distillation`` learns from, in evaluation mode. The first
    ``passed_over`` batches of ``first_epoch`` are left out, for a training that is rewound to a step.

    With ``devices``, as many processes of this machine train together, each on its share of every batch: on the
    GPUs where ``module`` is on one, else on the cores. Network, data and hooks are sent to them by pickle. In a
    process of a ``team`` that is there already, this is its part of the training.

    With ``compiled``, whole batches go through ``torch.compile`` where that gives the network's own step up to
    rounding (:mod:`shrinkbench.training.compiling`); ``hooks`` must not change what the network computes.
    """
    if after_step is not None:
        hooks = (_AfterStep(after_step), *hooks)
    _check_selection(recipe, data)
    check_share(recipe, max(team.size, devices))
    if devices > 1:
        shared: dict[str, Any] = {
            "recipe": recipe,
            "data": data,
            "seed": seed,
            "hooks": hooks,
            "first_epoch": first_epoch,
            "last_epoch": last_epoch,
            "task": task,
            "teacher": teacher,
            "passed_over": passed_over,
            "compiled": compiled,
        }
        with _team_for(module, devices, shared) as found:
            return train(module, **shared, checkpoint=checkpoint, on_epoch=on_epoch, team=found)
    learned = learned_by(task, recipe, teacher)
    averager = averager_of(module, recipe)
    hooks = hooks if averager is None else (*hooks, averager)
    optimizer = make_optimizer(module, recipe)
    for hook in hooks:
        hook.start(optimizer)
    state = _State(Training())
    saved = team.tell(load_checkpoint(checkpoint) if checkpoint and is_head(team) else None)
    if saved is not None:
        _restore(saved, module, optimizer, hooks, state)
    last = recipe.epochs if last_epoch is None else min(last_epoch, recipe.epochs)
    program: nn.Module | None = None
    if compiled and team.size > 1:
        state.training.uncompiled = "several processes train one network together"
    elif compiled:
        program, state.training.uncompiled = program_of(module, recipe, data, learned, seed=seed)
    for epoch in range(first_epoch + len(state.training.epochs), last + 1):
        if _patience_spent(recipe, state):
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch)
        skipped = passed_over if epoch == first_epoch else 0
        loss = _run_epoch(
            module, recipe, data, optimizer, seed, epoch, hooks, state, learned, team, skipped, program
        )
        for hook in hooks:
            hook.after_epoch(epoch)
        if averager is not None and epoch == recipe.epochs:
            generator = torch.Generator().manual_seed(stream(seed, "data", "averaging"))
            batches = data.train(recipe.batch_size, generator=generator, augment=recipe.augment)
            renew_statistics(module, task, batches, recipe, seed=seed)
        quality = _validate(module, recipe, data, task, team)
        record = EpochRecord(
            epoch=epoch,
            learning_rate=learning_rate(recipe, epoch),
            train_loss=loss,
            validation=quality.metrics if quality else {},
        )
        state.training.epochs.append(record)
        if all(hook.settled for hook in hooks):
            _note(state, recipe, module, data, quality, epoch, hooks, task, team)
        if checkpoint and is_head(team):
            save_checkpoint(checkpoint, _snapshot(module, optimizer, hooks, state))
        if on_epoch:
            on_epoch(record)
    if state.best_weights is not None:
        module.load_state_dict(state.best_weights)
        for hook, kept in zip(hooks, state.best_hooks or (), strict=True):
            hook.load_state_dict(kept)
    return state.training


class _AfterStep(Hook):
    """A function that is called after every step."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function

    def after_step(self, step: int) -> None:
        self._function()


def _run_epoch(
    module: nn.Module,
    recipe: Recipe,
    data: Data,
    optimizer: torch.optim.Optimizer,
    seed: int,
    epoch: int,
    hooks: Sequence[Hook],
    state: _State,
    task: Task,
    team: Team,
    skipped: int,
    program: nn.Module | None,
) -> float:
    """One pass over the training examples, but for the first ``skipped`` batches; returns their mean loss.

    The ``program`` is for whole batches: another size would be compiled anew.
    """
    module.train()
    generator = torch.Generator().manual_seed(stream(seed, "data", epoch))
    total: Tensor | None = None
    examples = 0
    own = () if is_head(team) else (team.rank,)  # each process has images and so noise of its own
    with torch.random.fork_rng(), whole_batches(module, team):
        torch.manual_seed(stream(seed, "noise", epoch, *own))
        batches = data.train(recipe.batch_size, generator=generator, augment=recipe.augment)
        for batch in islice(task.training_batches(batches), skipped, None):
            state.step += 1
            for hook in hooks:
                hook.before_step(state.step)
            stepped = program if program is not None and count_of(batch) == recipe.batch_size else module
            loss, count = _backward(stepped, recipe, batch, hooks, task, team)
            for hook in hooks:
                hook.after_backward(state.step)
            if recipe.clip_gradient_norm is not None:
                nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_gradient_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for hook in hooks:
                hook.after_step(state.step)
            # The sum stays on the device: asking for its value each step would wait for the device.
            weighted = loss.double() * count
            total = weighted if total is None else total + weighted
            examples += count
    if total is None:
        raise ShrinkbenchError("the training split is empty; give at least one training image")
    team.add([total])
    seen = sum(team.gather(examples))
    if not seen:
        raise ShrinkbenchError(
            f"epoch {epoch} has nothing to learn from: no example, and of language models no token to predict; "
            "give blocks of two tokens or more, and labels"
        )
    mean = float(total) / seen
    if not math.isfinite(mean):
        raise ShrinkbenchError(
            f"training diverged: the loss of epoch {epoch} is {mean}; lower the learning rate "
            f"({learning_rate(recipe, epoch):g}), or look for NaN in the data"
        )
    return mean


def _backward(
    module: nn.Module, recipe: Recipe, batch: Any, hooks: Sequence[Hook], task: Task, team: Team
) -> tuple[Tensor, int]:
    """The mean loss over this process's share of ``batch``, its examples, and gradients of the whole batch.

    A batch of fewer examples than processes is taken by all of them whole.
    """
    if team.size == 1:
        loss, count = loss_of(task, module, batch, recipe)
        loss.backward()
        return loss.detach(), count
    whole = count_of(batch)
    shared = whole >= team.size
    loss, count = loss_of(task, module, share_of(batch, team.rank, team.size) if shared else batch, recipe)
    (loss * (count * team.size / whole) if shared else loss).backward()
    average_gradients([*module.parameters(), *(t for hook in hooks for t in hook.beside)], team)
    return loss.detach(), count


@contextmanager
def _team_for(module: nn.Module, devices: int, shared: dict[str, Any]) -> Iterator[Team]:
    """Other processes that begin the same training; the network is theirs only for as long."""
    from shrinkbench.training.together import TeamMember, packed, places_of, team_of

    device = next((p.device.type for p in module.parameters()), "cpu")
    follow = TeamMember(packed(module, shared), train)
    with team_of(places_of(device, devices), follow) as team:
        yield team


def _validate(module: nn.Module, recipe: Recipe, data: Data, task: Task, team: Team) -> Quality | None:
    """Quality on the validation split, where there is one."""
    batches = data.validation()
    if batches is None:
        return None
    return evaluate(module, batches, precision=recipe.precision, task=task, team=team)


def _check_selection(recipe: Recipe, data: Data) -> None:
    needs = recipe.selection == "best-validation" or (recipe.early_stopping and recipe.selection == "last")
    if needs and data.validation() is None:
        raise ShrinkbenchError(
            f"recipe '{recipe.name}' looks at a validation split, and there is none; set images aside, or take "
            "a recipe with selection = last and without early stopping"
        )


def _note(
    state: _State,
    recipe: Recipe,
    module: nn.Module,
    data: Data,
    validation: Quality | None,
    epoch: int,
    hooks: Sequence[Hook],
    task: Task,
    team: Team,
) -> None:
    """Keep the weights if this epoch is the best so far by the recipe's rule; count epochs that are not."""
    judged = validation
    if recipe.selection == "best-test":
        judged = evaluate(module, data.test(), precision=recipe.precision, task=task, team=team)
    score = _score(judged, task.objective)
    if score > state.best:
        state.best, state.since_best = score, 0
    else:
        state.since_best += 1
    if recipe.selection == "last":
        state.training.selected_epoch, state.training.validation = epoch, validation
    elif state.since_best == 0:
        state.training.selected_epoch, state.training.validation = epoch, validation
        state.best_weights = copy.deepcopy(module.state_dict())
        state.best_hooks = [copy.deepcopy(hook.state_dict()) for hook in hooks]


def _score(quality: Quality | None, objective: Objective) -> float:
    """The headline metric, turned so that higher is better."""
    if quality is None:
        return -math.inf
    value = quality[objective.headline]
    return value if objective.metric(objective.headline).direction == "higher" else -value


def _patience_spent(recipe: Recipe, state: _State) -> bool:
    stopping = recipe.early_stopping
    return stopping is not None and state.since_best >= stopping.patience


def _snapshot(
    module: nn.Module, optimizer: torch.optim.Optimizer, hooks: Sequence[Hook], state: _State
) -> dict[str, Any]:
    return {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "hooks": [hook.state_dict() for hook in hooks],
        "step": state.step,
        "epochs": [record.model_dump() for record in state.training.epochs],
        "selected_epoch": state.training.selected_epoch,
        "validation": state.training.validation and state.training.validation.model_dump(),
        "best": state.best,
        "since_best": state.since_best,
        "best_weights": state.best_weights,
        "best_hooks": state.best_hooks,
    }


def _restore(
    saved: dict[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    hooks: Sequence[Hook],
    state: _State,
) -> None:
    module.load_state_dict(saved["module"])
    optimizer.load_state_dict(saved["optimizer"])
    for hook, kept in zip(hooks, saved["hooks"], strict=True):
        hook.load_state_dict(kept)
    state.step = saved["step"]
    state.training.epochs = [EpochRecord(**record) for record in saved["epochs"]]
    state.training.selected_epoch = saved["selected_epoch"]
    state.training.validation = saved["validation"] and Quality.model_validate(saved["validation"])
    state.best, state.since_best = saved["best"], saved["since_best"]
    state.best_weights, state.best_hooks = saved["best_weights"], saved["best_hooks"]
