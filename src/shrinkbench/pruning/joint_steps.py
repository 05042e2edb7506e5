"""The steps of several optimizers that move one network, told as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from shrinkbench.network.calling import WhenCalled
from shrinkbench.pruning.optimizer_steps import OptimizerSteps


class JointSteps:
    """A step begins with the first optimizer that moves, and is over once all have.

    Where one is left out, by a ``GradScaler`` or because it moves less often, the step is over when the network
    is called again. ``before`` is told the first optimizer and says whether it moves, ``ready`` follows once
    gradients are there, and ``after`` once weights have moved.
    """

    def __init__(
        self, *, before: Callable[[Optimizer], bool], ready: Callable[[], None], after: Callable[[], None]
    ) -> None:
        self._begin, self._go_on, self._finish = before, ready, after
        self._count = 0
        self._moved: set[int] = set()
        self._moves = True

    def watch(self, module: nn.Module, optimizers: Sequence[Optimizer]) -> list[RemovableHandle]:
        """Hooks on ``optimizers``, and on ``module`` where there are several."""
        self._count = len(optimizers)
        handles = []
        for each in optimizers:
            after = partial(self._after, id(each))
            handles += OptimizerSteps(before=self._before, ready=self._ready, after=after).watch(each)
        if self._count > 1:
            handles.append(module.register_forward_pre_hook(WhenCalled(self.close)))
        return handles

    def close(self) -> None:
        """A step that has begun is over."""
        if self._moved:
            self._moved.clear()
            self._finish()

    def _before(self, optimizer: Optimizer) -> bool:
        if id(optimizer) in self._moved:
            self.close()
        self._moves = bool(self._moved) or self._begin(optimizer)
        return self._moves

    def _ready(self) -> None:
        if not self._moved:
            self._go_on()

    def _after(self, which: int) -> None:
        if self._moves:
            self._moved.add(which)
        if len(self._moved) == self._count:
            self.close()
