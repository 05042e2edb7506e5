"""Learning from a teacher beside the labels (Hinton et al. 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.probe import first_tensor
from shrinkbench.spec import Objective, Recipe
from shrinkbench.spec.measures import Quality
from shrinkbench.tasks import Batches, Task, split_for
from shrinkbench.tasks.batches import placed


@dataclass(frozen=True)
class Distilled:
    """``task`` with the outputs of ``teacher`` in its loss, as the recipe's ``distillation`` says."""

    task: Task
    teacher: nn.Module

    @property
    def objective(self) -> Objective:
        """That of the task."""
        return self.task.objective

    def training_batches(self, batches: Batches) -> Iterator[Any]:
        """Those of the task."""
        return self.task.training_batches(batches)

    def evaluate(self, module: nn.Module, batches: Batches, *, precision: str) -> Quality:
        """As the task does."""
        return self.task.evaluate(module, batches, precision=precision)

    def loss(self, module: nn.Module, batch: Any, recipe: Recipe) -> tuple[Tensor, int]:
        """``(1 - a) loss + a T^2 KL(softmax(teacher / T) || softmax(network / T))``, the mean over examples."""
        seen: list[Any] = []
        handle = module.register_forward_hook(lambda _, args, outputs: seen.append(outputs))
        try:
            loss, count = self.task.loss(module, batch, recipe)
        finally:
            handle.remove()
        distillation = recipe.distillation
        if distillation is None:
            return loss, count
        logits = first_tensor(seen[-1]).float()
        if logits.dim() != 2:
            raise ShrinkbenchError(
                "distillation compares scores of classes, of shape (examples, classes), and the network gives "
                f"{tuple(logits.shape)}; leave distillation out"
            )
        taught = self._taught(module, batch, recipe).float()
        t, a = distillation.temperature, distillation.weight
        network, teacher = (F.log_softmax(z / t, dim=1) for z in (logits, taught))
        divergence = F.kl_div(network, teacher, reduction="batchmean", log_target=True)
        return (1 - a) * loss + a * t**2 * divergence, count

    @torch.no_grad()
    def _taught(self, module: nn.Module, batch: Any, recipe: Recipe) -> Tensor:
        """The teacher's outputs, in evaluation mode and where the network is."""
        inputs = placed(split_for(self.task, batch), module).inputs
        self.teacher.to(inputs.device).eval()
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            return first_tensor(inputs.call(self.teacher))


def learned_by(task: Task, recipe: Recipe, teacher: nn.Module | None) -> Task:
    """The task as ``recipe`` learns it; raises ``ShrinkbenchError`` where it needs a teacher and has none."""
    if recipe.distillation is None:
        return task
    if teacher is None:
        raise ShrinkbenchError(
            f"recipe '{recipe.name}' learns from a teacher, and there is none; pass teacher=, or leave "
            "distillation out"
        )
    return Distilled(task, teacher)
