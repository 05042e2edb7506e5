"""A task of one's own: a loss and metrics of what the network returns and what was to be returned."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.network.inputs import Batch, split_batch
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.spec import MetricSpec, Objective, Recipe, parse_value
from shrinkbench.spec.measures import Quality
from shrinkbench.tasks.batches import by_code_of, called, join_last, placed
from shrinkbench.tasks.classification import Classification
from shrinkbench.tasks.task import Batches, Task

Criterion = Callable[[Any, Any], Tensor]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Metric:
    """A measure of quality: ``of(outputs, targets)`` gives one value per example, which are averaged.

    ``lower`` and ``upper`` are the bounds that no value can leave.
    """

    of: Criterion
    direction: Literal["higher", "lower"]
    unit: str = ""
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Supervised:
    """Batches are pairs of inputs and targets, or dictionaries that hold their targets as ``labels``.

    ``criterion(outputs, targets)`` is the mean loss of a batch; it is trained on, and what gradients for scores
    are of. The first of ``metrics`` leads every comparison; ``loss`` is added as the last.

    >>> task = Supervised(F.mse_loss, {"error": Metric(lambda y, t: (y - t).abs().flatten(), "lower")})
    >>> task.objective.headline, [metric.name for metric in task.objective.metrics]
    ('error', ['error', 'loss'])
    """

    criterion: Criterion
    metrics: Mapping[str, Metric]
    name: str = "supervised"
    averages: ClassVar[bool] = True  # metrics are means over examples

    @property
    def objective(self) -> Objective:
        """The task as a value."""
        if not self.metrics or "loss" in self.metrics:
            raise ShrinkbenchError("give metrics= at least one metric; 'loss' is added, and no name for one")
        where = f"task '{one_line(str(self.name), 40)}'"
        specs = [self._spec_of(name, metric, where) for name, metric in self.metrics.items()]
        fields = {
            "name": self.name,
            "loss": getattr(self.criterion, "__name__", "criterion"),
            "metrics": (*specs, MetricSpec(name="loss", direction="lower", unit="")),
            "headline": specs[0].name,
        }
        return parse_value(Objective, fields, where=where)

    def _spec_of(self, name: str, metric: object, where: str) -> MetricSpec:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ShrinkbenchError(
                f"{where}: a metric is called '{one_line(str(name), 60)}'; give it a name of up to 100 "
                "letters, digits, dots, dashes and underscores"
            )
        if not isinstance(metric, Metric):
            raise ShrinkbenchError(
                f"{where}: metric '{name}' is a {type(metric).__name__}; give Metric(of, direction)"
            )
        fields = {part: getattr(metric, part) for part in ("direction", "unit", "lower", "upper")}
        return parse_value(MetricSpec, {"name": name, **fields}, where=f"{where}, metric '{name}'")

    def training_batches(self, batches: Batches) -> Iterator[Batch]:
        """As for classification: a last batch of one example is joined to the one before."""
        yield from join_last(batches)

    def loss(self, module: nn.Module, batch: Any, recipe: Recipe) -> tuple[Tensor, int]:
        """The criterion of one batch, and its examples."""
        given = placed(split_batch(batch), module)
        kind = given.inputs.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            loss = self._loss_of(called(module, given.inputs), given.targets)
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise ShrinkbenchError(
                f"the criterion of task '{self.name}' gives a loss that does not depend on the network's "
                "outputs; compute it of them without .detach(), .item() or argmax"
            )
        return loss, len(given)

    def _loss_of(self, outputs: Any, targets: Any) -> Tensor:
        with by_code_of(f"the criterion of task '{self.name}'"):
            loss: object = self.criterion(outputs, targets)
        if isinstance(loss, Tensor) and not loss.dim() and not loss.is_complex():
            return loss
        raise ShrinkbenchError(
            f"the criterion of task '{self.name}' gives {_what_is(loss)}; return the mean of a batch, one real "
            "number in a tensor without dimensions"
        )

    @torch.inference_mode()
    def evaluate(self, module: nn.Module, batches: Batches, *, precision: str = "float32") -> Quality:
        """The means of all metrics and of the loss over all examples."""
        sums = dict.fromkeys([*self.metrics, "loss"], 0.0)
        examples = 0
        with evaluation_mode(module):
            for each in batches:
                given = placed(split_batch(each), module)
                if not len(given):  # the mean of nothing is no number
                    continue
                kind = given.inputs.device.type
                with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16-mixed"):
                    outputs = called(module, given.inputs)
                for name, metric in self.metrics.items():
                    with by_code_of(f"metric '{name}' of task '{self.name}'"):
                        values = metric.of(outputs, given.targets)
                    sums[name] += self._sum_of(name, values, len(given))
                sums["loss"] += float(self._loss_of(outputs, given.targets)) * len(given)
                examples += len(given)
        if not examples:
            raise ShrinkbenchError("there are no examples to evaluate on; give a split with at least one")
        means = {name: total / examples for name, total in sums.items()}
        self._check(means, examples)
        return Quality(metrics=means, examples=examples)

    def _check(self, means: Mapping[str, float], examples: int) -> None:
        """Refuse what no report could compare: numbers that are none, or beyond the bounds that were stated."""
        for spec in self.objective.metrics:
            complaint = spec.complaint(means[spec.name])
            if complaint:
                raise ShrinkbenchError(
                    f"over {examples} examples, {complaint}; let the metric of task '{self.name}' give finite "
                    "numbers within its bounds, and lower the learning rate where the network has diverged"
                )

    def _sum_of(self, name: str, values: object, examples: int) -> float:
        if not isinstance(values, Tensor) or values.shape != (examples,) or values.is_complex():
            raise ShrinkbenchError(
                f"metric '{name}' gives {_what_is(values)} for {examples} examples; return a tensor of one "
                "real value per example, so that short batches weigh what they hold"
            )
        return float(values.double().sum())


def _what_is(found: object) -> str:
    if not isinstance(found, Tensor):
        return f"a value of type {type(found).__name__}"
    return f"{'complex ' if found.is_complex() else ''}values of shape {tuple(found.shape)}"


@runtime_checkable
class HasCriterion(Protocol):
    """A task whose loss is a function of outputs and targets, of which scores may take gradients."""

    @property
    def criterion(self) -> Criterion:
        """The mean loss of outputs against targets."""
        ...


def require_scorable(task: Task, method: str) -> None:
    """Raise ``ShrinkbenchError`` where ``method`` scores on data and can make nothing of the task's batches.

    These are no pairs of inputs and targets where a task says so (``pairs = False``).
    """
    if not getattr(task, "pairs", True):
        raise ShrinkbenchError(
            f"'{method}' scores on data, and the batches of '{task.objective.name}' are no inputs with "
            "targets: its networks give their losses themselves, in training alone; choose methods without "
            "(`shrinkbench list methods --without data`)"
        )


def scoring_loss(task: Task) -> Criterion:
    """The loss that gradients for scores are of."""
    if isinstance(task, HasCriterion):
        return task.criterion
    if isinstance(task, Classification):
        return F.cross_entropy

    def refuse(outputs: object, targets: object) -> Tensor:
        raise ShrinkbenchError(
            f"the task '{task.objective.name}' has no criterion(outputs, targets), and this method scores by "
            "gradients of the loss; give the task one, or choose a method without gradients"
        )

    return refuse
