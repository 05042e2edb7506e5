"""What must hold in every layer, whatever the target: widths in steps, layers left whole, a largest ratio."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shrinkbench.spec.value import Value

Pattern = Annotated[str, Field(min_length=1)]


class Constraints(Value):
    """Bounds within which a method spends its budget.

    ``round_to``: every group of channels keeps a multiple of so many, or stays whole. ``ignore``: layers, by
    path or glob, whose weights stay; inputs that leave with the channels of other layers do leave.
    ``max_ratio``: the largest fraction of a layer's units that is removed.
    """

    round_to: int | None = Field(default=None, ge=1)
    ignore: tuple[Pattern, ...] = ()
    max_ratio: float | None = Field(default=None, gt=0, lt=1)

    @property
    def on_units(self) -> bool:
        """Whether how many units of a layer may stay is bounded."""
        return self.round_to is not None or self.max_ratio is not None


UNCONSTRAINED = Constraints()
