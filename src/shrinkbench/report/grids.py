"""What a plan holds so far, by experiment and pair of dataset and network: what a repair widens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shrinkbench.results.store import Plan
from shrinkbench.spec import UNPRUNED, Amount, Compression, ExperimentSpec, MethodSpec, RunSpec, TaskSpec

Definition = tuple[MethodSpec, Amount | None]
"""A method, and how much it prunes where that is part of its name."""
Define = Callable[[str], Definition | None]
Pair = tuple[str, str]
Context = tuple[object, ...]
"""What runs of one comparison share: task, recipe, what else is pruned and measured, bounds on layers."""


@dataclass
class Grid:
    """Everything that an experiment needs on one pair of dataset and network: a full product.

    ``specs`` are the runs planned so far, of later experiments too that repeat this one's comparison; then the
    grid is ``merged``. ``compared`` are all planned runs of the pair that they are compared with. ``methods``
    are defined by the names under which an experiment asks for them. ``where`` names the place.
    """

    experiment: ExperimentSpec
    pair: Pair
    where: str
    specs: list[RunSpec]
    compared: list[RunSpec]
    merged: bool
    methods: dict[str, Definition | None]
    compressions: set[float]
    seeds: set[int]
    reasons: dict[str, None] = field(default_factory=dict)
    added: bool = False

    @property
    def tasks(self) -> set[TaskSpec]:
        """The tasks of the planned runs: one for each kind of initial weights."""
        return {spec.task for spec in self.specs}

    @property
    def is_planned(self) -> bool:
        """Whether every run of the product is planned already."""
        if self.added:
            return False
        if not self.merged:
            return True
        planned = {(s.method, s.amount, s.seed) for s in self.specs}
        wanted = [
            (definition[0], amount)
            for definition in self.methods.values()
            if definition is not None
            for amount in self._amounts(definition)
        ]
        return all((*cell, seed) in planned for cell in wanted for seed in self.seeds)

    def _amounts(self, definition: Definition) -> set[Amount]:
        """What a method prunes in this grid; fractions are taken as they are planned somewhere."""
        method, own = definition
        controls = {UNPRUNED} & {Compression(ratio=c) for c in self.compressions}
        if own is not None:
            return controls | {own}
        stated = {s.amount for s in self.specs if s.method == method and s.target is None}
        return {Compression(ratio=c) for c in self.compressions} | stated

    @property
    def by_compression(self) -> bool:
        """Whether a method is given compressions to prune to."""
        return any(s.target is not None and not s.is_control for s in self.specs)


def plan_grids(plan: Plan, define: Define) -> list[Grid]:
    """What is planned so far, by experiment and pair; one that repeats an earlier comparison counts to it."""
    by_pair: dict[Pair, dict[str, list[RunSpec]]] = defaultdict(lambda: defaultdict(list))
    for run in plan.runs:
        by_pair[run.spec.data.name, run.spec.model.name][run.experiment].append(run.spec)
    experiments = {e.name: e for e in plan.experiments}
    grids = []
    for pair, members in by_pair.items():
        separate: dict[str, list[str]] = {}
        for name, specs in members.items():
            contexts = _contexts(specs)
            owner = next((n for n, names in separate.items() if _within(contexts, _of(members, names))), name)
            separate[owner] = [*separate.get(owner, ()), name]
        for name, names in separate.items():
            contexts = _of(members, names)
            grids.append(
                Grid(
                    experiment=_united([experiments[n] for n in names]),
                    pair=pair,
                    where=" / ".join(pair) + (f" in {name}" if len(separate) > 1 else ""),
                    specs=[s for n in names for s in members[n]],
                    compared=[
                        s for others in members.values() for s in others if _within({_context(s)}, contexts)
                    ],
                    merged=len(names) > 1,
                    methods={m: define(m) for n in names for m in experiments[n].method},
                    compressions={c for n in names for c in experiments[n].compression}
                    | {1.0 for n in names if experiments[n].has_controls},
                    seeds={s.seed for n in names for s in members[n]},
                )
            )
    return grids


def _of(members: Mapping[str, list[RunSpec]], names: Iterable[str]) -> set[Context]:
    return {context for name in names for context in _contexts(members[name])}


def _united(experiments: Sequence[ExperimentSpec]) -> ExperimentSpec:
    """The first experiment, with the fractions of all."""
    axes = ("fraction_per_layer", "channels", "speedup")
    return experiments[0].model_copy(
        update={axis: tuple(sorted({v for e in experiments for v in getattr(e, axis)})) for axis in axes}
    )


def _context(spec: RunSpec) -> Context:
    """Constraints last; a control, which no constraints bind, belongs to runs of any."""
    bounds = None if spec.is_control else spec.constraints
    return (spec.task, spec.recipe, *spec.also_prunable.values(), spec.extra, bounds)


def _within(contexts: set[Context], others: set[Context]) -> bool:
    unbound = {context[:-1] for context in others}
    return all(c in others or (c[-1] is None and c[:-1] in unbound) for c in contexts)


def _contexts(specs: Iterable[RunSpec]) -> set[Context]:
    return {_context(spec) for spec in specs}
