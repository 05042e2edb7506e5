"""Penalties on weights while training: a group lasso (Wen et al. 2016), L1 (Collins and Kohli 2014)."""

from __future__ import annotations

from functools import partial

import torch

from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.schedules.penalised import Penalised
from shrinkbench.pruning.schedules.schedule import SCHEDULES, Schedule, once
from shrinkbench.pruning.scores.magnitude import magnitude, square
from shrinkbench.pruning.structures.channels import channels

_PENALTY = 5e-4
_TINY = 1e-12


class GroupLasso(Penalised):
    """Train with ``penalty * (sum of norms of output slices + sum of norms of input slices)`` of every weight.

    The first is equation 2 of the paper for filters, the second for their channels; slices of norm zero get no
    push.
    """

    @torch.no_grad()
    def add_penalty(self) -> None:
        """``penalty * w / norm of its slice``, for both kinds of slices."""
        for parameter in self.setting.parameters.values():
            if parameter.grad is None or parameter.ndim < 2:
                continue
            for kept in (0, 1):
                others = tuple(d for d in range(parameter.ndim) if d != kept)
                norms = parameter.square().sum(others, keepdim=True).sqrt()
                parameter.grad.add_(torch.where(norms > _TINY, parameter / norms, 0), alpha=self._penalty)


class L1(Penalised):
    """Train with ``penalty * sum |w|`` over the prunable weights (Collins and Kohli 2014)."""

    @torch.no_grad()
    def add_penalty(self) -> None:
        """``penalty * sign(w)``."""
        for parameter in self.setting.parameters.values():
            if parameter.grad is not None:
                parameter.grad.add_(parameter.sign(), alpha=self._penalty)


_L1_PENALTY = 1e-4
sparse_weights = SCHEDULES.add(
    "sparse-weights",
    Schedule(
        "sparse-weights",
        f"train with {_L1_PENALTY:g} x the L1 norm of all prunable weights, prune, fine-tune",
        once,
        during=partial(L1, penalty=_L1_PENALTY),
        train_after=True,
        decided_last=True,
        parameters={"penalty": _L1_PENALTY},
    ),
)
pruning_method("l1_regularization", schedule=sparse_weights, reference="collins2014memory")(magnitude)
group_sparse = SCHEDULES.add(
    "group-sparse",
    Schedule(
        "group-sparse",
        f"train with {_PENALTY:g} x the norms of all filters and channels, prune, fine-tune",
        once,
        during=partial(GroupLasso, penalty=_PENALTY),
        train_after=True,
        decided_last=True,
        parameters={"penalty": _PENALTY},
    ),
)
pruning_method("group_lasso", structure=channels, schedule=group_sparse, reference="wen2016learning")(square)
