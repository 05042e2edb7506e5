"""A comparison whose number of seeds is decided on the way, by rules that are fixed before the first result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shrinkbench.spec.value import Value

Spending = Literal["obrien-fleming", "kim-demets", "pocock"]


class UntilDecided(Value):
    """Seeds are added until the comparison is decided: after which there is a look, and what a look decides.

    ``compare`` are the methods whose comparison is asked for, by name; without any, all are, and the question
    is the best against the rest. ``alpha`` is the chance of any false difference, over all looks and pairs.
    ``margin`` (0.005 is half a point of accuracy, or half a percent of the control's value of a metric that is
    no percentage) also decides that two methods differ by less. There is a look after every seed from
    ``first_look`` to ``max_seeds``. A pair that would be told apart with less than the chance ``futility``, had
    it all seeds, takes no more of them.
    """

    compare: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    margin: float | None = Field(default=None, gt=0, lt=1)
    first_look: int = Field(default=3, ge=2, le=1000)
    max_seeds: int = Field(default=10, ge=2, le=1000)
    spending: Spending = "obrien-fleming"
    futility: float = Field(default=0.02, ge=0, lt=0.5)

    @model_validator(mode="after")
    def _in_order(self) -> UntilDecided:
        if self.first_look > self.max_seeds:
            raise ValueError(
                f"the first look needs {self.first_look} seeds, and max_seeds allows {self.max_seeds}"
            )
        if len(self.compare) == 1 or len(set(self.compare)) < len(self.compare):
            raise ValueError("compare needs two methods or more, each once")
        return self

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds after which there is a look.

        >>> UntilDecided(max_seeds=5).looks
        (3, 4, 5)
        """
        return tuple(range(self.first_look, self.max_seeds + 1))


class SeedsAdded(Value):
    """Rules by which seeds are added, and all of these in the order in which they are."""

    rules: UntilDecided
    seeds: tuple[int, ...]
