"""The factor of a GradScaler's loss, in gradients that reach an optimizer otherwise than those of weights."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.calling import WhenCalled
from shrinkbench.training.hook import Hook


@runtime_checkable
class Scaler(Protocol):
    """What a ``torch.amp.GradScaler`` is asked."""

    def get_scale(self) -> float:
        """The factor of the loss of now."""
        ...


class LossScale:
    """Takes the factor out of what ``hook`` trains beside the weights, which no scaler sees.

    Where several optimizers move the weights, gradients of all are divided before the first of them moves.
    Without a ``scaler``, torch's is seen where it calls the optimizer; any other factor shows where gradients
    are divided between backward pass and step: those of the smallest weight that trains are compared.
    """

    def __init__(self, module: nn.Module, hook: Hook, scaler: object, *, method: str) -> None:
        if scaler is not None and not isinstance(scaler, Scaler):
            raise ShrinkbenchError(
                f"a {type(scaler).__name__} is no GradScaler; give the one that scales the loss"
            )
        self._module, self._hook, self._scaler, self._method = module, hook, scaler, method
        self._factor = 0.0 if scaler is None else scaler.get_scale()
        self._watched = min((p for p in module.parameters() if p.requires_grad), key=Tensor.numel, default=None)
        self._noted: Tensor | None = None

    def watch(self) -> list[RemovableHandle]:
        """Look for steps that were left out; without a scaler, note what the backward pass leaves."""
        if not self._hook.beside or self._watched is None:
            return []
        handles = [self._module.register_forward_pre_hook(WhenCalled(self._drop_discarded))]
        if self._scaler is not None:
            seen = self._module.register_forward_pre_hook(lambda *_: self._look(self._hook.leave_out))
            return [*handles, seen]
        return [*handles, self._watched.register_post_accumulate_grad_hook(self._note)]

    def _drop_discarded(self) -> None:
        """Leave out what gates were given by a backward pass whose other gradients are gone without a step."""
        if any(numbers.grad is not None for numbers in self._hook.beside):
            given = (p.grad for p in self._module.parameters() if p.grad is not None)
            if not any(bool(gradient.any()) for gradient in given):
                self._hook.leave_out()

    def _look(self, leave_out: Callable[[], None]) -> None:
        """See the factor of now, which falls where a step was left out."""
        before, self._factor = self._factor, 1.0 if self._scaler is None else self._scaler.get_scale()
        if self._factor < before:
            leave_out()

    def _note(self, parameter: Tensor) -> None:
        self._noted = None if parameter.grad is None else parameter.grad.detach().clone()

    def take_out(self, optimizer: Optimizer, *others: Optimizer) -> bool:
        """Before a step of ``optimizer``; whether it takes place, which fused ones are told beforehand.

        ``others`` are to move after it.
        """
        given: Any = optimizer
        scale, infinite = getattr(given, "grad_scale", None), getattr(given, "found_inf", None)
        if infinite is not None and bool(infinite):
            self._hook.leave_out()
            return False
        reads = bool(others) and type(self._hook).after_backward is not Hook.after_backward
        if self._scaler is None and (reads or (self._hook.beside and scale is None)) and _is_scaled():
            what = f"what '{self._method}' trains beside the weights" if self._hook.beside else "all weights"
            raise ShrinkbenchError(
                f"a GradScaler scales the loss, and gradients of {what} are not all divided when the first "
                "optimizer moves; give it, attach(optimizer, scaler=scaler)"
            )
        for each in others:
            _divide(each, self._scaler)
        if scale is not None:
            gradients = [p.grad for group in given.param_groups for p in group["params"] if p.grad is not None]
            for gradient in gradients:
                gradient.div_(scale.to(gradient.device))
            given.grad_scale = None
            self._hook.unscale(float(scale))
        elif self._scaler is not None:
            self._look(lambda: self._hook.unscale(math.inf))  # where layers were called without the network
            self._hook.unscale(self._factor)
        else:
            self._require_unscaled()
        return True

    def _require_unscaled(self) -> None:
        before, now = self._noted, None if self._watched is None else self._watched.grad
        self._noted = None
        if before is None or now is None or before.shape != now.shape or not bool((now != 0).any()):
            return
        ratios = (before / now)[now != 0]
        factor = float(ratios[0])
        if bool((ratios == factor).all()) and factor >= 2 and math.frexp(factor)[0] == 0.5:
            raise ShrinkbenchError(
                f"gradients were divided by {factor:g} after the backward pass, and those of what "
                f"'{self._method}' trains beside the weights were not; give the GradScaler, "
                "attach(optimizer, scaler=scaler), or divide the loss instead"
            )


def _is_scaled() -> bool:
    """Whether torch's ``GradScaler`` calls the optimizer that asks."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code is GradScaler.step.__code__:
            return bool(frame.f_locals["self"].is_enabled())
    return False


def _divide(optimizer: Optimizer, scaler: object) -> None:
    """Have ``scaler`` divide gradients of ``optimizer`` now, unless it has done so, or there are none."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if isinstance(scaler, GradScaler) and gradients:
        with contextlib.suppress(RuntimeError):  # it was asked before
            scaler.unscale_(optimizer)
        for gradient in gradients:  # of an optimizer that will be left out
            gradient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
