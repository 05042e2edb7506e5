"""One run's outcome, as it is stored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shrinkbench.spec import RunSpec, Value
from shrinkbench.spec.measures import (
    Budget,
    EpochRecord,
    Latency,
    LayerDensity,
    Quality,
    Size,
    Spent,
    WeightHistogram,
)

__all__ = [
    "SCHEMA_VERSION",
    "Budget",
    "EpochRecord",
    "Latency",
    "LayerDensity",
    "Provenance",
    "Quality",
    "RunResult",
    "Size",
    "Spent",
    "WeightHistogram",
]

SCHEMA_VERSION = 1


class Provenance(Value):
    """Where and when a run happened: the only part in which two runs of one key may differ."""

    started: str
    seconds: float
    host: str
    device: str
    threads: int
    python: str
    platform: str
    processor: str
    versions: dict[str, str]
    commit: str | None = None
    command: str = ""
    latency: tuple[Latency, ...] = ()


class RunResult(Value):
    """A finished or failed run. ``error`` is set exactly when ``status`` is ``failed``.

    ``before`` and ``after`` fine-tuning are measured on the test split; ``selected_epoch`` is the epoch whose
    weights ``after`` belongs to, chosen on the validation split alone (0: no epoch was run). ``further``
    holds the quality after fine-tuning on extra evaluation splits, by name. ``references`` maps ``method``,
    ``model`` and ``dataset`` to keys of references.bib.
    """

    schema_version: Literal[1] = 1
    key: str
    spec: RunSpec
    status: Literal["done", "failed"]
    error: str | None = None
    size: Size | None = None
    before: Quality | None = None
    after: Quality | None = None
    validation: Quality | None = None
    further: dict[str, Quality] = Field(default_factory=dict)
    selected_epoch: int | None = None
    epochs_run: int | None = None
    epochs: tuple[EpochRecord, ...] = ()
    layers: dict[str, LayerDensity] = Field(default_factory=dict)
    weight_histogram: WeightHistogram | None = None
    references: dict[str, str] = Field(default_factory=dict)
    budget: Budget | None = None
    provenance: Provenance
