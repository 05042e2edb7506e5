"""Sparse variational dropout (Molchanov et al. 2017): the noise that each weight bears is learned."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import softplus

from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.schedules.beside import NoisyWeights
from shrinkbench.pruning.schedules.schedule import register_penalised
from shrinkbench.pruning.units import Scores

_TINY = 1e-8


def divergence(log_alpha: Tensor) -> Tensor:
    """KL divergence of N(w, alpha w^2) from the log-uniform prior, as approximated by the authors; >= 0.

    ``k1 - k1 sigmoid(k2 + k3 log alpha) + log(1 + 1 / alpha) / 2`` with k = 0.63576, 1.87320, 1.48695.
    """
    found: Tensor = 0.63576 * (1 - torch.sigmoid(1.87320 + 1.48695 * log_alpha)) + 0.5 * softplus(-log_alpha)
    return found


class VariationalDropout(NoisyWeights):
    """``N(w, sigma^2)`` for every weight, ``log sigma^2`` from -10 on; the divergence is added to the loss."""

    def log_alpha(self, name: str) -> Tensor:
        """``log(sigma^2 / w^2)``."""
        return self.of("noise", name) - (self.setting.parameters[name].float().square() + _TINY).log()

    def penalty(self) -> Tensor:
        """The divergence of all weights, over the number of training examples."""
        sums = [divergence(self.log_alpha(name)).sum() for name in self.setting.names]
        return torch.stack(sums).sum() / self.examples

    def learned(self) -> Mapping[str, Tensor]:
        """``-log alpha`` of every weight."""
        return {name: -self.log_alpha(name) for name in self.setting.names}


variational_dropout = register_penalised(
    "variational-dropout",
    "train with noise on every weight, whose variance is learned; prune, fine-tune",
    VariationalDropout,
)


@pruning_method(
    "sparse_variational_dropout", schedule=variational_dropout, reference="molchanov2017variational"
)
def least_noise(ctx: PruneContext) -> Scores:
    """``log(w^2 / sigma^2)`` with the variance that the training has learned; one for all weights before it."""
    if ctx.learned is not None:
        return ctx.learned
    return {name: (w.square() + _TINY).log() for name, w in ctx.weights.items()}
