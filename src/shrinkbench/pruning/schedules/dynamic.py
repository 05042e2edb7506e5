"""Pruning while training: gradual, dynamic sparse, soft, and straight-through.

Each schedule here makes a hook that the training loop calls. The masks that a hook holds at the end (or those
of the selected epoch, since they are part of its state) are the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.schedules.gradual import Gradual, Soft, StraightThrough, cubic_course, cubic_density
from shrinkbench.pruning.schedules.hook import FinishingHook, PruningHook, Setting, often
from shrinkbench.pruning.schedules.schedule import register_during
from shrinkbench.pruning.top_k import require_numbers
from shrinkbench.spec.amount import Amount, Compression, ratio_of


class Dynamic(PruningHook):
    """Sparse from the start: of each layer the smallest weights go, and as many grow elsewhere.

    The first masks are random with the method's layerwise proportions. Weights that grow start at zero, with
    the optimizer's state of them reset.
    """

    EXCHANGES: ClassVar[bool] = True

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """The same throughout: as many grow as go."""
        return target

    @classmethod
    def when(cls) -> str:
        """Exchanges after epochs."""
        return "at the target from the start, exchanges after every epoch but the last"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._optimizers: tuple[Optimizer, ...] = ()
        generator = setting.generator("first masks")
        noise = {
            n: torch.rand(p.shape, generator=generator).to(p.device) for n, p in setting.parameters.items()
        }
        self.adopt(setting.decide(self.first_amount(), scores=noise))

    def first_amount(self) -> Amount:
        """What the first masks keep."""
        return self.setting.amount

    def start(self, optimizer: Optimizer, *others: Optimizer) -> None:
        """Keep the optimizers, whose state is reset where weights grow."""
        self._optimizers = (optimizer, *others)

    def fraction(self, step: int) -> float:
        """Fraction of each layer's kept weights that are exchanged at ``step``."""
        raise NotImplementedError

    def growth(self, name: str, parameter: nn.Parameter, step: int) -> Tensor:
        """The highest of these grow among the weights that are masked."""
        raise NotImplementedError

    def worth(self, name: str, parameter: nn.Parameter) -> Tensor:
        """The lowest of these are dropped among the weights that are kept."""
        return parameter.detach().abs()

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
        worth = self.worth(name, parameter).masked_fill(~mask, math.inf).reshape(-1)
        require_numbers(name, worth)
        new = mask.clone().reshape(-1)
        new[worth.argsort(stable=True)[:count]] = False
        # What has just been dropped may grow again at once, as in both papers.
        grow = self.growth(name, parameter, step).reshape(-1).masked_fill(new, -math.inf)
        require_numbers(name, grow)
        new[grow.argsort(descending=True, stable=True)[:count]] = True
        return new.reshape(mask.shape)

    def _reset_state(self, parameter: nn.Parameter, grown: Tensor) -> None:
        for optimizer in self._optimizers:
            for value in optimizer.state.get(parameter, {}).values():
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


class ElasticMutation(SparseEvolution):
    """As SET, but what is dropped is lowest in ``|w| + 0.01 |dL/dw|``, and less of it over time (MEST).

    Yuan et al. 2021: the fraction falls from 30 % to nothing by a cosine; the gradient is that of the epoch's
    last step. Their soft memory bound, which grows before it drops, is not part of it.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {"fraction": 0.3, "gradient": 0.01}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._gradients: dict[str, Tensor] = {}

    def fraction(self, step: int) -> float:
        """``0.3 / 2 (1 + cos(pi t / T))`` with t in epochs."""
        return self.CONSTANTS["fraction"] / 2 * (1 + math.cos(math.pi * step / self.setting.epochs))

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Keep the gradients of an epoch's last step: loops differ in when they let go of them."""
        if step % self.setting.steps_per_epoch == 0:
            parameters = self.setting.parameters.items()
            self._gradients = {n: p.grad.abs() for n, p in parameters if p.grad is not None}

    def worth(self, name: str, parameter: nn.Parameter) -> Tensor:
        """Magnitude, and a little of the gradient's."""
        return parameter.detach().abs() + self.CONSTANTS["gradient"] * self._gradients.get(name, 0)


class Rigged(Dynamic):
    """Exchange for those with the largest gradient, until three quarters of training (RigL, Evci et al. 2020).

    Every 100 steps, or oftener where that is fewer than 20 times; the fraction falls from 30 % by half a
    cosine. A step that exchanges does not move weights.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {"fraction": 0.3, "until": 0.75, "every": 100, "at_least": 20}

    @classmethod
    def when(cls) -> str:
        """Exchanges after steps."""
        until = cls.CONSTANTS["until"]
        return f"at the target from the start, exchanges to {until:.0%} of it, {often(cls.CONSTANTS)}"

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


class InTime(Rigged):
    """As RigL, but seldom and to the end: what has grown has time to prove itself (ITOP, Liu et al. 2021).

    Half of each layer's weights, less and less by half a cosine over the whole training, every 4,000 steps, or
    oftener where that is fewer than 10 times; the last exchange is before the last step.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {"fraction": 0.5, "until": 1.0, "every": 4000, "at_least": 10}


class InTimeByChance(InTime):
    """RigL-ITOP with random growth, every 1,500 steps (SET-ITOP).

    Weights that grow start at zero, and a step that exchanges does not move weights, as in RigL.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {**InTime.CONSTANTS, "every": 1500}

    def growth(self, name: str, parameter: nn.Parameter, step: int) -> Tensor:
        """Chance."""
        generator = self.setting.generator("growth", name, step)
        return torch.rand(parameter.shape, generator=generator).to(parameter.device)


class Regenerated(FinishingHook, Rigged):
    """Gradual magnitude pruning from half density, half of what stays exchanged for large gradients each time.

    GraNet, Liu et al. 2021: sparsity rises cubically from 50 % (or the target, if that is less) over three
    quarters of training; each time, once the lowest are gone, a fraction that falls from 50 % by half a cosine
    gives way to the weights of the largest gradients, layer by layer.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {**Rigged.CONSTANTS, "fraction": 0.5, "first": 2.0}

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """Cubically from the first masks on."""
        first = min(cls.CONSTANTS["first"], target)
        return first * cubic_course(cls.CONSTANTS, target / first, progress)

    @classmethod
    def when(cls) -> str:
        """From half density on."""
        first, until = cls.CONSTANTS["first"], cls.CONSTANTS["until"]
        start = f"from {first:g}x at the start, or the target if that is less"
        return f"{start}, to {until:.0%} of it, {often(cls.CONSTANTS)}"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._done = self._first == ratio_of(setting.amount)

    @property
    def _first(self) -> float:
        """The compression of the first masks."""
        return min(self.CONSTANTS["first"], ratio_of(self.setting.amount))

    def first_amount(self) -> Amount:
        """Half of the weights, or the target."""
        target = self._first == ratio_of(self.setting.amount)
        return self.setting.amount if target else Compression(ratio=self._first)

    def _amount_at(self, step: int) -> Amount:
        target = ratio_of(self.setting.amount)
        if step >= self._end or self._first == target:
            return self.setting.amount
        rest = cubic_density(step / self._end, self._first / target)
        return Compression(ratio=self._first / rest)

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Prune and exchange in place of the step; the last time, prune alone."""
        due = step == self._end or (step % self._every == 0 and step < self._end)
        if due:
            self.adopt(self.setting.decide(self._amount_at(step), masks=self.masks, iteration=step))
            self._done = self._done or step == self._end
        if step == self._end:
            for parameter in self.setting.module.parameters():
                parameter.grad = None
            return
        super().after_backward(step)


gradual = register_during(
    "gradual-cubic", "prune step by step over the first half of training, cubically", Gradual, rounds=None
)
straight_through = register_during(
    "gradual-straight-through",
    "gradual-cubic by scores that add up over all steps; pruned weights may come back",
    StraightThrough,
    rounds=None,
)
soft = register_during("soft", "zero the lowest after every epoch of training; they may come back", Soft)
soft_from_scratch = register_during(
    "soft-from-scratch", "as soft, in a training from the initial weights", Soft, from_scratch=True
)
sparse_evolution = register_during(
    "sparse-evolution",
    "train sparse from the start; after every epoch exchange 30 % of each layer for random weights",
    SparseEvolution,
    from_scratch=True,
)
rigged = register_during(
    "rigged-lottery",
    "train sparse from the start; exchange small weights for those with large gradients",
    Rigged,
    from_scratch=True,
)
elastic_mutation = register_during(
    "elastic-mutation",
    "as sparse-evolution, dropping what is low in weight and gradient, less and less",
    ElasticMutation,
    from_scratch=True,
)
regenerated = register_during(
    "gradual-regeneration",
    "prune gradually from half density; each time exchange small weights for those with large gradients",
    Regenerated,
    from_scratch=True,
    rounds=None,
)
in_time = register_during(
    "in-time-gradient",
    "as rigged-lottery, half of each layer at first, seldom, and to the end of training",
    InTime,
    from_scratch=True,
)
in_time_by_chance = register_during(
    "in-time-random",
    "as in-time-gradient, with random growth",
    InTimeByChance,
    from_scratch=True,
)
