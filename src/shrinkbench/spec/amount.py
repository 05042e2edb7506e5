"""How much is pruned, as a value: of the whole network, of every layer, of all channels, or as published."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec.value import Value

Rounding = Literal["remove-floor", "keep-floor", "nearest"]


class _Amount(Value):
    """``settles`` names the allocation that the amount itself decides; of most, none."""

    settles: ClassVar[Literal["layerwise", "global"] | None] = None


class Compression(_Amount):
    """``ratio`` = original / kept parameters of the whole network; 1 is the unpruned network."""

    kind: Literal["compression"] = "compression"
    ratio: float = Field(ge=1, allow_inf_nan=False)

    @property
    def label(self) -> str:
        """``4x``."""
        return f"{self.ratio:g}x"


class FractionPerLayer(_Amount):
    """The ``fraction`` of the units of every layer that is removed, in whole units.

    Of n units ``remove-floor`` removes floor(n x fraction), ``keep-floor`` keeps floor(n x (1 - fraction)) and
    ``nearest`` removes the nearest whole number; one unit at least stays. Without ``projections``, the
    convolutions on the shortcuts of a residual network stay whole.
    """

    settles = "layerwise"
    kind: Literal["fraction_per_layer"] = "fraction_per_layer"
    fraction: float = Field(gt=0, lt=1)
    rounding: Rounding = "remove-floor"
    projections: bool = True

    @property
    def label(self) -> str:
        """``30% per layer``."""
        return f"{100 * self.fraction:g}% per layer"


class ChannelFraction(_Amount):
    """The ``fraction`` of all channels of the network that is removed, the lowest of them all."""

    settles = "global"
    kind: Literal["channels"] = "channels"
    fraction: float = Field(gt=0, lt=1)

    @property
    def label(self) -> str:
        """``60% of channels``."""
        return f"{100 * self.fraction:g}% of channels"


class Speedup(_Amount):
    """``ratio`` = original / kept multiply-adds of one input."""

    kind: Literal["speedup"] = "speedup"
    ratio: float = Field(gt=1, allow_inf_nan=False)

    @property
    def label(self) -> str:
        """``2x fewer multiply-adds``."""
        return f"{self.ratio:g}x fewer multiply-adds"


class PublishedWidths(_Amount):
    """The widths that a paper published, by their name in :mod:`shrinkbench.spec.targets`."""

    kind: Literal["published"] = "published"
    target: str

    @property
    def label(self) -> str:
        """``as published``."""
        return "as published"


Amount = Annotated[
    Compression | FractionPerLayer | ChannelFraction | Speedup | PublishedWidths, Field(discriminator="kind")
]
UNPRUNED = Compression(ratio=1)


def ratio_of(amount: Amount) -> float:
    """The compression of ``amount``; raises ``ShrinkbenchError`` where it is stated in another way."""
    if isinstance(amount, Compression):
        return amount.ratio
    raise ShrinkbenchError(
        f"this method prunes in several steps towards a compression, and the amount is stated as "
        f"{amount.label}; give a compression, or choose a method or schedule of one step"
    )
