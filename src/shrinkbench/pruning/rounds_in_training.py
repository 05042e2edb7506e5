"""Rounds of pruning spread evenly over one training, as a hook of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.finetunings import restart
from shrinkbench.pruning.masks import Masks, Upholder
from shrinkbench.pruning.method import PruningMethod
from shrinkbench.spec import Amount
from shrinkbench.training.hook import Hook

PruneRound = Callable[[Amount, Masks, int], Masks]


class RoundsInTraining(Hook):
    """Prunes once before the first step, and once after each share of the steps but the last.

    Of R rounds, number r (from 0) follows step r * steps // R; without training between them all come first.
    ``rewound`` are the weights to which a method that rewinds goes back after each round.
    """

    def __init__(
        self,
        module: nn.Module,
        method: PruningMethod,
        amounts: Sequence[Amount],
        *,
        steps: int,
        prune: PruneRound,
        rewound: Mapping[str, Tensor] | None,
    ) -> None:
        if method.schedule.train_between and steps < len(amounts):
            raise ShrinkbenchError(
                f"'{method.name}' has {len(amounts)} rounds with training after each, and {steps} steps are "
                "fewer; train for longer"
            )
        self.masks = Masks({})
        self._module, self._method, self._amounts = module, method, tuple(amounts)
        self._steps, self._prune, self._rewound = steps, prune, rewound
        self._done = 0
        self._uphold = Upholder(module, self.masks)
        self.upheld: Upholder | None = None  # what holds until the next step

    @property
    def settled(self) -> bool:
        """Whether the last round has been."""
        return self._done == len(self._amounts)

    def begin(self) -> None:
        """The rounds before the first step."""
        self._catch_up(0)
        self.upheld = self._uphold

    def after_step(self, step: int) -> None:
        """Uphold the masks; prune if a round is due."""
        self._uphold()
        self._catch_up(step)
        self.upheld = self._uphold

    def state_dict(self) -> dict[str, Any]:
        """The masks, whether they hold until the next step, and how many rounds have been."""
        return {"masks": dict(self.masks), "upheld": self.upheld is not None, "rounds": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.masks, self._done = Masks(state["masks"]), state["rounds"]
        self._uphold = Upholder(self._module, self.masks)
        self.upheld = self._uphold if state.get("upheld") else None

    def _due(self, number: int) -> int:
        return number * self._steps // len(self._amounts) if self._method.schedule.train_between else 0

    def _catch_up(self, step: int) -> None:
        while not self.settled and self._due(self._done) <= step:
            number = self._done
            self.masks = self._prune(self._amounts[number], self.masks, number)
            self._done = number + 1
            mode = self._method.finetuning if self.settled else self._method.finetuning.between
            if self._method.schedule.train_between or self.settled:
                restart(mode, self._module, self.masks, self._rewound)
            else:
                self.masks.apply(self._module)
            self._uphold = Upholder(self._module, self.masks)
