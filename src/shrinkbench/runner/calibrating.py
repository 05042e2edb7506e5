"""How long a sweep takes on this machine, before any of its runs is finished: a few steps are timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError, one_line, text_of
from shrinkbench.runner.dependencies import graph_of
from shrinkbench.runner.effort import epochs_of_task, is_copy
from shrinkbench.runner.executors import Task
from shrinkbench.runner.executors.performing import file_of_task
from shrinkbench.runner.pretraining import untrained_network
from shrinkbench.runner.sweeping import Prepared
from shrinkbench.runner.workspace import EVALUATION_BATCH, BoundData, Workspace
from shrinkbench.seeds import stream
from shrinkbench.spec import Recipe, RunSpec
from shrinkbench.tasks import task_of
from shrinkbench.training.compiling import program_of, require_compiler
from shrinkbench.training.evaluation import evaluate
from shrinkbench.training.loop import make_optimizer

SECONDS = 2.0
"""As long is each kind of training timed, and at least three steps."""
FEWEST = 3
LONGEST = 150  # letters of somebody else's sentence


def expected_seconds(prepared: Prepared, only: Iterable[str]) -> float:
    """Seconds of training and evaluating the runs with keys ``only``, and of what they need, one after another.

    Steps of every combination of data, network, batch size and precision are timed on copies that are thrown
    away. Deciding masks, loading and storing are not in it; early stopping takes less, equal computation more.
    Raises ``ShrinkbenchError`` where a step fails.
    """
    workspace, wanted = prepared.setting.workspace, frozenset(only)
    runs = [spec for spec in prepared.todo if spec.key in wanted]
    rates: dict[tuple[object, ...], _Rates] = {}
    total = 0.0
    for task in graph_of(runs, lambda task: file_of_task(task, workspace.root).exists(), {}):
        recipe, data = task.spec.recipe, task.spec.data
        key = (data, task.spec.model, recipe.batch_size, recipe.precision, recipe.augment)
        if key not in rates:
            try:
                rates[key] = _rates(task, recipe, workspace)
                total += rates[key].first
            except Exception as error:  # of a network or a loss of somebody's
                own = isinstance(error, ShrinkbenchError)  # a sentence, of bounded length
                told = str(error) if own else one_line(f"{type(error).__name__}: {text_of(error)}", LONGEST)
                label = f"{task.spec.model.name} on {data.name}"
                raise ShrinkbenchError(f"a step of {label} could not be timed: {told}") from error
        bound = BoundData(workspace.dataset(data.name), data, workspace.device)
        epochs = epochs_of_task(task)
        batches = -(-len(bound.train_source) // recipe.batch_size)
        total += epochs * batches * rates[key].step + _evaluations(task, bound, epochs) * rates[key].evaluation
    return total


def seconds_of_compiling(prepared: Prepared) -> tuple[float, float]:
    """:func:`expected_seconds` of what is to do, with steps as they are and with compiled ones.

    What compiling itself takes is in the second, once: each worker compiles, at the same time as the others.
    """
    require_compiler()
    keys = [spec.key for spec in prepared.todo]
    plain, compiled = (expected_seconds(_with(prepared, compiled=each), keys) for each in (False, True))
    return plain, compiled


def _with(prepared: Prepared, *, compiled: bool) -> Prepared:
    workspace = replace(prepared.setting.workspace, compiled=compiled)
    return replace(prepared, setting=replace(prepared.setting, workspace=workspace))


def _evaluations(task: Task, data: BoundData, epochs: int) -> int:
    """Batches that are evaluated: validation after each epoch, the test split before and after."""
    validation = data.spec.validation_images or len(data.dataset.validation)
    tests = 2 * (data.spec.test_images or len(data.dataset.test)) if task.kind in ("run", "control") else 0
    return 0 if is_copy(task) else -(-(epochs * validation + tests) // EVALUATION_BATCH)


@dataclass(frozen=True)
class _Rates:
    """Median seconds of a training step, those of evaluating a batch, and of compiling first."""

    step: float
    evaluation: float
    first: float = 0.0


def _rates(task: Task, recipe: Recipe, workspace: Workspace) -> _Rates:
    data = BoundData(workspace.dataset(task.spec.data.name), task.spec.data, workspace.device)
    module = untrained_network(task.spec.model.name, data, 0)
    spec = task.spec
    learned = task_of(spec.task.objective if isinstance(spec, RunSpec) else spec.objective)
    optimizer = make_optimizer(module, recipe)
    generator = torch.Generator().manual_seed(stream(0, "data", 1))
    batches = data.train(recipe.batch_size, generator=generator, augment=recipe.augment)
    steps: list[float] = []
    stepped: nn.Module = module
    first = 0.0
    if workspace.compiled and task.kind != "search":
        begun = time.perf_counter()
        program, _ = program_of(module, recipe, data, learned, seed=0)
        stepped = module if program is None else program
        first = time.perf_counter() - begun
    module.train()
    with torch.random.fork_rng():
        begun = time.perf_counter()
        for batch in learned.training_batches(batches):
            start = time.perf_counter()
            loss, _ = learned.loss(stepped, batch, recipe)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            float(loss.detach())  # waits for a GPU
            steps.append(time.perf_counter() - start)
            if len(steps) > FEWEST and time.perf_counter() - begun > SECONDS:
                break
    start = time.perf_counter()
    few = list(islice(iter(data.validation() or data.test()), FEWEST))
    evaluate(module, iter(few), precision=recipe.precision, task=learned)
    evaluation = (time.perf_counter() - start) / max(len(few), 1)
    return _Rates(statistics.median(steps[1:] or steps), evaluation, first)
