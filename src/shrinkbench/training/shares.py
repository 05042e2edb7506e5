"""What one process of a team has of every batch, and how batch norm sees the batch whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Batch
from shrinkbench.training.team import Team


def count_of(batch: Any) -> int:
    """Examples of a batch: of columns (tensors in a tuple or mapping) their rows, else the items of a sequence.

    >>> count_of((torch.zeros(3, 2), torch.zeros(3))), count_of([("image", "boxes"), ("image", "boxes")])
    (3, 2)
    """
    columns = None if isinstance(batch, Batch) else _columns(batch)
    if columns is None:
        return len(batch)
    counts = {len(column) for column in columns}
    if len(counts) != 1:
        raise ShrinkbenchError(
            f"the parts of a batch have {', '.join(map(str, sorted(counts)))} examples, so that no process "
            "knows its share; give parts of one length, or train on one device"
        )
    return counts.pop()


def share_of(batch: Any, rank: int, size: int) -> Any:
    """The part of ``batch`` that process ``rank`` of ``size`` has: the parts lie one after another.

    >>> [share_of((torch.arange(5), torch.arange(5)), rank, 2)[0].tolist() for rank in range(2)]
    [[0, 1, 2], [3, 4]]
    """
    count = count_of(batch)
    least, more = divmod(count, size)
    first = rank * least + min(rank, more)
    rows = slice(first, first + least + (rank < more))
    if isinstance(batch, Batch):
        return batch.part(rows.start, rows.stop)
    return batch[rows] if _columns(batch) is None else _cut(batch, rows)


def _columns(batch: Any) -> list[Tensor] | None:
    """The tensors of a batch that have one row for every example; ``None`` for a sequence of examples."""
    if isinstance(batch, Tensor):
        return [batch]
    parts = list(batch.values()) if isinstance(batch, Mapping) else list(batch)
    found: list[Tensor] = []
    for part in parts:
        columns = _columns(part) if isinstance(part, Tensor | Mapping) else None
        if columns is None:
            return None
        found.extend(columns)
    return found or None


def _cut(batch: Any, rows: slice) -> Any:
    if isinstance(batch, Tensor):
        return batch[rows]
    if isinstance(batch, Mapping):
        return {name: _cut(part, rows) for name, part in batch.items()}
    return type(batch)(_cut(part, rows) for part in batch)


def shares_of(batches: Iterable[Any], team: Team) -> Iterator[Any]:
    """This process's part of every batch that has one for it; together the processes have each example once."""
    for batch in batches:
        part = share_of(batch, team.rank, team.size)
        if count_of(part):
            yield part


def average_gradients(parameters: Iterable[Tensor], team: Team) -> None:
    """Put the mean over the processes into every gradient, in place."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    team.add(gradients)
    for gradient in gradients:
        gradient.div_(team.size)


@contextmanager
def whole_batches(module: nn.Module, team: Team) -> Iterator[None]:
    """Batch norms of ``module`` in training mode take mean and variance over the batches of all processes."""
    norms = [child for child in module.modules() if isinstance(child, _BatchNorm)] if team.size > 1 else []
    for norm in norms:
        norm.forward = partial(_normalise, norm, norm.forward, team)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward  # what its class has shows again


def _normalise(norm: _BatchNorm, alone: Callable[[Tensor], Tensor], team: Team, inputs: Tensor) -> Tensor:
    if not (norm.training or norm.running_mean is None):
        return alone(inputs)
    dims = [dim for dim in range(inputs.dim()) if dim != 1]
    shape = [1, -1, *[1] * (inputs.dim() - 2)]
    values = inputs.float() if inputs.dtype in (torch.float16, torch.bfloat16) else inputs
    count = torch.full((1,), float(values.numel() // values.shape[1]), device=values.device, dtype=values.dtype)
    team.add([count])
    mean = _Sum.apply(values.sum(dims), team) / count
    centred = values - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(dims), team) / count
    _follow(norm, mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
    found = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        found = found * norm.weight.view(shape) + norm.bias.view(shape)
    normalised: Tensor = found.to(inputs.dtype)
    return normalised


@torch.no_grad()
def _follow(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics as the batch norm itself does."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)


class _Sum(torch.autograd.Function):
    """The sum over the processes; every process's loss depends on it, so that its gradients are added too."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, team: Team) -> Tensor:
        ctx.team = team
        total = local.clone()
        team.add([total])
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        ctx.team.add([total])
        return total, None
