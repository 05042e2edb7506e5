"""What a schedule that prunes during training is told, and what it has to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from shrinkbench.network.inputs import Inputs
from shrinkbench.network.view import Batches
from shrinkbench.pruning.masks import Masks, Upholder
from shrinkbench.seeds import stream
from shrinkbench.spec.amount import Amount
from shrinkbench.training.hook import Hook


class Decide(Protocol):
    """How a hook gets masks."""

    def __call__(
        self,
        amount: Amount,
        *,
        masks: Masks | None = None,
        scores: Mapping[str, Tensor] | None = None,
        learned: Mapping[str, Tensor] | None = None,
        iteration: int = 0,
    ) -> Masks:
        """Masks by the method's structure and allocation, from its score or the given ``scores``.

        ``learned`` is what the score may look at of a training: :attr:`PruneContext.learned`.
        """
        ...


@dataclass(frozen=True)
class Setting:
    """What a hook works with: the network, the target, how long training lasts, and how to decide masks.

    ``score`` turns (weights, gradients) of one training step into scores; ``names`` are the prunable weights.
    ``batch_size`` is that of the training, where it is known beforehand; ``draw`` gives batches with their
    targets beside it, others for each number, where the training has any.
    """

    module: nn.Module
    names: tuple[str, ...]
    amount: Amount
    epochs: int
    steps_per_epoch: int
    seed: int
    decide: Decide
    score: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]
    example: Inputs
    batch_size: int | None = None
    draw: Callable[[int], Batches] | None = None

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
    """A hook that holds masks and, unless a subclass says otherwise, keeps pruned weights at zero.

    ``CONSTANTS`` are the numbers by which a subclass works; they are part of a run's key. ``EXCHANGES``: it
    lets single weights of a layer take the place of others. ``RANKED_BY``: by what it ranks them itself, in
    words; empty where the method's score does.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {}
    EXCHANGES: ClassVar[bool] = False
    RANKED_BY: ClassVar[str] = ""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.masks = Masks({n: torch.ones_like(p, dtype=torch.bool) for n, p in setting.parameters.items()})
        self._uphold = Upholder(setting.module, self.masks)
        self.upheld: Upholder | None = None  # what holds until the next step

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """All weights / those computed with, once the share ``progress`` of a training to ``target`` is over.

        ``None`` where a hook does not say. How often it decides is left out: the course is that of many steps.
        """
        return None

    @classmethod
    def when(cls) -> str:
        """When in the training it decides, in words, by its ``CONSTANTS``; empty where it does not say."""
        return ""

    def adopt(self, masks: Masks) -> None:
        """Apply ``masks`` now and uphold them from now on."""
        self.masks = masks
        masks.apply(self.setting.module)
        self._uphold = Upholder(self.setting.module, masks)
        self.upheld = self._uphold

    def after_step(self, step: int) -> None:
        """Zero what the optimizer has moved."""
        self._uphold()
        self.upheld = self._uphold

    def state_dict(self) -> dict[str, Any]:
        """The masks, and whether they hold until the next step."""
        return {"masks": dict(self.masks), "upheld": self.upheld is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the masks over; the weights are those of the checkpoint already."""
        self.masks = Masks(self.placed(state["masks"]))
        self._uphold = Upholder(self.setting.module, self.masks)
        self.upheld = self._uphold if state.get("upheld") else None  # never those that it began with

    def placed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``tensors`` by parameter name, each on the device of its parameter."""
        parameters = dict(self.setting.module.named_parameters())
        return {name: tensor.to(parameters[name].device) for name, tensor in tensors.items()}


def often(constants: Mapping[str, float]) -> str:
    """How often a hook with these ``CONSTANTS`` decides.

    >>> often({"every": 100, "at_least": 20})
    'every 100 steps, or at least 20 times'
    """
    return f"every {constants['every']:g} steps, or at least {constants['at_least']:g} times"


class FinishingHook(PruningHook):
    """A hook that has its final masks before training ends, from where a subclass sets ``_done``."""

    _done = False

    @property
    def settled(self) -> bool:
        """Whether the target has been reached."""
        return self._done

    def state_dict(self) -> dict[str, Any]:
        """What else is kept, and whether masks are final."""
        return {**super().state_dict(), "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._done = state["done"]
