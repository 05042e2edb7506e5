"""Schedules that prune more and more while they train: cubic, straight-through, soft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.schedules.hook import FinishingHook, PruningHook, Setting, often
from shrinkbench.spec.amount import Compression, ratio_of


def cubic_density(progress: float, final: float) -> float:
    """Density at ``progress`` in [0, 1] on the way from 1 to ``final``: sparsity rises as 1 - (1 - t)^3.

    s_t = s_f + (s_0 - s_f) (1 - t)^3 with s_0 = 0 (Zhu and Gupta 2017, equation 1).

    >>> [round(cubic_density(t, 0.1), 3) for t in (0, 0.25, 0.5, 1)]
    [1.0, 0.48, 0.213, 0.1]
    """
    return final + (1 - final) * (1 - min(progress, 1.0)) ** 3


def cubic_course(constants: Mapping[str, float], target: float, progress: float) -> float:
    """The compression at ``progress`` of a training, at the share ``until`` of which ``target`` is reached.

    >>> cubic_course({"until": 0.5}, 4, 0), cubic_course({"until": 0.5}, 4, 0.5)
    (1.0, 4.0)
    """
    return 1 / cubic_density(progress / constants["until"], 1 / target)


class Gradual(FinishingHook):
    """Prune every few steps over the first half of training, ever more slowly (Zhu and Gupta 2017).

    Every 100 steps, or oftener where the half has fewer than 2,000 steps. Masks are nested.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {"until": 0.5, "every": 100, "at_least": 20}

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """Cubically."""
        return cubic_course(cls.CONSTANTS, target, progress)

    @classmethod
    def when(cls) -> str:
        """From the first step on."""
        return f"from the start to {cls.CONSTANTS['until']:.0%} of it, {often(cls.CONSTANTS)}"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._end = max(int(self.CONSTANTS["until"] * setting.steps), 1)
        self._every = max(1, min(int(self.CONSTANTS["every"]), self._end // int(self.CONSTANTS["at_least"])))
        self._target = ratio_of(setting.amount)

    def after_step(self, step: int) -> None:
        """Prune if it is time; uphold."""
        if step <= self._end and (step % self._every == 0 or step == self._end):
            density = cubic_density(step / self._end, 1 / self._target)
            compression = self._target if step == self._end else 1 / density
            self.adopt(self.masks_at(compression, step))
            self._done = step == self._end
        super().after_step(step)

    def masks_at(self, compression: float, step: int) -> Masks:
        """Masks for ``compression`` within the present ones."""
        return self.setting.decide(Compression(ratio=compression), masks=self.masks, iteration=step)


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
        return self.setting.decide(Compression(ratio=compression), scores=self._totals, iteration=step)

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
        parameters = self.setting.parameters
        self._dense = {name: dense.to(parameters[name].dtype) for name, dense in self._dense.items()}


class Soft(PruningHook):
    """After every epoch zero the lowest, and let them train on and come back (He et al. 2018).

    The masks after the last epoch are the outcome.
    """

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """From the end of the first of ten epochs on; what is zeroed trains on in between."""
        return target if progress >= 0.1 else 1.0

    @classmethod
    def when(cls) -> str:
        """After epochs."""
        return "after every epoch of it, each time to the target; what is zeroed trains on"

    def after_step(self, step: int) -> None:
        """Nothing: zeroed weights may grow again."""

    def after_epoch(self, epoch: int) -> None:
        """Decide anew over all weights, and zero."""
        self.masks = self.setting.decide(self.setting.amount, iteration=epoch)
        self.masks.apply(self.setting.module)
