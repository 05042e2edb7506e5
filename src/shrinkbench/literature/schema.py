"""The corpus format: papers, and one fact per row, each with the place it was printed.

``docs/literature.md`` describes the files. A *result* is one pruned network of one paper: the facts that share
paper, dataset, architecture, method, fine-tuning and network.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from shrinkbench.spec import Value

SCHEMA_VERSION = 1
UNIDENTIFIED = "???"
"""Stands for a dataset or network that its paper does not identify."""
UNPRUNED = "unpruned"
"""The ``network`` of facts about the network before pruning."""

Accuracy = Literal[
    "top1",
    "top5",
    "top1_error",
    "top5_error",
    "initial_top1",
    "initial_top5",
    "initial_top1_error",
    "initial_top5_error",
    "mean_average_precision",
]
Change = Literal["top1_change", "top5_change"]
Share = Literal[
    "parameters_kept",
    "parameters_pruned",
    "operations_kept",
    "operations_pruned",
    "channels_kept",
    "channels_pruned",
    "filters_pruned",
    "convolution_weights_kept",
    "convolution_weights_pruned",
]
Ratio = Literal["compression", "speedup"]
Count = Literal[
    "parameters",
    "initial_parameters",
    "operations",
    "initial_operations",
    "multiply_adds",
    "initial_multiply_adds",
    "flops",
    "initial_flops",
    "channels",
]
Quantity = Literal[Accuracy, Change, Share, Ratio, Count, "evaluated"]
Unit = Literal["percent", "fraction", "ratio", "one", "million", "billion", ""]

Printed = Annotated[Decimal, Field(allow_inf_nan=False, gt=-(10**15), lt=10**15, max_digits=30)]
UNIT_SCALES: dict[str, Decimal] = {
    "percent": Decimal("0.01"),
    "fraction": Decimal(1),
    "ratio": Decimal(1),
    "one": Decimal(1),
    "million": Decimal(10**6),
    "billion": Decimal(10**9),
}
_SHARE_UNITS = ("percent", "fraction")
_UNITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*get_args(Accuracy), *get_args(Change), *get_args(Share)), _SHARE_UNITS),
    **dict.fromkeys(get_args(Ratio), ("ratio",)),
    **dict.fromkeys(get_args(Count), ("one", "million", "billion")),
    "evaluated": ("",),
}


class Paper(Value):
    """A paper of the corpus.

    ``author`` is the name shown for it, with the year: "He, Yang 2018". ``pruning`` is false for methods that
    are compared to as if they pruned; ``surveyed`` is false for papers that are only compared to, so that
    nothing else is known of them. ``peer_reviewed`` splits the histograms. ``month`` is unknown where missing.
    """

    key: str = Field(min_length=1)
    author: str = Field(min_length=1)
    year: int = Field(ge=1940, le=2100)
    month: int | None = Field(default=None, ge=1, le=12)
    title: str = ""
    venue: str = ""
    peer_reviewed: bool
    pruning: bool = True
    surveyed: bool = True
    compares_to: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Author and year."""
        return f"{self.author} {self.year}"

    @property
    def date(self) -> str:
        """Year, and month where known: ``2018-09``."""
        return f"{self.year}" if self.month is None else f"{self.year}-{self.month:02d}"

    def is_later_than(self, other: Paper) -> bool:
        """Whether this paper surely appeared after ``other``: an unknown month decides nothing."""
        if self.year != other.year or self.month is None or other.month is None:
            return self.year > other.year
        return self.month > other.month


class Fact(Value):
    """One printed number.

    ``value`` keeps the digits as printed and is in ``unit``; ``evaluated`` has no value and says that a paper
    used a dataset and network without a number on record. Where a listed erratum corrects ``value``,
    ``printed`` is what was printed. An empty ``method``, ``finetuning`` makes the fact hold for every result of
    that network; ``network`` "unpruned" makes it an initial value. ``spread`` has the
    unit of ``value``. ``part`` names the layer or stage of facts that are not about the whole network.
    ``collection`` names a supplement that only single figures use; ``source`` is the page, table or figure.
    ``operations`` are counts whose convention the paper leaves open; ``multiply_adds`` and ``flops`` (two per
    multiply-add) say theirs.
    """

    paper: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    architecture: str = Field(min_length=1)
    method: str = ""
    finetuning: str = ""
    network: str = ""
    quantity: Quantity
    value: Printed | None = None
    unit: Unit = ""
    printed: Printed | None = None
    spread: Annotated[Printed, Field(ge=0)] | None = None
    spread_kind: Literal["", "standard deviation", "maximum deviation"] = ""
    trials: int | None = Field(default=None, ge=1)
    part: str = ""
    collection: str = ""
    source: str = Field(min_length=1)
    note: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.unit not in _UNITS[self.quantity]:
            allowed = " or ".join(f"'{unit}'" for unit in _UNITS[self.quantity])
            raise ValueError(f"unit '{self.unit}' does not fit '{self.quantity}', which is in {allowed}")
        if (self.value is None) != (self.quantity == "evaluated"):
            raise ValueError("a value is needed for every quantity but 'evaluated', which has none")
        if self.printed is not None and self.value is None:
            raise ValueError("a printed value stands beside the one that it was corrected to")
        return self

    @property
    def scaled(self) -> float:
        """The value in fractions, ratios or plain counts."""
        return float((self.value or Decimal(0)) * UNIT_SCALES.get(self.unit, Decimal(1)))

    @property
    def impossible(self) -> str:
        """Why the value cannot be, as in a misprint or a wrong unit; nothing where it can."""
        if self.quantity.endswith("change"):
            return "" if -1 <= self.scaled <= 1 else "a change of accuracy lies between -100 and 100 points"
        if self.unit in ("percent", "fraction"):
            return "" if 0 <= self.scaled <= 1 else "a share lies between 0 and 100 %"
        if self.value is not None and self.scaled <= 0:
            return "a size or ratio is positive"
        return ""

    @property
    def resolution(self) -> float:
        """One unit in the last printed digit, scaled like ``scaled``: what rounding or truncation can hide."""
        exponent = (self.value or Decimal(0)).as_tuple().exponent
        digit = Decimal(1).scaleb(exponent) if isinstance(exponent, int) else Decimal(0)
        return float(digit * UNIT_SCALES.get(self.unit, Decimal(1)))

    @property
    def scaled_spread(self) -> float | None:
        """The spread, scaled like ``scaled``."""
        return None if self.spread is None else float(self.spread * UNIT_SCALES[self.unit])


class Listing(Value):
    """One figure of an unpruned network, from a published list of networks."""

    catalogue: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    architecture: str = Field(min_length=1)
    quantity: Literal["top1", "top5", "parameters", "operations"]
    value: Printed
    unit: Unit
    source: str = Field(min_length=1)

    @property
    def scaled(self) -> float:
        """The value in fractions or plain counts."""
        return float(self.value * UNIT_SCALES[self.unit])
