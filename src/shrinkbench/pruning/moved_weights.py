"""Whether weights have been moved between the steps of an optimizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError


class MovedWeights:
    """Remembers what the weights add up to, and refuses other ones where a method keeps its own beneath.

    What wraps an optimizer (Lookahead, an average of weights) moves them after its step, and the method would
    put back what lies beneath.
    """

    def __init__(self, module: nn.Module, method: str) -> None:
        self._module, self._method = module, method
        self._known: list[Tensor] = []

    def note(self, *, beneath: bool) -> None:
        """These are the weights; others count where some lie ``beneath`` them."""
        self._known = self._sums() if beneath else []

    def require_none(self) -> None:
        """Raise ``ShrinkbenchError`` where weights are others than were noted; casts and moves are none."""
        if not self._known:
            return
        pairs = [(a, b) for a, b in zip(self._known, self._sums(), strict=True) if a.dtype == b.dtype]
        if any(not torch.equal(a.nan_to_num(), b.to(a.device).nan_to_num()) for a, b in pairs):
            raise ShrinkbenchError(
                "weights were moved after the optimizer's step (by what wraps it, as Lookahead, or by hand), "
                f"and '{self._method}' keeps others beneath them, so that this would be lost; leave them to "
                "the optimizer, or choose another method"
            )

    @torch.no_grad()
    def _sums(self) -> list[Tensor]:
        return [p.detach().sum() for p in self._module.parameters() if p.requires_grad]
