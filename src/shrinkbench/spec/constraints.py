"""What must hold in every layer, whatever the target: widths in steps, layers left whole, a largest ratio."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from shrinkbench.spec.value import Value

LayerGlob = Annotated[str, Field(min_length=1)]
_NAMED = 2  # globs in a label


class Constraints(Value):
    """Bounds within which a method spends its budget.

    ``round_to``: every group of channels keeps a multiple of so many, or stays whole; 1 bounds nothing.
    ``ignore``: layers, by path or glob, whose weights stay; inputs that leave with the channels of other layers
    do leave, but for those of a grouped convolution, which would take its filters along: such channels stay
    whole. ``max_ratio``: the largest fraction of a layer's units that is removed.

    >>> Constraints(ignore=("fc", "conv1", "fc")) == Constraints(ignore=("conv1", "fc"), round_to=1)
    True
    """

    round_to: int | None = Field(default=None, ge=1)
    ignore: tuple[LayerGlob, ...] = ()
    max_ratio: float | None = Field(default=None, gt=0, lt=1)

    @field_validator("round_to")
    @classmethod
    def _one_is_none(cls, value: int | None) -> int | None:
        return None if value == 1 else value

    @field_validator("ignore")
    @classmethod
    def _in_one_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(value)))

    @property
    def on_units(self) -> bool:
        """Whether how many units of a layer may stay is bounded."""
        return self.round_to is not None or self.max_ratio is not None

    @property
    def label(self) -> str:
        """The bounds in words; nothing where there is none.

        >>> Constraints(round_to=8, ignore=("fc", "conv1", "conv2"), max_ratio=0.8).label
        'multiples of 8, at most 80% of a layer, conv1, conv2 and 1 more whole'
        """
        named, more = self.ignore[:_NAMED], len(self.ignore) - _NAMED
        whole = ", ".join(named) + (f" and {more} more" if more > 0 else "")
        parts = (
            f"multiples of {self.round_to}" if self.round_to is not None else "",
            f"at most {100 * self.max_ratio:g}% of a layer" if self.max_ratio is not None else "",
            f"{whole} whole" if whole else "",
        )
        return ", ".join(part for part in parts if part)


UNCONSTRAINED = Constraints()
