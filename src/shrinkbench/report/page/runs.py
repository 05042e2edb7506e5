"""What the page tells of single runs, as compact JSON: numbers, settings, training curves, each once."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from shrinkbench.report.statistics.metrics import metric_of, metrics_of
from shrinkbench.report.tables import amount_text
from shrinkbench.results.apart import digest_once
from shrinkbench.results.frame import column_of, metric_names
from shrinkbench.results.labels import RunLabel, label_runs
from shrinkbench.results.record import Provenance, RunResult
from shrinkbench.spec import UNCONSTRAINED, MethodSpec, Value
from shrinkbench.spec.measures import EpochRecord

POINTS = 30
"""Epochs that a training curve shows at most, as a screen can."""
_VALUES = 200_000
_FEWEST = 5


class Pool:
    """Values by number, each stored once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[Hashable, int] = {}

    def place(self, key: Hashable, value: Any) -> int:
        """The number under which ``value`` is stored; equal keys share one."""
        found = self._places.setdefault(key, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found


def describe_runs(results: Sequence[RunResult]) -> dict[str, Any]:
    """Columns of every run (failed ones first), the settings they point to, and their training curves."""
    labelled = zip(results, label_runs([result.spec for result in results]), strict=True)
    ordered = sorted(labelled, key=lambda pair: _place(*pair))
    runs = [run for run, _ in ordered]
    return {
        "ledger": _ledger(ordered) | {"settings": (settings := _Settings()).point(runs)},
        "settings": {"parts": settings.parts.values, "sets": settings.sets.values},
        "training": _training(runs),
    }


def _ledger(ordered: Sequence[tuple[RunResult, RunLabel]]) -> dict[str, Any]:
    runs = [run for run, _ in ordered]
    controls: dict[tuple[str, str], int] = {}  # of a method, and of any that shares it
    for row, (run, label) in enumerate(ordered):
        if run.spec.is_control and run.status == "done":
            for method in (label.method, ""):
                controls.setdefault((method, label.control_key), row)
    return {
        "key": [r.key[:12] for r in runs],
        "status": [r.status for r in runs],
        "task": _shared(label.task for _, label in ordered),
        "method": _shared(label.method for _, label in ordered),
        "amount": _shared(amount_text(label.amount, run.spec.target) for run, label in ordered),
        "seed": [r.spec.seed for r in runs],
        "metrics": {
            column_of(name): rounded(r.after.metrics.get(name) if r.after else None for r in runs)
            for name in metric_names(runs)
        },
        "headline": rounded(r.headline for r in runs),
        "before": rounded(
            r.before.metrics.get(r.spec.task.objective.headline) if r.before else None for r in runs
        ),
        "kinds": _kinds(runs),
        "compression": rounded((r.size.compression if r.size else None for r in runs), 5),
        "speedup": rounded((r.size.theoretical_speedup if r.size else None for r in runs), 5),
        "epochs": [r.epochs_run for r in runs],
        "selected": [r.selected_epoch for r in runs],
        "seconds": rounded((r.provenance.seconds for r in runs), 4),
        "error": [r.error for r in runs],
        "control": [
            None
            if run.spec.is_control
            else controls.get((label.method, label.control_key), controls.get(("", label.control_key)))
            for run, label in ordered
        ],
    }


def _kinds(runs: Sequence[RunResult]) -> dict[str, Any]:
    """How metrics are called and shown, by objective: the headline first, each under its column."""
    pool = Pool()
    at = []
    for run in runs:
        objective = run.spec.task.objective
        metrics = metrics_of(objective, ()).values()
        shown = {m.column: [m.label, m.percent, m.unit, m.short] for m in metrics}
        at.append(pool.place(objective, shown))
    return {"of": pool.values, "at": at}


def _place(result: RunResult, label: RunLabel) -> tuple[Any, ...]:
    target = result.spec.target
    amount = (target is None, target or 0.0, label.amount)
    return (result.status != "failed", label.task, label.method, amount, result.spec.seed, result.key)


def _shared(texts: Iterable[str]) -> dict[str, list[Any]]:
    """A column of few distinct texts: the texts, and the number of each row's."""
    pool = Pool()
    at = [pool.place(text, text) for text in texts]
    return {"of": pool.values, "at": at}


class _Settings:
    """Settings of runs in parts (data, network, method, ...), which thousands of runs share."""

    def __init__(self) -> None:
        self.parts, self.sets = Pool(), Pool()
        self._places: dict[tuple[str, int], int] = {}

    def point(self, runs: Iterable[RunResult]) -> list[int]:
        """For each run the number of its set of parts; its seed stands in the ledger."""
        return [self._set(run) for run in runs]

    def _set(self, run: RunResult) -> int:
        spec = run.spec
        named = {
            "task": spec.task.objective,
            "data": spec.data,
            "network": spec.model,
            "weights": spec.weights,
            "method": spec.method,
            "amount": spec.amount,
            "recipe": spec.recipe,
            "search": spec.search,
        }
        places = [self._part(name, value) for name, value in named.items() if value is not None]
        names = ("prune_classifier", "prune_biases", "prune_embeddings")
        rest: dict[str, Any] = {name: getattr(spec, name) for name in names}
        if spec.constraints != UNCONSTRAINED:
            rest |= {f"constraints.{name}": value for name, value in spec.constraints.model_dump().items()}
        rest |= {f"extra.{extra.name}": digest_once(extra)[:12] for extra in spec.extra}
        places += [self._plain("", rest), self._plain("machine", _machine(run.provenance))]
        return self.sets.place(tuple(places), places)

    def _part(self, name: str, value: Value) -> int:
        same = (name, id(value))  # of a run, which outlives this
        if same not in self._places:
            self._places[same] = self.parts.place(
                (name, digest_once(value)), dict(_flatten(name, _dump(value)))
            )
        return self._places[same]

    def _plain(self, name: str, values: Mapping[str, Any]) -> int:
        return self.parts.place((name, *values.items()), dict(_flatten(name, values)))


def _dump(value: Value) -> dict[str, Any]:
    """All fields; a method whose proportions another one takes over is named with its digest."""
    fields = value.model_dump(mode="json")
    if isinstance(value, MethodSpec) and value.allocation.like is not None:
        like = value.allocation.like
        fields["allocation"]["like"] = f"{like.name} ({digest_once(like)[:12]})"
    return fields


def _machine(where: Provenance) -> dict[str, Any]:
    """Where a run happened, without what differs in every run."""
    names = ("host", "device", "threads", "processor", "python", "platform", "commit")
    versions = {f"versions.{name}": version for name, version in sorted(where.versions.items())}
    return {name: getattr(where, name) for name in names} | versions


def _flatten(path: str, value: Any) -> Iterable[tuple[str, str]]:
    """Settings by dotted path, as text; lists and empty mappings stay whole."""
    if isinstance(value, Mapping) and value:
        for name, entry in value.items():
            yield from _flatten(f"{path}.{name}".lstrip("."), entry)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)


def _training(runs: Sequence[RunResult]) -> dict[str, Any]:
    """Curves of all runs: numbers of epochs, learning rate, training loss and validation metrics in a pool.

    A curve is ``[digits, first, step, ...]``: differences of values rounded to four digits of its largest.
    """
    metrics = list(dict.fromkeys(name for run in runs for epoch in run.epochs[:1] for name in epoch.validation))
    longest = max((len(run.epochs) for run in runs), default=0)
    points = max(_FEWEST, min(POINTS, _VALUES // max(1, len(runs) * (1 + len(metrics)))))
    pool = Pool()
    return {
        "columns": [
            {"key": "train_loss", "label": "training loss", "percent": False, "headline": False},
            *(_column(runs, name) for name in metrics),
            {"key": "learning_rate", "label": "learning rate", "percent": False, "headline": False},
        ],
        "runs": [_pointers(run, metrics, points, pool) for run in runs],
        "curves": pool.values,
        "points": points,
        "longest": longest,
    }


def _column(runs: Sequence[RunResult], name: str) -> dict[str, Any]:
    objectives = dict.fromkeys(run.spec.task.objective for run in runs)
    known = {metric.name: metric_of(metric) for objective in objectives for metric in objective.metrics}
    headlines = {objective.headline for objective in objectives}
    return {
        "key": f"validation_{name}",
        "label": f"validation {known[name].short if name in known else name}",
        "percent": name in known and known[name].percent,
        "headline": name in headlines,
    }


def _pointers(run: RunResult, metrics: Sequence[str], points: int, pool: Pool) -> list[int | None] | None:
    """Which curves of ``pool`` are a run's epochs and columns; ``None`` without any epoch."""
    kept = thin(run.epochs, points, run.selected_epoch)
    if not kept:
        return None
    curves: list[list[float | None]] = [[e.train_loss for e in kept]]
    curves += [[e.validation.get(name) for e in kept] for name in metrics]
    curves += [[e.learning_rate for e in kept]]
    numbers = tuple(e.epoch for e in kept)
    coded = [(0, numbers[0], *(b - a for a, b in pairwise(numbers))), *(code(curve) for curve in curves)]
    return [None if curve is None else pool.place(curve, curve) for curve in coded]


def thin(epochs: Sequence[EpochRecord], points: int, selected: int | None) -> list[EpochRecord]:
    """At most ``points`` epochs at even distances, the first and the last among them, and the selected one."""
    if len(epochs) <= points:
        return list(epochs)
    chosen = set(np.linspace(0, len(epochs) - 1, points).round().astype(int).tolist())
    return [e for index, e in enumerate(epochs) if index in chosen or e.epoch == selected]


def code(values: Sequence[float | None]) -> tuple[int, ...] | None:
    """Values as decimal digits, the first and then differences; ``None`` where one is missing.

    >>> code([0.5, 0.75, 0.7])
    (4, 5000, 2500, -500)
    """
    present = [value for value in values if value is not None]
    if len(present) < len(values):
        return None
    largest = max(map(abs, present))
    digits = 3 - math.floor(math.log10(largest)) if largest > 0 else 0
    digits = min(digits, 12)
    whole = [round(value * 10.0**digits) for value in present]
    return (digits, whole[0], *(b - a for a, b in pairwise(whole)))


def rounded(values: Iterable[float | None], digits: int = 6) -> list[float | None]:
    """Values to ``digits`` significant digits; undefined ones become null."""
    return [number(value, digits) for value in values]


def number(value: float | None, digits: int = 6) -> float | None:
    """A value to ``digits`` significant digits, whole where it is; null where undefined.

    >>> number(0.123456789), number(4.0), number(float("nan"))
    (0.123457, 4, None)
    """
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
