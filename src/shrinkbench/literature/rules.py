"""Named choices of an analysis: what is left out, merged or renamed, and the printed numbers to compare with.

They are data and travel with a corpus; every one of them is applied by name and counted in the output.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shrinkbench.spec import Value

Scope = Literal["counts", "curves", "variability"]
"""Counts and Table 1 and Figure 2; trade-off curves (Figures 1, 3, 4); the curves of one network (Figure 5)."""


class Where(Value):
    """What results have to say: every field that is given must hold the result's value."""

    paper: tuple[str, ...] = ()
    dataset: tuple[str, ...] = ()
    architecture: tuple[str, ...] = ()
    method: tuple[str, ...] = ()
    finetuning: tuple[str, ...] = ()
    collection: tuple[str, ...] = ()
    top1_below: float | None = Field(default=None, gt=0, le=1)
    compression_above: float | None = Field(default=None, ge=1)

    def matches(self, fields: dict[str, str], top1: float | None, compression: float | None) -> bool:
        """Whether ``fields`` (those of a result, by name) and values fit."""
        if self.top1_below is not None and (top1 is None or top1 >= self.top1_below):
            return False
        if self.compression_above is not None and (
            compression is None or compression <= self.compression_above
        ):
            return False
        return all(fields[name] in values for name, values in self if name in fields and values)


class Exclusion(Value):
    """Results to leave out, by name and with the reason; ``scope`` says of which part of the analysis."""

    name: str = Field(min_length=1, pattern=r"^[a-z0-9][a-z0-9-]*$")
    reason: str = Field(min_length=1)
    scope: tuple[Scope, ...]
    where: tuple[Where, ...]


class Merge(Value):
    """Architectures that curves and figures treat as one."""

    name: str
    architectures: tuple[str, ...]
    reason: str


class MethodMerge(Value):
    """A paper whose named variants are drawn as one method."""

    paper: str
    reason: str


class Family(Value):
    """A family of unpruned networks: one curve of Figure 1, its numbers from one published list."""

    name: str
    year: int
    catalogue: str
    architectures: tuple[str, ...]


class Printed(Value):
    """Numbers a publication prints about the corpus, to compare with what the data give."""

    numbers: dict[str, int] = Field(default_factory=dict)
    table1: tuple[tuple[str, str, int], ...] = ()
    source: str = ""


class Rules(Value):
    """Every named choice of one corpus."""

    exclusions: tuple[Exclusion, ...] = ()
    merges: tuple[Merge, ...] = ()
    method_merges: tuple[MethodMerge, ...] = ()
    synonyms: tuple[tuple[str, ...], ...] = ()
    display: dict[str, str] = Field(default_factory=dict)
    families: tuple[Family, ...] = ()
    toy_datasets: tuple[str, ...] = ("MNIST",)
    variability_pair: tuple[str, str] | None = None
    magnitude: tuple[Where, ...] = ()
    printed: Printed = Printed()

    def shown(self, architecture: str) -> str:
        """The name under which tables show ``architecture``."""
        return self.display.get(architecture, architecture)
