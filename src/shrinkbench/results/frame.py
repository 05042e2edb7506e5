"""Results as a table: one row per run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from shrinkbench.cells import as_text
from shrinkbench.results.apart import digest_once
from shrinkbench.results.labels import RunLabel, label_runs
from shrinkbench.results.record import Cost, Latency, Quality, RunResult
from shrinkbench.spec import CLASSIFICATION
from shrinkbench.spec.training_cost import total

COLUMNS: dict[str, str] = {
    "key": "string",
    "task": "string",
    "dataset": "string",
    "model": "string",
    "published_as": "string",
    "weights": "string",
    "method": "string",
    "method_alone": "string",
    "amount": "string",
    "compression_target": "float64",
    "round_to": "Int64",
    "ignore": "string",
    "max_ratio": "float64",
    "seed": "int64",
    "recipe": "string",
    "control": "string",
    "control_key": "string",
    "task_key": "string",
    "method_key": "string",
    "train_images": "Int64",
    "validation_images": "Int64",
    "test_images": "Int64",
    "recipe_epochs": "Int64",
    "recipe_learning_rate": "float64",
    "recipe_key": "string",
    "status": "string",
    "compression": "float64",
    "theoretical_speedup": "float64",
    "parameters_kept": "Int64",
    "multiply_adds_kept": "Int64",
    "top1": "float64",
    "top5": "float64",
    "loss": "float64",
    "top1_before_finetuning": "float64",
    "top5_before_finetuning": "float64",
    "loss_before_finetuning": "float64",
    "epochs_run": "Int64",
    "measured_speedup": "float64",
    "training_epochs": "float64",
    "training_images": "Int64",
    "training_multiply_adds": "float64",
    "seconds": "float64",
    "error": "string",
}
"""Columns of the result table, in order, with their pandas types; what a failed run lacks is missing.

Rows belong together by ``task`` (or ``task_key``): dataset, subset, network and initial weights. ``method``
tells methods of different settings apart, ``method_alone`` the same without the recipe; ``control_key`` is the
key of the run's own control.
``published_as`` is what papers call the network, several names joined by semicolons.
``amount`` is what was asked for, ``compression_target`` the same where it was a compression, and
``compression`` what was achieved; ``round_to``, ``ignore`` (patterns, joined by commas) and ``max_ratio`` are
its bounds, empty where there were none. ``*_images`` are empty where all images are used.
"""

_DERIVED = ("_std", "_low", "_high", "_change", "_before_finetuning")
"""Endings of what is computed from a metric's column."""
_TAKEN = {
    *(COLUMNS.keys() - {"top1", "top5", "loss"}),
    *(
        "headline",
        "is_control",
        "chance",
        "training_cost",
        "epochs_allowed",
        "n",
        "latency",
        "disputed",
        "source",
    ),
}


def column_of(metric: str) -> str:
    """The column of a metric: its name, with ``metric_`` before one that would be mistaken for another column.

    >>> column_of("top1"), column_of("seed")
    ('top1', 'metric_seed')
    """
    mistaken = metric in _TAKEN or metric.endswith(_DERIVED) or metric.startswith("metric_")
    return f"metric_{metric}" if mistaken else metric


def to_frame(results: Iterable[RunResult], *, labels: Sequence[RunLabel] = ()) -> pd.DataFrame:
    """One row per run, in order of task, method, compression and seed.

    ``labels`` are what the runs are called, by default as they themselves need to be told apart.

    The control has one row per method and seed (``compression_target`` 1) whose numbers come from one shared
    run: rows of one ``control_key`` are one measurement. Metrics of the tasks are columns by their names
    (:func:`column_of`); extra evaluation splits follow as further columns ``<split>_<metric>``.
    """
    results = list(results)
    labels = labels or label_runs([result.spec for result in results])
    metrics = metric_names(results)
    splits = sorted({split for result in results for split in result.further})
    rows = [_row(result, label, metrics) for result, label in zip(results, labels, strict=True)]
    suffixes = ("", "_before_finetuning")
    own = {f"{column_of(name)}{suffix}": "float64" for suffix in suffixes for name in metrics}
    further = {f"{split}_{column_of(name)}": "float64" for split in splits for name in metrics}
    types = COLUMNS | own | further
    frame = pd.DataFrame(rows, columns=list(types), dtype="object").astype(types)
    order = ["task", "method", "compression_target", "amount", "seed", "key"]
    return frame.sort_values(order, ignore_index=True, kind="stable")


def metric_names(results: Iterable[RunResult]) -> tuple[str, ...]:
    """Metrics of all tasks together, in the order of the first that has them; classification's come always."""
    objectives = (CLASSIFICATION, *(result.spec.task.objective for result in results))
    return tuple(dict.fromkeys(metric.name for objective in objectives for metric in objective.metrics))


def _row(result: RunResult, label: RunLabel, metrics: tuple[str, ...]) -> dict[str, Any]:
    spec, size = result.spec, result.size
    return {
        "key": result.key,
        "task": label.task,
        "dataset": spec.data.name,
        "model": spec.model.name,
        "published_as": "; ".join(result.provenance.published_as) or None,
        "weights": spec.weights.name,
        "method": label.method,
        "method_alone": label.method_alone,
        "amount": label.amount,
        "compression_target": spec.target,
        "round_to": spec.constraints.round_to,
        "ignore": ", ".join(spec.constraints.ignore) or None,
        "max_ratio": spec.constraints.max_ratio,
        "seed": spec.seed,
        "recipe": spec.recipe.name,
        "control": label.control,
        "control_key": label.control_key,
        "task_key": digest_once(spec.task),
        "method_key": digest_once(spec.method),
        "train_images": spec.data.train_images,
        "validation_images": spec.data.validation_images,
        "test_images": spec.data.test_images,
        "recipe_epochs": spec.recipe.epochs,
        "recipe_learning_rate": spec.recipe.learning_rate,
        "recipe_key": digest_once(spec.recipe),
        "status": result.status,
        "compression": size.compression if size else None,
        "theoretical_speedup": size.theoretical_speedup if size else None,
        "parameters_kept": size.parameters_kept if size else None,
        "multiply_adds_kept": size.multiply_adds_kept if size else None,
        **_values("", "", result.after, metrics),
        **_values("", "_before_finetuning", result.before, metrics),
        "epochs_run": result.epochs_run,
        "measured_speedup": measured_speedup(result),
        **_spent(result.cost),
        "seconds": result.provenance.seconds,
        "error": result.error,
        **{
            name: value
            for split, quality in result.further.items()
            for name, value in _values(f"{split}_", "", quality, metrics).items()
        },
    }


def measured_speedup(result: RunResult) -> float | None:
    """Dense over pruned wall time at the largest batch timed, of the small network where there is one."""
    timed = timed_as_reported(result)
    return timed.dense_seconds / timed.seconds if timed else None


def timed_as_reported(result: RunResult) -> Latency | None:
    """The wall times that the measured speedup is taken from, if any were."""
    return max(result.provenance.latency, key=lambda t: (t.form == "small", t.batch_size), default=None)


def _spent(cost: Cost | None) -> dict[str, float | None]:
    """All phases together, pretraining included; unknown where that is."""
    spent = total(cost) if cost and cost.pretraining is not None else None
    return {
        f"training_{name}": getattr(spent, name) if spent else None
        for name in ("epochs", "images", "multiply_adds")
    }


def _values(
    prefix: str, suffix: str, quality: Quality | None, metrics: tuple[str, ...]
) -> dict[str, float | None]:
    """Metrics by column; what was not measured is missing."""
    return {
        f"{prefix}{column_of(name)}{suffix}": quality.metrics.get(name) if quality else None for name in metrics
    }


def as_csv(frame: pd.DataFrame) -> str:
    """``frame`` as comma-separated values; no text in it is a formula to a spreadsheet."""
    texts = [str(name) for name in frame if pd.api.types.is_string_dtype(frame[name])]
    return frame.assign(**{name: frame[name].map(as_text, na_action="ignore") for name in texts}).to_csv(
        index=False
    )
