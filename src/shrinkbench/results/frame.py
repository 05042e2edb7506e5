"""Results as a table: one row per run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from shrinkbench.results.record import Budget, Quality, RunResult
from shrinkbench.spec.training_cost import total

COLUMNS: dict[str, str] = {
    "key": "string",
    "dataset": "string",
    "model": "string",
    "weights": "string",
    "method": "string",
    "compression_target": "float64",
    "seed": "int64",
    "recipe": "string",
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
"""Columns of the result table, in order, with their pandas types; what a failed run lacks is missing."""


def to_frame(results: Iterable[RunResult]) -> pd.DataFrame:
    """One row per run, in order of dataset, model, weights, method, compression and seed.

    The control has one row per method and seed (``compression_target`` 1) whose numbers come from one shared
    run: never pool those rows over methods. Extra evaluation splits follow as further columns
    ``<split>_top1``, ``<split>_top5``, ``<split>_loss``.
    """
    results = list(results)
    splits = sorted({split for result in results for split in result.further})
    rows = [_row(result, splits) for result in results]
    types = COLUMNS | {f"{split}_{name}": "float64" for split in splits for name in ("top1", "top5", "loss")}
    frame = pd.DataFrame(rows, columns=list(types), dtype="object").astype(types)
    order = ["dataset", "model", "weights", "recipe", "method", "compression_target", "seed", "key"]
    return frame.sort_values(order, ignore_index=True, kind="stable")


def _row(result: RunResult, splits: list[str]) -> dict[str, Any]:
    spec, size = result.spec, result.size
    return {
        "key": result.key,
        "dataset": spec.data.name,
        "model": spec.model,
        "weights": spec.weights.name,
        "method": spec.method.name,
        "compression_target": spec.compression,
        "seed": spec.seed,
        "recipe": spec.recipe.name,
        "status": result.status,
        "compression": size.compression if size else None,
        "theoretical_speedup": size.theoretical_speedup if size else None,
        "parameters_kept": size.parameters_kept if size else None,
        "multiply_adds_kept": size.multiply_adds_kept if size else None,
        **_quality("", "", result.after),
        **_quality("", "_before_finetuning", result.before),
        "epochs_run": result.epochs_run,
        "measured_speedup": measured_speedup(result),
        **_spent(result.budget),
        "seconds": result.provenance.seconds,
        "error": result.error,
        **{
            name: value
            for split in splits
            for name, value in _quality(f"{split}_", "", result.further.get(split)).items()
        },
    }


def measured_speedup(result: RunResult) -> float | None:
    """Dense over pruned wall time at the largest batch timed, of the small network where there is one."""
    timed = sorted(result.provenance.latency, key=lambda t: (t.form == "small", t.batch_size))
    return timed[-1].dense_seconds / timed[-1].seconds if timed else None


def _spent(budget: Budget | None) -> dict[str, float | None]:
    """All stages together, pretraining included; unknown where that is."""
    spent = total(budget) if budget and budget.pretraining is not None else None
    return {
        f"training_{name}": getattr(spent, name) if spent else None
        for name in ("epochs", "images", "multiply_adds")
    }


def _quality(prefix: str, suffix: str, quality: Quality | None) -> dict[str, float | None]:
    return {
        f"{prefix}{name}{suffix}": getattr(quality, name) if quality else None
        for name in ("top1", "top5", "loss")
    }
