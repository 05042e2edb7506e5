"""A pruning method is a point on five axes, registered by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import Literal

from torch import Tensor

from shrinkbench.errors import InputError, ShrinkbenchError, of_input
from shrinkbench.pruning import finetunings
from shrinkbench.pruning.allocations import rules as allocations
from shrinkbench.pruning.code import outside_sources
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.schedules import before_training as schedules
from shrinkbench.pruning.schedules.schedule import Schedule
from shrinkbench.pruning.structures import single as structures
from shrinkbench.pruning.units import Scores, Structure, UnitScores
from shrinkbench.registry import Registry
from shrinkbench.sources import Origin, origin_of_caller, origin_of_maker
from shrinkbench.spec import (
    AllocationSpec,
    Amount,
    AxisValue,
    FinetuningSpec,
    MethodSpec,
    ScheduleSpec,
    ScoreSpec,
    StructureSpec,
)
from shrinkbench.spec.amount import Rounding
from shrinkbench.spec.axes import AxisName, ScoreKind

NEEDS = ("data", "labels", "gradients")
"""What can be looked at beyond the weights, in this order."""

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


def differentiates(score: Score) -> Score:
    """Say of the decorated score that it takes gradients, though none of the loss on data: SynFlow's.

    What is a ``needs`` of gradients is said so; this is for those whose ``needs`` are part of stored keys.
    """
    vars(score)["differentiates"] = True
    return score


def in_rounds(count: int) -> Callable[[Score], Score]:
    """Say of the decorated score that it goes to the target in ``count`` rounds, without training."""

    def mark(score: Score) -> Score:
        vars(score)["rounds"] = count
        return score

    return mark


@dataclass(frozen=True)
class PerLayer:
    """How a method means a fraction of every layer, as its paper does.

    ``percent`` is what ``METHOD:30`` takes 30 % of: every layer's units, or all channels of the network.
    """

    percent: Literal["fraction_per_layer", "channels"] = "fraction_per_layer"
    rounding: Rounding = "remove-floor"
    projections: bool = True


@dataclass(frozen=True, kw_only=True)
class PruningMethod:
    """structure x score x allocation x schedule x fine-tuning.

    ``score`` returns weight-shaped scores (higher = keep), scores of units, or, to decide everything itself,
    ``Masks`` (see :func:`decides`); ``kind`` says what it looks at and ``version`` is raised when it changes.
    ``update`` returns new values for weights that stay, once masks are decided. ``needs`` names what is looked
    at beyond the weights (``data``, ``labels``, ``gradients``); ``batch_count`` is how many minibatches that
    takes; ``reference`` is a key of docs/references.bib. ``amount`` is how much the method prunes where that is
    part of it, and ``per_layer`` how a fraction of every layer is meant. ``like`` is the method whose layerwise
    proportions a control has; ``imposed`` are the axes that were changed from what the score was registered
    with. ``label`` is a short name for figures and tables. ``base`` and ``changed`` are those of
    :class:`shrinkbench.spec.MethodSpec`. ``origin`` is the outside code that made the method, if any.
    """

    name: str
    score: Score
    kind: ScoreKind = "other"
    version: int = 1
    structure: Structure = structures.weights
    allocation: allocations.Allocation = allocations.global_
    schedule: Schedule = schedules.one_shot
    finetuning: finetunings.Finetuning = finetunings.continue_
    update: Update | None = None
    needs: tuple[str, ...] = ()
    batch_count: int = 1
    reference: str = ""
    amount: Amount | None = None
    per_layer: PerLayer = PerLayer()
    like: PruningMethod | None = None
    imposed: tuple[str, ...] = ()
    label: str = ""
    base: str = ""
    changed: tuple[AxisName, ...] = ()
    origin: Origin | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.schedule.exchanges and not self.structure.exchangeable:
            raise ShrinkbenchError(
                f"the schedule '{self.schedule.name}' exchanges single weights, so that '{self.name}' would "
                f"not keep to the structure '{self.structure.name}'; choose the structure weights, or another "
                "schedule"
            )
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
    def needs_by_axis(self) -> dict[str, tuple[str, ...]]:
        """What each axis looks at until masks are decided, beyond the weights; others are left out.

        Training that follows the last masks is not among it: all methods but those without fine-tuning have it.
        """
        score = (*self.needs, *(("gradients",) if getattr(self.score, "differentiates", False) else ()))
        like = () if self.like is None else self.like.needs_to_decide
        allocation = (*self.allocation.needs, *like)
        found = {"score": score, "allocation": allocation, "schedule": self.schedule.needs}
        return {axis: tuple(n for n in NEEDS if n in needs) for axis, needs in found.items() if needs}

    @property
    def needs_to_decide(self) -> tuple[str, ...]:
        """What one decision looks at beyond the weights, whatever is trained before it."""
        return self._needs_of("score", "allocation")

    @property
    def all_needs(self) -> tuple[str, ...]:
        """What it takes to come to the last masks: the needs of all axes."""
        return self._needs_of("score", "allocation", "schedule")

    def _needs_of(self, *axes: str) -> tuple[str, ...]:
        named = {need for axis in axes for need in self.needs_by_axis.get(axis, ())}
        return tuple(need for need in NEEDS if need in named)

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
    def in_one_step(self) -> bool:
        """Whether masks are decided once, without training on the way."""
        return not self.schedule.trains_on_the_way

    @property
    def spec(self) -> MethodSpec:
        """The method as a value, for the key of a run; code from outside this package is part of it."""
        sources = outside_sources(self)
        structure, allocation, schedule, mode = self.structure, self.allocation, self.schedule, self.finetuning
        return MethodSpec(
            base=self.base or self.name,
            changed=self.changed,
            structure=StructureSpec(
                name=structure.name,
                version=structure.version,
                source=sources["structure"],
                unit=structure.unit,
                pattern=structure.pattern,
                overlapping=structure.overlapping,
                one_per_layer=structure.one_per_layer,
            ),
            score=ScoreSpec(
                name=self.score.__name__,
                version=self.version,
                source=sources["score"],
                kind=self.kind,
                needs=self.needs,
                batches=self.batch_count,
            ),
            allocation=AllocationSpec(
                name=allocation.name,
                version=allocation.version,
                source=sources["allocation"],
                scope="free" if "allocation" in self.decides and self.like is None else allocation.scope,
                uniform=allocation.uniform,
                exact=allocation.exact,
                like=None if self.like is None else self.like.spec,
            ),
            schedule=ScheduleSpec(
                name=schedule.name,
                version=schedule.version,
                source=sources["schedule"],
                parameters=dict(schedule.numbers),
                start=schedule.start,
                rounds=schedule.rounds,
                during=schedule.during is not None,
                train_between=schedule.train_between,
                train_after=schedule.train_after,
            ),
            finetuning=mode.spec.model_copy(update={"source": sources["finetuning"]}),
            update=None
            if self.update is None
            else AxisValue(name=self.update.__name__, source=sources["update"]),
        )


METHODS: Registry[PruningMethod] = Registry("pruning method", of=PruningMethod)


def resolve(spec: MethodSpec) -> PruningMethod:
    """The method that ``spec`` describes; raises ``ShrinkbenchError`` where the code at hand is another."""
    with of_input():
        method = METHODS.get(spec.name)
        if method.finetuning.name != spec.finetuning.name:  # a search is shared by all trainings that follow it
            mode = finetunings.FINETUNINGS.get(spec.finetuning.name)
            method = replace(method, finetuning=mode, changed=spec.changed)
        found = method.spec
    if found != spec:
        fields = [name for name in MethodSpec.model_fields if getattr(found, name) != getattr(spec, name)]
        axes = [name for name in fields if name not in ("base", "changed")] or fields  # not what it is called
        raise InputError(
            f"the method '{spec.name}' is not what it was when the run was planned: its {' and '.join(axes)} "
            f"{'differ' if len(axes) > 1 else 'differs'}; give the sweep again, so that the run is planned anew"
        )
    return method


def resolve_finetuning(spec: FinetuningSpec) -> finetunings.Finetuning:
    """The fine-tuning mode that ``spec`` describes; raises ``ShrinkbenchError`` where the code is another."""
    with of_input():
        mode = finetunings.FINETUNINGS.get(spec.name)
    if mode.spec != spec.model_copy(update={"source": None}):
        raise InputError(
            f"the fine-tuning mode '{spec.name}' is not what it was when the run was planned; give the sweep "
            "again, so that the run is planned anew"
        )
    return mode


@dataclass(frozen=True)
class ScoreEntry:
    """A score by the name of its function, with what it looks at and what it needs."""

    function: Score
    needs: tuple[str, ...]
    batch_count: int
    structure: Structure
    kind: ScoreKind
    version: int


SCORES: Registry[ScoreEntry] = Registry("score")


def pruning_method(
    name: str,
    *,
    kind: ScoreKind | None = None,
    version: int = 1,
    structure: Structure = structures.weights,
    allocation: allocations.Allocation = allocations.global_,
    schedule: Schedule = schedules.one_shot,
    finetuning: finetunings.Finetuning = finetunings.continue_,
    update: Update | None = None,
    needs: tuple[str, ...] = (),
    batch_count: int = 1,
    reference: str = "",
    per_layer: PerLayer = PerLayer(),
    label: str = "",
) -> Callable[[Score], Score]:
    """Register the decorated score as the method ``name``; decorators may be stacked.

    A score that returns ``Masks`` is marked with :func:`decides` below them. ``kind`` says what the score looks
    at; it is said once for each score, in the lowest decorator, and is ``other`` where nobody says.
    ``label`` is a short name for figures and tables, which an experiment file may replace.

    >>> @pruning_method("doctest_smallest_square", kind="magnitude")
    ... def doctest_square(ctx):
    ...     "Squared weight."
    ...     return {name: w ** 2 for name, w in ctx.weights.items()}
    >>> METHODS.get("doctest_smallest_square").allocation.name
    'global'
    """

    origin = origin_of_caller()

    def register(score: Score) -> Score:
        entry = _entry_of(
            score,
            ScoreEntry(score, needs, batch_count, structure, kind or "other", version),
            method=name,
            said=kind is not None,
        )
        method = PruningMethod(
            name=name,
            score=score,
            kind=entry.kind,
            version=entry.version,
            structure=structure,
            allocation=allocation,
            schedule=schedule,
            finetuning=finetuning,
            update=update,
            needs=needs,
            batch_count=batch_count,
            reference=reference,
            per_layer=per_layer,
            label=label,
            origin=origin,
        )
        METHODS.add(name, method)
        return score

    return register


def _entry_of(score: Score, entry: ScoreEntry, *, method: str, said: bool) -> ScoreEntry:
    """The entry of ``score``, registered by its first method."""
    if score.__name__ not in SCORES:
        return SCORES.add(score.__name__, entry)
    known = SCORES.get(score.__name__)
    if known.function is not score:
        raise ShrinkbenchError(
            f"another score is called '{score.__name__}' already; give the function of method '{method}' "
            "another name"
        )
    if said and entry.kind != known.kind:
        raise ShrinkbenchError(
            f"the score '{score.__name__}' of method '{method}' is said to be of kind '{entry.kind}', and was "
            f"'{known.kind}'; say its kind once"
        )
    if entry.version not in (1, known.version):
        raise ShrinkbenchError(
            f"the score '{score.__name__}' of method '{method}' is said to be of version {entry.version}, and "
            f"was {known.version}; say its version in the lowest decorator"
        )
    return known
