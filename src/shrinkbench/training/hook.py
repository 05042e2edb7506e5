"""How pruning takes part in training: one small interface between the two."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


class Hook:
    """Takes part in training; every method does nothing unless a subclass says otherwise.

    Steps and epochs are counted from 1 and over the whole training. ``settled`` tells whether the network is
    as sparse as it is going to be: the loop neither selects weights nor counts towards early stopping before.
    ``state_dict`` holds tensors and plain values only, and everything that a resumed training needs to go on
    bit for bit.
    """

    @property
    def settled(self) -> bool:
        """Whether this epoch's weights may be selected as the outcome."""
        return True

    @property
    def beneath(self) -> bool:
        """Whether it keeps weights beneath those of the network, and puts them back before a step."""
        return False

    @property
    def beside(self) -> tuple[Tensor, ...]:
        """What it trains beside the network's parameters; gradients are averaged over processes."""
        return ()

    def unscale(self, scale: float) -> None:
        """Divide gradients of what it trains beside by ``scale``, that of the loss; infinite: drop them."""

    def leave_out(self) -> None:
        """The step whose gradients were made does not take place: forget what it gave."""

    def start(self, optimizer: Optimizer, *others: Optimizer) -> None:
        """Training begins (or goes on: ``load_state_dict`` follows); ``others`` hold what it does not."""

    def before_step(self, step: int) -> None:
        """Before the forward pass of ``step``."""

    def after_backward(self, step: int) -> None:
        """Gradients are there; the optimizer has not used them yet."""

    def after_step(self, step: int) -> None:
        """The optimizer has moved the weights."""

    def after_epoch(self, epoch: int) -> None:
        """After the last step of ``epoch``, before it is evaluated."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
