"""Pruning while training: gradual, dynamic sparse, soft, and straight-through.

Each schedule here makes a hook that the training loop calls. The masks that a hook holds at the end (or those
of the selected epoch, since they are part of its state) are the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.schedules.gradual import Gradual, Soft, StraightThrough
from shrinkbench.pruning.schedules.hook import PruningHook, Setting
from shrinkbench.pruning.schedules.schedule import SCHEDULES, Schedule, once
from shrinkbench.pruning.top_k import require_numbers


class Dynamic(PruningHook):
    """Sparse from the start: of each layer the smallest weights go, and as many grow elsewhere.

    The first masks are random with the method's layerwise proportions. Weights that grow start at zero, with
    the optimizer's state of them reset.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._optimizer: Optimizer | None = None
        generator = setting.generator("first masks")
        noise = {
            n: torch.rand(p.shape, generator=generator).to(p.device) for n, p in setting.parameters.items()
        }
        self.adopt(setting.decide(setting.amount, scores=noise))

    def start(self, optimizer: Optimizer) -> None:
        """Keep the optimizer, whose state is reset where weights grow."""
        self._optimizer = optimizer

    def fraction(self, step: int) -> float:
        """Fraction of each layer's kept weights that are exchanged at ``step``."""
        raise NotImplementedError

    def growth(self, name: str, parameter: nn.Parameter, step: int) -> Tensor:
        """The highest of these grow among the weights that are masked."""
        raise NotImplementedError

    @torch.no_grad()
    def exchange(self, step: int) -> None:
        """Drop and grow in every layer."""
        masks = {}
        for name, parameter in self.setting.parameters.items():
            mask = self.masks[name].to(parameter.device)
            kept = int(mask.sum())
            count = min(int(self.fraction(step) * kept), mask.numel() - kept)
            masks[name] = self._exchange(name, parameter, mask, count, step)
            self._reset_state(parameter, masks[name] & ~mask)
        self.adopt(Masks(masks))

    def _exchange(self, name: str, parameter: nn.Parameter, mask: Tensor, count: int, step: int) -> Tensor:
        if count == 0:
            return mask
        magnitude = parameter.detach().abs().masked_fill(~mask, math.inf).reshape(-1)
        require_numbers(name, magnitude)
        new = mask.clone().reshape(-1)
        new[magnitude.argsort(stable=True)[:count]] = False
        # What has just been dropped may grow again at once, as in both papers.
        grow = self.growth(name, parameter, step).reshape(-1).masked_fill(new, -math.inf)
        require_numbers(name, grow)
        new[grow.argsort(descending=True, stable=True)[:count]] = True
        return new.reshape(mask.shape)

    def _reset_state(self, parameter: nn.Parameter, grown: Tensor) -> None:
        if self._optimizer is not None:
            for value in self._optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.masked_fill_(grown, 0)


class SparseEvolution(Dynamic):
    """After every epoch but the last, exchange 30 % for random ones (SET, Mocanu et al. 2018).

    The paper removes of positive and negative weights apart and draws values for new ones; here the smallest
    go, whatever their sign, and new ones are zero.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {"fraction": 0.3}  # zeta in the paper

    def fraction(self, step: int) -> float:
        """The same throughout."""
        return self.CONSTANTS["fraction"]

    def growth(self, name: str, parameter: nn.Parameter, step: int) -> Tensor:
        """Chance."""
        generator = self.setting.generator("growth", name, step)
        return torch.rand(parameter.shape, generator=generator).to(parameter.device)

    def after_epoch(self, epoch: int) -> None:
        """Exchange."""
        if epoch < self.setting.epochs:
            self.exchange(epoch)


class Rigged(Dynamic):
    """Exchange for those with the largest gradient, until three quarters of training (RigL, Evci et al. 2020).

    Every 100 steps, or oftener where that is fewer than 20 times; the fraction falls from 30 % by half a
    cosine. A step that exchanges does not move weights.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {"fraction": 0.3, "until": 0.75, "every": 100, "at_least": 20}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._end = max(int(self.CONSTANTS["until"] * setting.steps), 1)
        self._every = max(1, min(int(self.CONSTANTS["every"]), self._end // int(self.CONSTANTS["at_least"])))

    def fraction(self, step: int) -> float:
        """``0.3 / 2 (1 + cos(pi t / t_end))``."""
        return self.CONSTANTS["fraction"] / 2 * (1 + math.cos(math.pi * step / self._end))

    def growth(self, name: str, parameter: nn.Parameter, step: int) -> Tensor:
        """Magnitude of the gradient of weights that are masked."""
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.abs()

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Exchange in place of the step, or keep gradients of masked weights out of the optimizer."""
        parameters = self.setting.parameters
        if step % self._every == 0 and step < self._end:
            self.exchange(step)
            for parameter in self.setting.module.parameters():
                parameter.grad = None
            return
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                parameter.grad *= self.masks[name]


def _register(
    name: str,
    description: str,
    make: type[PruningHook],
    *,
    from_scratch: bool = False,
    rounds: int | None = 1,
) -> Schedule:
    start: Literal["trained", "initialisation"] = "initialisation" if from_scratch else "trained"
    schedule = Schedule(name, description, once, start=start, during=make, rounds=rounds)
    schedule = replace(schedule, exchanges=issubclass(make, Dynamic))
    return SCHEDULES.add(name, schedule)


gradual = _register(
    "gradual-cubic", "prune step by step over the first half of training, cubically", Gradual, rounds=None
)
straight_through = _register(
    "gradual-straight-through",
    "gradual-cubic by scores that add up over all steps; pruned weights may come back",
    StraightThrough,
    rounds=None,
)
soft = _register("soft", "zero the lowest after every epoch of training; they may come back", Soft)
soft_from_scratch = _register(
    "soft-from-scratch", "as soft, in a training from the initial weights", Soft, from_scratch=True
)
sparse_evolution = _register(
    "sparse-evolution",
    "train sparse from the start; after every epoch exchange 30 % of each layer for random weights",
    SparseEvolution,
    from_scratch=True,
)
rigged = _register(
    "rigged-lottery",
    "train sparse from the start; exchange small weights for those with large gradients",
    Rigged,
    from_scratch=True,
)
