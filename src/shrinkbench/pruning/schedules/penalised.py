"""Schedules that train with a penalty and prune to the target after the last epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shrinkbench.pruning.schedules.hook import FinishingHook, Setting


class Penalised(FinishingHook):
    """Train with a penalty, whose subgradient a subclass adds, and decide masks once training is over."""

    def __init__(self, setting: Setting, *, penalty: float) -> None:
        super().__init__(setting)
        self._penalty = penalty

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """Nothing goes before the training is over."""
        return target if progress >= 1 else 1.0

    @classmethod
    def when(cls) -> str:
        """At the end."""
        return "once, when it is over"

    def add_penalty(self) -> None:
        """Add the penalty's subgradient to the gradients."""
        raise NotImplementedError

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Add the penalty, until the units are gone."""
        if not self._done:
            self.add_penalty()

    def after_epoch(self, epoch: int) -> None:
        """After the last epoch: prune."""
        if epoch == self.setting.epochs:
            learned = self.finish()
            self.adopt(self.setting.decide(self.setting.amount, learned=learned, iteration=epoch))
            self._done = True

    def finish(self) -> Mapping[str, Tensor] | None:
        """Training with the penalty is over; what it has learned beside the weights, if anything."""
        return None
