"""The mean of the weights of several epochs (stochastic weight averaging, Izmailov et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.seeds import stream
from shrinkbench.spec import Recipe
from shrinkbench.tasks import Batches, Task
from shrinkbench.training.hook import Hook


class Averager(Hook):
    """Adds up the trained weights after each of the last epochs; after the last, their mean is in place."""

    def __init__(self, module: nn.Module, *, first: int, last: int) -> None:
        self._module = module
        self._first, self._last = first, last
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    @torch.no_grad()
    def after_epoch(self, epoch: int) -> None:
        """Add the weights; after the last epoch, take their mean."""
        if epoch < self._first:
            return
        weights = {n: p for n, p in self._module.named_parameters() if p.requires_grad}
        for name, weight in weights.items():
            held = self._sums.get(name)
            self._sums[name] = weight.detach().double() + (0 if held is None else held.to(weight.device))
        self._count += 1
        if epoch == self._last:
            for name, weight in weights.items():
                weight.copy_(self._sums[name] / self._count)

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return {"sums": self._sums, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._sums, self._count = dict(state["sums"]), state["count"]


def averager_of(module: nn.Module, recipe: Recipe) -> Averager | None:
    """The hook that ``recipe`` asks for."""
    if recipe.averaging is None:
        return None
    return Averager(module, first=recipe.epochs - recipe.averaging.epochs + 1, last=recipe.epochs)


@torch.no_grad()
def renew_statistics(module: nn.Module, task: Task, batches: Batches, recipe: Recipe, *, seed: int) -> None:
    """Batch-norm statistics of the weights that are there now, the plain mean over one epoch's batches."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    module.train()
    with torch.random.fork_rng():
        torch.manual_seed(stream(seed, "noise", "averaging"))
        for batch in task.training_batches(batches):
            task.loss(module, batch, recipe)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
