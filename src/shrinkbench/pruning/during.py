"""Pruning while training: gradual, dynamic sparse, soft, and straight-through.

Each schedule here makes a hook that the training loop calls. The masks that a hook holds at the end (or those
of the selected epoch, since they are part of its state) are the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from shrinkbench.hooks import Hook
from shrinkbench.pruning.masks import Masks, Upholder
from shrinkbench.pruning.scheduling import SCHEDULES, Schedule, once
from shrinkbench.seeds import stream


class Decide(Protocol):
    """How a hook gets masks."""

    def __call__(
        self,
        compression: float,
        *,
        masks: Masks | None = None,
        scores: Mapping[str, Tensor] | None = None,
        iteration: int = 0,
    ) -> Masks:
        """Masks by the method's structure and allocation, from its score or the given ``scores``."""
        ...


@dataclass(frozen=True)
class Setting:
    """What a hook works with: the network, the target, how long training lasts, and how to decide masks.

    ``score`` turns (weights, gradients) of one training step into scores; ``names`` are the prunable weights.
    """

    module: nn.Module
    names: tuple[str, ...]
    compression: float
    epochs: int
    steps_per_epoch: int
    seed: int
    decide: Decide
    score: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]
    input_shape: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The prunable weights of the network."""
        found = dict(self.module.named_parameters())
        return {name: found[name] for name in self.names}

    def generator(self, *names: str | int) -> torch.Generator:
        """A stream of its own for each purpose and step: nothing of it needs to be stored."""
        return torch.Generator().manual_seed(stream(self.seed, *names))


class PruningHook(Hook):
    """A hook that holds masks and, unless a subclass says otherwise, keeps pruned weights at zero."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.masks = Masks({n: torch.ones_like(p, dtype=torch.bool) for n, p in setting.parameters.items()})
        self._uphold = Upholder(setting.module, self.masks)

    def adopt(self, masks: Masks) -> None:
        """Apply ``masks`` now and uphold them from now on."""
        self.masks = masks
        masks.apply(self.setting.module)
        self._uphold = Upholder(self.setting.module, masks)

    def after_step(self, step: int) -> None:
        """Zero what the optimizer has moved."""
        self._uphold()

    def state_dict(self) -> dict[str, Any]:
        """The masks."""
        return {"masks": dict(self.masks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the masks over; the weights are those of the checkpoint already."""
        self.masks = Masks(self.placed(state["masks"]))
        self._uphold = Upholder(self.setting.module, self.masks)

    def placed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``tensors`` by parameter name, each on the device of its parameter."""
        parameters = dict(self.setting.module.named_parameters())
        return {name: tensor.to(parameters[name].device) for name, tensor in tensors.items()}


def cubic_density(progress: float, final: float) -> float:
    """Density at ``progress`` in [0, 1] on the way from 1 to ``final``: sparsity rises as 1 - (1 - t)^3.

    s_t = s_f + (s_0 - s_f) (1 - t)^3 with s_0 = 0 (Zhu and Gupta 2017, equation 1).

    >>> [round(cubic_density(t, 0.1), 3) for t in (0, 0.25, 0.5, 1)]
    [1.0, 0.48, 0.213, 0.1]
    """
    return final + (1 - final) * (1 - min(progress, 1.0)) ** 3


class Gradual(PruningHook):
    """Prune every few steps over the first half of training, ever more slowly (Zhu and Gupta 2017).

    Every 100 steps, or oftener where the half has fewer than 2,000 steps. Masks are nested.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._end = max(setting.steps // 2, 1)
        self._every = max(1, min(100, self._end // 20))
        self._done = False

    @property
    def settled(self) -> bool:
        """Whether the target has been reached."""
        return self._done

    def after_step(self, step: int) -> None:
        """Prune if it is time; uphold."""
        if step <= self._end and (step % self._every == 0 or step == self._end):
            density = cubic_density(step / self._end, 1 / self.setting.compression)
            compression = self.setting.compression if step == self._end else 1 / density
            self.adopt(self.masks_at(compression, step))
            self._done = step == self._end
        super().after_step(step)

    def masks_at(self, compression: float, step: int) -> Masks:
        """Masks for ``compression`` within the present ones."""
        return self.setting.decide(compression, masks=self.masks, iteration=step)

    def state_dict(self) -> dict[str, Any]:
        """Masks, and whether they are final."""
        return {**super().state_dict(), "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._done = state["done"]


class StraightThrough(Gradual):
    """Weights are trained under their mask but keep their values beneath it; scores add up over all steps.

    In each step the forward pass uses masked weights, the score of every weight (masked ones too) is added to
    its total, and only weights that the mask keeps are moved. Pruned weights can come back, with the value
    that they had (Sanh et al. 2020).
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._dense: dict[str, Tensor] = {}
        self._totals = {n: torch.zeros_like(p, dtype=torch.float32) for n, p in setting.parameters.items()}

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        """Put the masked weights in place; what is beneath is set aside."""
        parameters = self.setting.parameters
        if not self._dense:
            self._dense = {name: p.detach().clone() for name, p in parameters.items()}
        for name, parameter in parameters.items():
            parameter.copy_(self._dense[name] * self.masks[name])

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Add the scores up; let gradients through to kept weights only."""
        parameters = self.setting.parameters
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters.items()}
        for name, score in self.setting.score(self._dense, gradients).items():
            self._totals[name] += score
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                parameter.grad *= self.masks[name]

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Keep what the optimizer did to kept weights, and decide anew if it is time."""
        for name, parameter in self.setting.parameters.items():
            torch.where(self.masks[name], parameter, self._dense[name], out=self._dense[name])
        super().after_step(step)

    def masks_at(self, compression: float, step: int) -> Masks:
        """Masks for ``compression`` by the totals; earlier ones do not bind."""
        return self.setting.decide(compression, scores=self._totals, iteration=step)

    @torch.no_grad()
    def adopt(self, masks: Masks) -> None:
        """Apply ``masks`` to the weights beneath."""
        for name, parameter in self.setting.parameters.items():
            parameter.copy_(self._dense[name])
        super().adopt(masks)

    def state_dict(self) -> dict[str, Any]:
        """Masks, totals, and the weights beneath the masks."""
        return {**super().state_dict(), "totals": self._totals, "dense": self._dense}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._totals, self._dense = self.placed(state["totals"]), self.placed(state["dense"])


class Soft(PruningHook):
    """After every epoch zero the lowest, and let them train on and come back (He et al. 2018).

    The masks after the last epoch are the outcome.
    """

    def after_step(self, step: int) -> None:
        """Nothing: zeroed weights may grow again."""

    def after_epoch(self, epoch: int) -> None:
        """Decide anew over all weights, and zero."""
        self.masks = self.setting.decide(self.setting.compression, iteration=epoch)
        self.masks.apply(self.setting.module)


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
        self.adopt(setting.decide(setting.compression, scores=noise))

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
            masks[name] = self._exchanged(name, parameter, mask, count, step)
            self._reset_state(parameter, masks[name] & ~mask)
        self.adopt(Masks(masks))

    def _exchanged(self, name: str, parameter: nn.Parameter, mask: Tensor, count: int, step: int) -> Tensor:
        if count == 0:
            return mask
        magnitude = parameter.detach().abs().masked_fill(~mask, math.inf).reshape(-1)
        new = mask.clone().reshape(-1)
        new[magnitude.argsort(stable=True)[:count]] = False
        # What has just been dropped may grow again at once, as in both papers.
        grow = self.growth(name, parameter, step).reshape(-1).masked_fill(new, -math.inf)
        new[grow.argsort(descending=True, stable=True)[:count]] = True
        return new.reshape(mask.shape)

    def _reset_state(self, parameter: nn.Parameter, grown: Tensor) -> None:
        if self._optimizer is not None:
            for value in self._optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.masked_fill_(grown, 0)


class SparseEvolution(Dynamic):
    """After every epoch but the last, exchange 30 % for random ones (SET, Mocanu et al. 2018)."""

    def fraction(self, step: int) -> float:
        """The same throughout (zeta in the paper)."""
        return 0.3

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

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._end = max(int(0.75 * setting.steps), 1)
        self._every = max(1, min(100, self._end // 20))

    def fraction(self, step: int) -> float:
        """``0.3 / 2 (1 + cos(pi t / t_end))``."""
        return 0.15 * (1 + math.cos(math.pi * step / self._end))

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
    name: str, description: str, make: Callable[[Setting], PruningHook], *, from_scratch: bool = False
) -> Schedule:
    start: Literal["trained", "initialisation"] = "initialisation" if from_scratch else "trained"
    return SCHEDULES.add(name, Schedule(name, description, once, start=start, during=make))


gradual = _register("gradual-cubic", "prune step by step over the first half of training, cubically", Gradual)
straight_through = _register(
    "gradual-straight-through",
    "gradual-cubic by scores that add up over all steps; pruned weights may come back",
    StraightThrough,
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
