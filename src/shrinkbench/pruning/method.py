"""A pruning method is a point on five axes, registered by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import finetunings as finetunings
from shrinkbench.pruning.allocations import rules as allocations
from shrinkbench.pruning.code import origins_by_axis
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.schedules import before_training as schedules
from shrinkbench.pruning.schedules.schedule import Schedule
from shrinkbench.pruning.structures import single as structures
from shrinkbench.pruning.units import Scores, Structure, UnitScores
from shrinkbench.registry import Registry
from shrinkbench.sources import Origin, digest_of, origin_of_caller, origin_of_maker
from shrinkbench.spec import MethodSpec

Score = Callable[[PruneContext], Scores | UnitScores | Masks]
Update = Callable[[PruneContext, Masks], Mapping[str, Tensor]]


def decides(*axes: str) -> Callable[[Score], Score]:
    """Say of the decorated score which of ``structure`` and ``allocation`` it settles by itself.

    These axes of a method are then only a description, and asking for others is refused. A score that returns
    ``Masks`` settles at least one of them.
    """

    def mark(score: Score) -> Score:
        vars(score)["decides"] = axes
        return score

    return mark


def decided_by(score: Score) -> tuple[str, ...]:
    """The axes that ``score`` was marked with by :func:`decides`."""
    axes: tuple[str, ...] = getattr(score, "decides", ())
    return axes


@dataclass(frozen=True, kw_only=True)
class PruningMethod:
    """structure x score x allocation x schedule x fine-tuning.

    ``score`` returns weight-shaped scores (higher = keep), scores of units, or, to decide everything itself,
    ``Masks`` (see :func:`decides`). ``update`` returns new values for weights that stay, once masks are
    decided. ``needs`` names what is looked at beyond the weights (``data``, ``labels``, ``gradients``);
    ``batch_count`` is how many minibatches that takes; ``reference`` is a key of docs/references.bib. ``like``
    is the method whose layerwise proportions a control has; ``imposed`` are the axes that were changed from
    what the score was registered with. ``origin`` is the outside code that made the method, if any.
    """

    name: str
    score: Score
    structure: Structure = structures.weights
    allocation: allocations.Allocation = allocations.global_
    schedule: Schedule = schedules.one_shot
    finetuning: finetunings.Finetuning = finetunings.continue_
    update: Update | None = None
    needs: tuple[str, ...] = ()
    batch_count: int = 1
    reference: str = ""
    like: PruningMethod | None = None
    imposed: tuple[str, ...] = ()
    origin: Origin | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        makers = [origin for origin in (self.origin, origin_of_maker()) if origin is not None]
        object.__setattr__(self, "origin", reduce(or_, makers) if makers else None)

    @property
    def summary(self) -> str:
        """First line of the score's docstring."""
        return (inspect.getdoc(self.score) or "").partition("\n")[0]

    @property
    def decides(self) -> tuple[str, ...]:
        """The axes that the score settles by itself."""
        return decided_by(self.score)

    @property
    def axes(self) -> tuple[str, ...]:
        """Structure, score, allocation, schedule and fine-tuning, by name."""
        return (
            self.structure.name,
            self.score.__name__,
            self.allocation.name,
            self.schedule.name,
            self.finetuning.name,
        )

    @property
    def spec(self) -> MethodSpec:
        """The method as a value, for the key of a run; code from outside this package is part of it."""
        structure, score, allocation, schedule, finetuning = self.axes
        outside = {origin for origins in origins_by_axis(self).values() for origin in origins}
        return MethodSpec(
            name=self.name,
            structure=structure,
            score=score,
            allocation=allocation,
            schedule=schedule,
            finetuning=finetuning,
            start=self.schedule.start,
            source=digest_of(outside),
        )


METHODS: Registry[PruningMethod] = Registry("pruning method")


@dataclass(frozen=True)
class ScoreEntry:
    """A score by the name of its function, with what it needs."""

    function: Score
    needs: tuple[str, ...]
    batch_count: int
    structure: Structure


SCORES: Registry[ScoreEntry] = Registry("score")


def pruning_method(
    name: str,
    *,
    structure: Structure = structures.weights,
    allocation: allocations.Allocation = allocations.global_,
    schedule: Schedule = schedules.one_shot,
    finetuning: finetunings.Finetuning = finetunings.continue_,
    update: Update | None = None,
    needs: tuple[str, ...] = (),
    batch_count: int = 1,
    reference: str = "",
) -> Callable[[Score], Score]:
    """Register the decorated score as the method ``name``; decorators may be stacked.

    A score that returns ``Masks`` is marked with :func:`decides` below them.

    >>> @pruning_method("doctest_smallest_square")
    ... def doctest_square(ctx):
    ...     "Squared weight."
    ...     return {name: w ** 2 for name, w in ctx.weights.items()}
    >>> METHODS.get("doctest_smallest_square").allocation.name
    'global'
    """

    origin = origin_of_caller()

    def register(score: Score) -> Score:
        method = PruningMethod(
            name=name,
            score=score,
            structure=structure,
            allocation=allocation,
            schedule=schedule,
            finetuning=finetuning,
            update=update,
            needs=needs,
            batch_count=batch_count,
            reference=reference,
            origin=origin,
        )
        if score.__name__ not in SCORES:
            SCORES.add(score.__name__, ScoreEntry(score, needs, batch_count, structure))
        elif SCORES.get(score.__name__).function is not score:
            raise ShrinkbenchError(
                f"another score is called '{score.__name__}' already; give the function of method '{name}' "
                "another name"
            )
        METHODS.add(name, method)
        return score

    return register
