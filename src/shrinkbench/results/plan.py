"""What a results folder is to hold, and how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Annotated, Literal

from pydantic import BaseModel, FailFast, Field, model_validator

from shrinkbench.results.index import IndexEntry
from shrinkbench.results.record import RunResult
from shrinkbench.spec import ExperimentSpec, RunSpec, UntilDecided, Value
from shrinkbench.spec.value import SafeName


class PlannedRun(Value):
    """One run of a plan under its key; ``experiment`` names the grid that asks for it."""

    key: str
    spec: RunSpec
    experiment: str

    @model_validator(mode="after")
    def _follows(self) -> PlannedRun:
        if self.key != (self.spec.migrated_from or self.spec.key):
            raise ValueError("the key does not follow from the specification")
        return self


class Plan(Value):
    """What a store is to hold: the experiments as a person wrote them and every run that follows from them.

    ``name`` and ``description`` are of the first experiment. A run that several experiments ask for stands
    under the first of them.
    """

    schema_version: Literal[2] = 2
    name: SafeName
    description: str
    experiments: Annotated[tuple[ExperimentSpec, ...], FailFast(), Field(min_length=1)]
    runs: Annotated[tuple[PlannedRun, ...], FailFast()]

    @model_validator(mode="after")
    def _asks_for_each_run_once(self) -> Plan:
        names = [experiment.name for experiment in self.experiments]
        stray = next((run for run in self.runs if run.experiment not in names), None)
        if stray is not None:
            raise ValueError(
                f"run {stray.key[:12]} belongs to experiment '{stray.experiment[:60]}', which is none"
            )
        if len(set(names)) < len(names) or len({run.key for run in self.runs}) < len(self.runs):
            raise ValueError("an experiment or a run stands in it twice")
        return self


def label_of(names: Sequence[str]) -> str:
    """One name for experiments: what their names begin with, or the first and how many there are beside it.

    >>> label_of(["figure-7-vgg", "figure-7-resnet56"]), label_of(["quickstart"]), label_of(["mine", "other"])
    ('figure-7', 'quickstart', 'mine-and-1-more')
    """
    words = zip(*(name.split("-") for name in names), strict=False)
    common = "-".join(alike[0] for alike in takewhile(lambda alike: len(set(alike)) == 1, words))
    return common or f"{names[0][:80]}-and-{len(names) - 1}-more"


def sequential_of(plan: Plan | None) -> ExperimentSpec | None:
    """The experiment of ``plan`` whose seeds are added until its comparison is decided, if any."""
    return next((e for e in plan.experiments if e.until_decided is not None), None) if plan else None


class _Name(BaseModel):
    name: SafeName
    until_decided: UntilDecided | None = None


class _Key(BaseModel):
    key: str


class PlanOutline(BaseModel):
    """Keys and names of a plan; what the runs are is passed over."""

    schema_version: Literal[2]
    experiments: Annotated[tuple[_Name, ...], FailFast(), Field(min_length=1)]
    runs: Annotated[tuple[_Key, ...], FailFast()]


def merge_plans(earlier: Plan | None, experiment: ExperimentSpec, runs: Sequence[RunSpec]) -> Plan:
    """``earlier`` with the grid of ``experiment`` instead of that of the same name."""
    grids = {e.name: e for e in earlier.experiments} if earlier else {}
    grids[experiment.name] = experiment
    planned = {run.key: run for run in earlier.runs if run.experiment != experiment.name} if earlier else {}
    for run in runs:
        key = run.migrated_from or run.key
        # The key was computed from the specification right here: once is enough for ten thousand runs.
        planned.setdefault(key, PlannedRun.model_construct(key=key, spec=run, experiment=experiment.name))
    first = next(iter(grids.values()))
    return Plan(
        name=first.name,
        description=first.description,
        experiments=tuple(grids.values()),
        runs=tuple(planned.values()),
    )


@dataclass(frozen=True)
class Status:
    """How far a store is: ``total`` = ``done`` + ``failed`` + ``missing``."""

    total: int
    done: int
    failed: int
    missing: int

    def as_dict(self) -> dict[str, int]:
        """The four counts by name.

        >>> Status(total=3, done=1, failed=1, missing=1).as_dict()
        {'total': 3, 'done': 1, 'failed': 1, 'missing': 1}
        """
        return asdict(self)


def status_of(results: Iterable[RunResult | IndexEntry], plan: Plan | PlanOutline | None) -> Status:
    """Counts over the runs of ``plan``; of ``results`` themselves where there is none."""
    outcomes = {result.key: result.status for result in results}
    planned = {run.key for run in plan.runs} if plan else set(outcomes)
    states = [outcomes.get(key) for key in planned]
    return Status(
        total=len(planned),
        done=states.count("done"),
        failed=states.count("failed"),
        missing=states.count(None),
    )
