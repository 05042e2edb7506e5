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
        self._known: dict[str, Tensor] = {}
        self._names: set[str] | None = None

    def note(self, *, beneath: bool) -> None:
        """These are the weights; others count where some lie ``beneath`` them."""
        self._known = self._sums() if beneath else {}
        if self._names is None:
            self._names = self._named()

    def require_none(self) -> None:
        """Raise ``ShrinkbenchError`` where weights are others than were noted; casts and moves are none."""
        self._require_same_parameters()
        now = self._sums() if self._known else {}
        pairs = [(a, now[n].to(a.device)) for n, a in self._known.items() if n in now]
        if any(a.dtype == b.dtype and not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs):
            raise ShrinkbenchError(
                "weights were moved after the optimizer's step (by what wraps it, as Lookahead, or by hand), "
                f"and '{self._method}' keeps others beneath them, so that this would be lost; leave them to "
                "the optimizer, or choose another method"
            )

    def _named(self) -> set[str]:
        return {name for name, _ in self._module.named_parameters(remove_duplicate=False)}

    def _require_same_parameters(self) -> None:
        """Refuse a network that has grown or lost layers, of which neither masks nor targets know."""
        now = self._named()
        known = now if self._names is None else self._names
        if now != known:
            name = min(now ^ known)
            raise ShrinkbenchError(
                f"the network has {'got' if name in now else 'lost'} '{name}' since the Pruner of "
                f"'{self._method}' was attached, whose masks and target are of the network of then; change "
                "layers first, and make a new Pruner"
            )

    @torch.no_grad()
    def _sums(self) -> dict[str, Tensor]:
        """Of each parameter that trains, in one order of its numbers, whatever its layout in memory."""
        parameters = self._module.named_parameters()
        return {n: p.detach().contiguous().sum() for n, p in parameters if p.requires_grad}
