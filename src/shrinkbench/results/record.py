"""One run's outcome, as it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, FailFast, Field, model_validator

from shrinkbench.spec import DETECTION, RunSpec, SeedsAdded, Value
from shrinkbench.spec.measures import (
    Cost,
    Count,
    EpochRecord,
    Latency,
    LayerDensity,
    NotNegative,
    Quality,
    Ratio,
    Size,
    Spent,
    WeightHistogram,
)
from shrinkbench.spec.value import Digest

__all__ = [
    "SCHEMA_VERSION",
    "Cost",
    "EpochRecord",
    "Latency",
    "LayerDensity",
    "Provenance",
    "Quality",
    "RunResult",
    "Size",
    "Spent",
    "TrainedSmaller",
    "WeightHistogram",
]

SCHEMA_VERSION = 2


class TrainedSmaller(Value):
    """Of the trainings of masks that take units out, how many ran on the physically smaller network.

    ``trainings`` counts them, those between rounds too; ``smaller`` those that did so. ``masked_because`` tells
    why the first of the others did not.
    """

    trainings: Count = 0
    smaller: Count = 0
    masked_because: str = ""

    @model_validator(mode="after")
    def _is_a_part(self) -> TrainedSmaller:
        if self.smaller > self.trainings or (self.smaller == self.trainings) != (not self.masked_because):
            raise ValueError("a training was on the smaller network, or there is a reason why it was not")
        return self

    def with_smaller(self) -> TrainedSmaller:
        """After one more training, on the smaller network."""
        return TrainedSmaller(
            trainings=self.trainings + 1, smaller=self.smaller + 1, masked_because=self.masked_because
        )

    def with_masked(self, because: str) -> TrainedSmaller:
        """After one more training, on the masked network."""
        return TrainedSmaller(
            trainings=self.trainings + 1, smaller=self.smaller, masked_because=self.masked_because or because
        )


class Provenance(Value):
    """Where and when a run happened: the only part in which two runs of one key may differ.

    ``smaller`` is set where training on physically smaller networks was asked for, ``uncompiled`` where steps
    were to be compiled: why those of the last training were not, and nothing where they were. ``kept`` holds
    the digests of the masks and weights that lie beside the result, where they were kept. ``published_as`` is
    what papers call the network, as its card has it: a report loads no network. ``seeds_added`` are the rules
    by which seeds were added until decided, where they were: they judge the runs without a plan, too.
    """

    started: str
    seconds: NotNegative
    host: str
    device: str
    threads: Count
    processes: Count = 1  # that trained together, with as many threads each
    python: str
    platform: str
    processor: str
    versions: dict[str, str]
    commit: str | None = None
    command: str = ""
    latency: tuple[Latency, ...] = ()
    smaller: TrainedSmaller | None = None
    uncompiled: str | None = None
    kept: dict[Literal["masks", "weights"], Digest] = Field(default_factory=dict)
    published_as: tuple[str, ...] = ()
    seeds_added: SeedsAdded | None = Field(default=None, exclude_if=lambda added: added is None)


class RunResult(Value):
    """A finished or failed run. ``error`` is set exactly when ``status`` is ``failed``.

    Qualities hold the metrics of the run's task by name, each within its bounds; a run that is done has all of
    them ``after`` fine-tuning, and its size.

    ``reachable`` is the largest compression that could be met, where a run failed since its own could not; the
    largest speedup where a speedup was asked for.

    ``before`` and ``after`` fine-tuning are measured on the test split; ``selected_epoch`` is the epoch whose
    weights ``after`` belongs to, chosen on the validation split alone (0: no epoch was run). ``further``
    holds the quality after fine-tuning on extra evaluation splits, by name. ``references`` maps ``method``,
    ``model`` and ``dataset`` to keys of references.bib. ``cost`` was stored as
    ``budget`` once. ``migrated_spec`` is the specification as schema 1
    stored it, from which the key of a migrated run follows.
    """

    schema_version: Literal[2] = 2
    key: Digest
    spec: RunSpec
    status: Literal["done", "failed"]
    error: str | None = None
    reachable: Ratio | None = None
    size: Size | None = None
    before: Quality | None = None
    after: Quality | None = None
    validation: Quality | None = None
    further: dict[str, Quality] = Field(default_factory=dict)
    selected_epoch: Count | None = None
    epochs_run: Count | None = None
    epochs: Annotated[tuple[EpochRecord, ...], FailFast(), Field(max_length=20_000)] = ()
    layers: dict[str, LayerDensity] = Field(default_factory=dict)
    weight_histogram: WeightHistogram | None = None
    references: dict[str, str] = Field(default_factory=dict)
    cost: Cost | None = Field(default=None, validation_alias=AliasChoices("cost", "budget"))
    provenance: Provenance
    migrated_spec: dict[str, Any] | None = None

    @property
    def headline(self) -> float | None:
        """The metric that comparisons of this task lead with, after fine-tuning, where it was measured."""
        return self.after.metrics.get(self.spec.task.objective.headline) if self.after is not None else None

    @model_validator(mode="after")
    def _is_whole(self) -> RunResult:
        if (self.status == "failed") != (self.error is not None):
            raise ValueError("a result has an error exactly when it failed")
        if self.status == "done" and self.reachable is not None:
            raise ValueError("a run that is done has met its compression, and names none that it could meet")
        if self.status == "done" and (self.after is None or self.size is None):
            raise ValueError("a run that is done has a size and a quality after fine-tuning")
        if self.status == "failed" and self.after is not None:
            raise ValueError("a run that failed has no quality after fine-tuning")
        for place, name in self._lacking():
            raise ValueError(f"{place} was measured without '{name}', a metric of its task")
        unasked = sorted(self.further.keys() - {extra.name for extra in self.spec.extra})
        if unasked:
            raise ValueError(f"the specification asks for no extra evaluation '{unasked[0]}'")
        return self

    def _lacking(self) -> Iterator[tuple[str, str]]:
        """Places that lack the metric that the task leads with or, after fine-tuning, any of its metrics.

        A class of which no image shows an object has no precision; the mean over those that do has to be there.
        """
        objective = self.spec.task.objective
        named = {"after": self.after, "before": self.before, "validation": self.validation}
        named |= {f"further.{name}": quality for name, quality in self.further.items()}
        for place, quality in named.items():
            names = [objective.headline]
            if place == "after" and objective.headline != DETECTION.headline:
                names += [metric.name for metric in objective.metrics]
            yield from ((place, name) for name in names if quality and name not in quality.metrics)

    @model_validator(mode="after")
    def _is_within_bounds(self) -> RunResult:
        known = {metric.name: metric for metric in self.spec.task.objective.metrics}
        records = [quality.metrics for quality in (self.before, self.after, self.validation) if quality]
        records += [quality.metrics for quality in self.further.values()]
        records += [epoch.validation for epoch in self.epochs]
        for metrics in records:
            for name, value in metrics.items():
                if name not in known:
                    raise ValueError(f"the task has no metric '{name}'")
                complaint = known[name].complaint(value)
                if complaint:
                    raise ValueError(complaint)
        return self
