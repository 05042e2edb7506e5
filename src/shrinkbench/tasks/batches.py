"""Batches as every task takes them: split into inputs and targets, and on the network's device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError, one_line, said_of
from shrinkbench.network.calling import is_of_a_device, require_decoder_inputs
from shrinkbench.network.inputs import Batch, Inputs, range_of, split_batch
from shrinkbench.network.positions import require_positions
from shrinkbench.network.weights import require_present
from shrinkbench.spec import Recipe
from shrinkbench.tasks.task import Batches, Task

_ELSEWHERE = (ShrinkbenchError, OSError, MemoryError, ImportError)


@runtime_checkable
class Splits(Protocol):
    """A task with a rule of its own for what of a batch goes in and what is to come out."""

    def split(self, batch: Any) -> Batch:
        """The batch as inputs and targets."""
        ...


@runtime_checkable
class Particular(Protocol):
    """A task with metrics that are not defined on any targets."""

    def check_targets(self, targets: Tensor) -> None:
        """Refuse targets of a whole split of which one of the metrics cannot be told."""


def require_measurable(task: Task, targets: Tensor) -> None:
    """Refuse ``targets`` of a split to test on where ``task`` says that they leave a metric undefined."""
    if isinstance(task, Particular):
        task.check_targets(targets)


def split_for(task: Task, batch: Any) -> Batch:
    """``batch`` as ``task`` says, by default as :func:`shrinkbench.network.inputs.split_batch` does."""
    return task.split(batch) if isinstance(task, Splits) else split_batch(batch)


def placed(batch: Batch, module: nn.Module) -> Batch:
    """``batch`` where the parameters of ``module`` are, floating inputs in their precision, as for pruning."""
    like = next(module.parameters(), None)
    if like is not None and like.is_meta:
        require_present(module)
    if any(tensor.is_meta for tensor in batch.inputs.tensors):
        raise ShrinkbenchError(
            f"a batch holds sizes or tensors without values ({one_line(str(batch.inputs), 60)}); give tensors"
        )
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
    return batch if like is None else batch.to(like.device, dtype)


def called(module: nn.Module, inputs: Inputs) -> Any:
    """What ``module`` returns for ``inputs``; what it raises for inputs that do not fit is one sentence.

    Failures of compilers and devices, which are kinds of torch's own or say so, stay what they are.
    """
    require_positions(module, inputs)
    try:
        return inputs.call(module)
    except Exception as error:
        if _is_elsewheres(error):
            raise
        require_decoder_inputs(module, inputs)
        raise ShrinkbenchError(
            f"the network does not take a batch of {one_line(str(inputs), 60)}{range_of(inputs)} "
            f"({one_line(said_of(error), 90)}); give inputs of the sizes and values that its forward pass takes"
        ) from error


@contextmanager
def by_code_of(what: str, code: object = None) -> Iterator[None]:
    """What somebody's code of ``what`` raises inside is one sentence, as for :func:`called`.

    Where ``code`` is an object of this package, that would be a fault of ours, and stays what it is.
    """
    try:
        yield
    except Exception as error:
        ours = type(code).__module__.partition(".")[0] == __name__.partition(".")[0]
        if ours or _is_elsewheres(error):
            raise
        raise ShrinkbenchError(f"{what} failed: {one_line(said_of(error), 160)}; mend it") from error


def _is_elsewheres(error: Exception) -> bool:
    if isinstance(error, _ELSEWHERE):
        return True
    library = type(error).__module__.partition(".")[0] in ("torch", "triton")
    singular = isinstance(error, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
    if singular or not (library or isinstance(error, RuntimeError)):
        return False  # of a matrix that has no inverse, or of Python's own kinds
    return library or is_of_a_device(error)


def loss_of(task: Task, module: nn.Module, batch: Any, recipe: Recipe) -> tuple[Tensor, int]:
    """The task's loss, or a sentence where nothing can be learned from it: tasks and networks are anybody's."""
    with by_code_of(f"the loss of task '{task.objective.name}'", task):
        loss, count = task.loss(module, batch, recipe)
    if isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1:
        return loss, count
    kind = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"of type {type(loss).__name__}"
    if isinstance(loss, Tensor) and loss.numel() == 1:
        kind = "that depends on no weight that trains"
    raise ShrinkbenchError(
        f"the task '{task.objective.name}' gives a loss {kind}; let it be one number, computed of what the "
        "network puts out without .detach(), .item() or argmax in the task or the network"
    )


def same_width(known: int | None, logits: Tensor, what: str) -> int:
    """How many ``what`` (classes) the network tells apart; raises where that was another number before."""
    if known not in (None, logits.shape[1]):
        raise ShrinkbenchError(
            f"the network tells {known} {what} apart in one batch and {logits.shape[1]} in another, so that "
            "its numbers are of different questions; give one of as many outputs for every batch"
        )
    return logits.shape[1]


def join_last(batches: Batches) -> Iterator[Batch]:
    """A last batch of one example joined to the one before: batch norm has no variance over one.

    It stays alone where its example is of another shape.
    """
    held: Batch | None = None
    for batch in map(split_batch, batches):
        joined = held.joined(batch) if held is not None and len(batch) == 1 else None
        if held is not None and joined is None:
            yield held
        held = batch if joined is None else joined
    if held is not None:
        yield held
