"""Numbers for each example: mean squared error, and its root, mean absolute error and R²."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Batch, describe, split_batch
from shrinkbench.network.probe import evaluation_mode, first_tensor
from shrinkbench.spec import MetricSpec, Objective, Recipe
from shrinkbench.spec.measures import Quality
from shrinkbench.tasks.batches import called, join_last, placed
from shrinkbench.tasks.task import TASKS, Batches
from shrinkbench.tasks.torch_metrics import torch_metrics

REGRESSION = Objective(
    name="regression",
    loss="mse",
    version=4,
    metrics=(
        MetricSpec(name="rmse", direction="lower", unit="", lower=0),
        MetricSpec(name="mae", direction="lower", unit="", lower=0),
        MetricSpec(name="r2", direction="higher", unit="", upper=1),
        MetricSpec(name="loss", direction="lower", unit="", lower=0),
    ),
    headline="rmse",
)


@dataclass(frozen=True)
class Regression:
    """Batches are pairs of inputs and numbers, (N,) or (N, outputs), or dictionaries with ``labels``.

    The network returns as many numbers for each example. Errors are in the unit of the targets.
    """

    objective: Objective = REGRESSION

    def criterion(self, outputs: Any, targets: Any) -> Tensor:
        """Mean squared error over examples and their numbers."""
        found, wanted = _aligned(outputs, targets)
        precise = torch.promote_types(found.dtype, torch.float32)
        return F.mse_loss(found.to(precise), wanted.to(precise))

    def training_batches(self, batches: Batches) -> Iterator[Batch]:
        """A last batch of one example is joined to the one before."""
        yield from join_last(batches)

    def loss(self, module: nn.Module, batch: Any, recipe: Recipe) -> tuple[Tensor, int]:
        """Mean squared error of one batch, and its examples."""
        given = placed(split_batch(batch), module)
        kind = given.inputs.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            return self.criterion(called(module, given.inputs), given.targets), len(given)

    def check_targets(self, targets: Tensor) -> None:
        """Refuse targets that are all alike in one of the numbers, of which R² is undefined."""
        if not _are_apart(_rows(targets)):
            raise ShrinkbenchError(
                f"R² is undefined on the test split: a number is the same in all {len(targets)} targets; test "
                "on more examples, or leave that number out"
            )

    @torch.inference_mode()
    def evaluate(self, module: nn.Module, batches: Batches, *, precision: str = "float32") -> Quality:
        """Root mean squared error and mean absolute error by torchmetrics, and R², over all of ``batches``.

        R² = 1 - squared error / squared deviation of the targets from their mean, averaged over the numbers of
        an example. It is left out where it is undefined: for a single example, or targets that are all alike.
        Differences are those of all digits of the targets, whatever the precision of the network.
        """
        regression = torch_metrics().regression
        parts: list[tuple[Tensor, ...]] = []
        with evaluation_mode(module):
            for each in batches:
                given = placed(split_batch(each), module)
                kind = given.inputs.device.type
                with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16-mixed"):
                    outputs = called(module, given.inputs)
                both = _aligned(outputs, given.targets)
                if both[0].numel():
                    parts.append(tuple(map(_rows, both)))
        if not parts:
            raise ShrinkbenchError("there are no examples to evaluate on; give a split with at least one")
        found, wanted = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        without = int((~wanted.isfinite()).any(dim=1).sum())
        if without:
            raise ShrinkbenchError(
                f"{without} of {len(wanted)} examples have targets that are no finite numbers; leave "
                "them out of the data, or put numbers in their place"
            )
        return Quality(metrics=_metrics(regression, found, wanted), examples=len(found))


def _rows(numbers: Tensor) -> Tensor:
    """(examples, numbers of each), in double precision on the processor; an example may be one bare number."""
    return numbers.cpu().double().reshape(len(numbers), -1)


def _are_apart(wanted: Tensor) -> bool:
    """Whether each of the numbers differs between examples; ``wanted`` is (examples, numbers of each)."""
    return bool((wanted != wanted[0]).any(dim=0).all())


def _metrics(regression: Any, found: Tensor, wanted: Tensor) -> dict[str, float]:
    """Values by name, in double precision; R² only where it is defined."""
    squared = float(regression.MeanSquaredError().set_dtype(torch.float64)(found.flatten(), wanted.flatten()))
    if not squared <= torch.finfo(torch.float32).max:
        raise ShrinkbenchError(
            f"the network has diverged: its mean squared error over {len(found)} examples is {squared:g}; "
            "lower the learning rate, or give targets in a larger unit"
        )
    absolute = regression.MeanAbsoluteError().set_dtype(torch.float64)(found.flatten(), wanted.flatten())
    values = {"rmse": math.sqrt(squared), "mae": float(absolute), "loss": squared}
    if _are_apart(wanted):
        # torchmetrics takes a squared error below 1e-4 for none, whatever the unit of the targets is
        apart = (wanted - wanted.mean(dim=0)).square().sum(dim=0)
        values["r2"] = float((1 - (wanted - found).square().sum(dim=0) / apart).mean())
    return values


def _aligned(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Outputs, and targets of their shape: (N, 1) and (N,) are the same, not compared crosswise."""
    found = first_tensor(outputs)
    both = isinstance(targets, Tensor) and found.dim() > 0 and targets.dim() > 0
    fits = both and len(found) == len(targets) and found.numel() == targets.numel()
    squeezed = fits and _bare(found) == _bare(targets)
    if not squeezed or targets.is_complex() or (len(found) and not found.numel()):
        raise ShrinkbenchError(
            f"regression takes one number for each that the network gives, and here are {describe(found)} and "
            f"targets {describe(targets)}; give targets (N,) or (N, outputs)"
        )
    return found, targets.reshape(found.shape).to(found.device)


def _bare(tensor: Tensor) -> list[int]:
    """The sizes of an example, without those of one."""
    return [size for size in tensor.shape[1:] if size != 1]


TASKS.add(REGRESSION.name, lambda *_: Regression())
