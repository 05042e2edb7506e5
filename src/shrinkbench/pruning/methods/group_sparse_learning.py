"""Norms of coupled parameters, and training towards groups of norm zero (DepGraph, Fang et al. 2023)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from shrinkbench.network.coupling import couple
from shrinkbench.network.groups import Group
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.schedules.hook import Setting
from shrinkbench.pruning.schedules.penalised import Penalised
from shrinkbench.pruning.schedules.schedule import SCHEDULES, Schedule, once
from shrinkbench.pruning.structures.channels import channels, prunable_groups
from shrinkbench.pruning.units import UnitScores

_PENALTY, _GROWTH = 1e-4, 4.0


def group_squares(group: Group, parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Of each unit the sum of squares over all parameters that leave with it, and how many these are."""
    sums, counts = (torch.zeros(group.units, dtype=torch.float64) for _ in range(2))
    for piece in group.slices:
        if piece.tensor not in parameters:
            continue
        here = piece.unit >= 0
        slices = parameters[piece.tensor].detach().movedim(piece.dim, 0).cpu().double()
        rows = slices.reshape(len(slices), -1)[here]
        sums.index_add_(0, piece.unit[here], rows.square().sum(1))
        counts.index_add_(
            0, piece.unit[here], torch.full((len(rows),), float(rows.shape[1]), dtype=torch.float64)
        )
    return sums, counts


@torch.no_grad()
def pushes(squares: Tensor) -> Tensor:
    """``2^(4 (max - I) / (max - min))`` of each unit: 1 for the strongest, 16 for the weakest; else 1.

    >>> pushes(torch.tensor([4.0, 2.0, 0.0])).tolist()
    [1.0, 4.0, 16.0]
    """
    span = squares.max() - squares.min()
    return torch.ones_like(squares) if span <= 0 else 2 ** (_GROWTH * (squares.max() - squares) / span)


class GroupSparseLearning(Penalised):
    """Add ``penalty * push * w`` to the gradients of all parameters of a unit, the weakest pushed 16-fold.

    Equation 5 of the paper; I is the square of the group's norm, taken anew in every step.
    """

    def __init__(self, setting: Setting, *, penalty: float) -> None:
        super().__init__(setting, penalty=penalty)
        ctx = PruneContext(setting.module, setting.names, input_shape=setting.example)
        self._groups = [group for group, _ in prunable_groups(ctx, couple(setting.module, setting.example))]

    @torch.no_grad()
    def add_penalty(self) -> None:
        """``penalty * push * w`` for every parameter that leaves with a unit."""
        parameters: dict[str, nn.Parameter] = dict(self.setting.module.named_parameters())
        tensors: dict[str, Tensor] = dict(parameters)
        for group in self._groups:
            push = pushes(group_squares(group, tensors)[0])
            for piece in group.slices:
                parameter = parameters.get(piece.tensor)
                if parameter is None or parameter.grad is None:
                    continue
                own = torch.where(piece.unit >= 0, push[piece.unit.clamp(min=0)], 0.0).to(parameter)
                shape = [1] * parameter.ndim
                shape[piece.dim] = -1
                parameter.grad.add_(parameter * own.reshape(shape), alpha=self._penalty)


group_sparse_learning = SCHEDULES.add(
    "group-sparse-learning",
    Schedule(
        "group-sparse-learning",
        f"train with {_PENALTY:g} x the squares of coupled groups, the weakest 16-fold, prune, fine-tune",
        once,
        during=partial(GroupSparseLearning, penalty=_PENALTY),
        train_after=True,
        decided_last=True,
        parameters={"penalty": _PENALTY, "growth": _GROWTH},
    ),
)


@pruning_method(
    "group_sparse_learning", structure=channels, schedule=group_sparse_learning, reference="fang2023depgraph"
)
@pruning_method("group_norm", kind="magnitude", structure=channels, reference="fang2023depgraph")
@decides("structure")
def group_norm(ctx: PruneContext) -> UnitScores:
    """Mean square over all parameters that leave with a channel, over the mean of these in its group.

    Filters, batch norms, biases and the inputs of what reads them, where channel scores see filters alone.
    """
    parameters: dict[str, Tensor] = dict(ctx.module.named_parameters())
    scores = {}
    for group, _ in prunable_groups(ctx, couple(ctx.module, ctx.example)):
        sums, counts = group_squares(group, parameters)
        means = sums / counts.clamp(min=1)
        scores[group.layer] = (means / means.mean().clamp(min=1e-30)).float()
    return UnitScores(scores)
