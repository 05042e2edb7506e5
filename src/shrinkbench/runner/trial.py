"""One run's network on its way, with what every step of it needs, and what comes out in the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from shrinkbench.files import make_folder
from shrinkbench.models import MODELS, get_model
from shrinkbench.network.inputs import Inputs
from shrinkbench.pruning import Finetuning, Masks, PruningMethod, resolve, resolve_finetuning, rounds_of
from shrinkbench.results.record import TrainedSmaller
from shrinkbench.runner.pretraining import initial_network, untrained_network
from shrinkbench.runner.round_states import RoundState
from shrinkbench.runner.workspace import BoundData, Workspace, check_source, example_of
from shrinkbench.spec import UNPRUNED, Amount, RunSpec
from shrinkbench.spec.measures import Quality, Spent
from shrinkbench.spec.training_cost import NOTHING
from shrinkbench.tasks import Task, task_of
from shrinkbench.training import Training, evaluate


@dataclass
class Outcome:
    """Masks, quality before the last training, that training, and what finding and training cost."""

    masks: Masks = field(default_factory=lambda: Masks({}))
    before: Quality | None = None
    training: Training = field(default_factory=Training)
    pruning: Spent = NOTHING
    retraining: Spent = NOTHING
    smaller: TrainedSmaller | None = None

    def state(self, trial: Trial) -> RoundState:
        """What another run needs that goes on from here."""
        return RoundState(self.masks, self.pruning, self.retraining, trial.scored["images"], self.smaller)


@dataclass(frozen=True)
class Trial:
    """One run's network on its way, with what every step of it needs, resolved once.

    ``method`` is ``None`` for a control, where nothing is pruned; ``rounds`` are the amounts of its rounds.
    """

    spec: RunSpec
    method: PruningMethod | None
    finetuning: Finetuning
    module: nn.Module
    workspace: Workspace
    data: BoundData
    example: Inputs
    folder: Path
    task: Task
    rounds: tuple[Amount, ...]
    scored: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, spec: RunSpec, workspace: Workspace, folder: Path) -> Trial:
        """The trial of ``spec`` before anything is pruned; its files go to ``folder``.

        A target out of reach is told before anything is trained.
        """
        method = None if spec.is_control else resolve(spec.method)
        data = BoundData(workspace.dataset(spec.data.name), spec.data, workspace.device)
        example = example_of(get_model(spec.model.name), data.dataset)
        rounds = (UNPRUNED,) if method is None else check_in_reach(spec, method, workspace)
        module = initial_network(spec, workspace, data)
        make_folder(folder)
        finetuning = resolve_finetuning(spec.method.finetuning) if method is None else method.finetuning
        task = task_of(spec.task.objective)
        return cls(spec, method, finetuning, module, workspace, data, example, folder, task, rounds)

    def teacher(self) -> nn.Module | None:
        """The network before pruning, for recipes that learn from it."""
        if self.spec.recipe.distillation is None:
            return None
        return initial_network(self.spec, self.workspace, self.data)

    def tested(self) -> Quality:
        """Quality now, on the test split."""
        return evaluate(
            self.module,
            self.data.test(),
            precision=self.spec.recipe.precision,
            task=self.task,
            team=self.workspace.team,
        )


def check_in_reach(spec: RunSpec, method: PruningMethod, workspace: Workspace) -> tuple[Amount, ...]:
    """How much each round of ``spec`` prunes; raises ``CannotMeetTargetError`` where that cannot be."""
    data = BoundData(workspace.dataset(spec.data.name), spec.data, workspace.device)
    check_source(MODELS, spec.model)
    return rounds_of(
        untrained_network(spec.model.name, data, spec.seed),
        method,
        spec.amount,
        input_shape=example_of(get_model(spec.model.name), data.dataset),
        **spec.also_prunable,
        constraints=spec.constraints,
    )
