"""Listed corrections of a corpus: what was printed, what is right, why, and by which source.

A corpus keeps the numbers as printed; its errata are a layer over them. A corrected fact holds both values, and
every value that is derived from it counts its errata (:class:`shrinkbench.literature.normalise.Measure`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from typing import Self

from pydantic import Field, model_validator

from shrinkbench.literature.schema import Fact, Printed, Quantity, Unit
from shrinkbench.literature.tables import read_table
from shrinkbench.spec import Value, parse_value

ERRATA_FILE = "errata.csv"
_NAMING = ("paper", "dataset", "architecture", "method", "finetuning", "network", "quantity", "unit")


class Erratum(Value):
    """One number of a corpus that is wrong: the fields that name its fact, both values, reason and source."""

    paper: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    architecture: str = Field(min_length=1)
    method: str = ""
    finetuning: str = ""
    network: str = ""
    quantity: Quantity
    printed: Printed
    corrected: Printed
    unit: Unit
    reason: str = Field(min_length=1)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _is_a_fact(self) -> Self:
        if self.printed == self.corrected:
            raise ValueError(f"the corrected value is the printed one, {self.printed}")
        Fact.model_validate({**self._named(), "value": self.corrected})  # a value and unit of its quantity
        return self

    def _named(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in (*_NAMING, "source")}

    @property
    def where(self) -> str:
        """A place that a person can find: paper, network and record."""
        parts = (self.method, self.finetuning, self.network)
        return f"{self.paper}: {self.dataset} / {self.architecture}" + "".join(f", {p}" for p in parts if p)

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.quantity} {self.printed} -> {self.corrected} {self.unit}: "
            f"{self.reason} ({self.source})"
        )

    def names(self, fact: Fact) -> bool:
        """Whether ``fact`` is of the record and quantity that this corrects."""
        return all(getattr(fact, name) == getattr(self, name) for name in _NAMING)

    def touches(self, fact: Fact) -> bool:
        """Whether ``fact`` holds the printed value that this corrects, or is corrected by it already."""
        return self.names(fact) and self.printed == (fact.value if fact.printed is None else fact.printed)

    def is_of_the_number_of(self, other: Erratum) -> bool:
        """Whether both correct one printed number."""
        return self.printed == other.printed and self._named() == {**other._named(), "source": self.source}

    def correct(self, fact: Fact) -> Fact:
        """``fact`` with the right value, and the printed one beside it."""
        return fact.model_copy(update={"value": self.corrected, "printed": self.printed})


@cache
def shipped_errata() -> tuple[Erratum, ...]:
    """The errata of the published export."""
    resource = resources.files("shrinkbench.literature") / "data" / ERRATA_FILE
    with resources.as_file(resource) as path:
        rows = read_table(path, list(Erratum.model_fields), remedy="reinstall the package")
        return tuple(
            parse_value(Erratum, {k: v for k, v in row.cells.items() if v}, where=f"{path}, row {row.number}")
            for row in rows
        )


def correct(
    facts: Iterable[Fact], errata: Iterable[Erratum]
) -> tuple[tuple[Fact, ...], tuple[Erratum, ...], tuple[tuple[Erratum, str], ...]]:
    """Facts with ``errata`` applied; the errata that hold; and those that do not, each with the reason."""
    facts = list(facts)
    listed, unfit = [], []
    for erratum in errata:
        named = [i for i, fact in enumerate(facts) if erratum.names(fact)]
        touched = [i for i in named if erratum.touches(facts[i])]
        for i in touched:
            facts[i] = erratum.correct(facts[i])
        if touched:
            listed.append(erratum)
        else:
            held = " and ".join(dict.fromkeys(str(facts[i].value) for i in named))
            problem = f"it holds {held}, not {erratum.printed}" if named else "the corpus has no such value"
            unfit.append((erratum, problem))
    return tuple(facts), tuple(listed), tuple(unfit)


def as_printed(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Facts with every correction taken back."""
    return tuple(
        fact.model_copy(update={"value": fact.printed, "printed": None}) if fact.printed is not None else fact
        for fact in facts
    )


def count_errata(facts: Iterable[Fact]) -> int:
    """How many of ``facts`` hold a corrected value."""
    return sum(fact.printed is not None for fact in facts)


def tell(errata: Sequence[Erratum], *, as_printed: bool) -> str:
    """How many ``errata`` there are, what they correct and whether they are applied; empty where none are.

    >>> tell(shipped_errata(), as_printed=False)
    'Errata applied: 3 (zhang-accel-very-deep: initial_top5 10.1 -> 89.9 percent, 3 times).'
    """
    if not errata:
        return ""
    counts = Counter(f"{e.paper}: {e.quantity} {e.printed} -> {e.corrected} {e.unit}" for e in errata)
    named = "; ".join(value + (f", {count} times" if count > 1 else "") for value, count in counts.items())
    done = "Read as printed, listed errata not applied" if as_printed else "Errata applied"
    return f"{done}: {len(errata)} ({named})."
