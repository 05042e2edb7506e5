"""The steps of an optimizer, each told once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import LBFGS, Optimizer
from torch.utils.hooks import RemovableHandle

from shrinkbench.errors import ShrinkbenchError


class OptimizerSteps:
    """Calls ``before`` as a step begins, ``ready`` once its gradients are there, and ``after`` at its end.

    ``before`` says whether the step takes place. A class whose ``step`` calls ``super().step()`` has its hooks
    run by both, and a function that makes gradients handed on: what happens within a step is part of it.
    """

    def __init__(
        self, *, before: Callable[[Optimizer], bool], ready: Callable[[], None], after: Callable[[], None]
    ) -> None:
        self._before, self._ready, self._after = before, ready, after
        self._depth = 0

    def watch(self, optimizer: Optimizer) -> list[RemovableHandle]:
        """Hooks on ``optimizer``."""
        return [optimizer.register_step_pre_hook(self._begin), optimizer.register_step_post_hook(self._end)]

    def _begin(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Gradients are there, unless the optimizer is given a function that makes them."""
        self._depth += 1
        if self._depth > 1 or not self._before(optimizer):
            return None
        closure = kwargs.get("closure") or next((a for a in args if callable(a) and a is not optimizer), None)
        if closure is None:
            self._ready()
            return None
        calls = 0

        def followed() -> Any:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise _counted_by_none(optimizer)
            loss = closure()
            self._ready()
            return loss

        return tuple(a for a in args if a is not closure), {**kwargs, "closure": followed}

    def _end(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._after()


def require_counted(*optimizers: Optimizer) -> None:
    """Refuse those of which it is known that one step evaluates the loss many times."""
    for optimizer in optimizers:
        if isinstance(optimizer, LBFGS):
            raise _counted_by_none(optimizer)


def _counted_by_none(optimizer: Optimizer) -> ShrinkbenchError:
    return ShrinkbenchError(
        f"{type(optimizer).__name__} evaluates the loss many times in a step, which no schedule counts; use "
        "another optimizer"
    )
