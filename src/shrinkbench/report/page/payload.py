"""What the page draws, as compact JSON: curves, layer densities, weight histograms, the ledger of runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from shrinkbench.plotting import series_styles
from shrinkbench.report.pitfalls import Pitfall
from shrinkbench.report.statistics.compare import groups, records
from shrinkbench.report.statistics.observations import AXES, Observations, aggregate
from shrinkbench.results.record import RunResult

_DASHES = ("", "6 2", "1.5 2", "6 2 1.5 2", "9 3")


def build_payload(
    results: Sequence[RunResult], observations: Observations, pitfalls: Sequence[Pitfall]
) -> dict[str, Any]:
    """Everything that scripts read; numbers are rounded to what a screen can show."""
    finished = {r.key: r for r in results if r.status == "done"}
    axes = [axis for axis in AXES if observations.pruned[axis].notna().any()]
    metrics = [metric for metric in observations.metrics if observations.pruned[metric].notna().any()]
    return {
        "tasks": [_task(observations, task) for task in observations.tasks],
        "methods": [
            {"name": name, "colour": s.colour, "marker": s.marker, "dash": _DASHES[i % len(_DASHES)]}
            for i, (name, s) in enumerate(series_styles(observations.methods).items())
        ],
        "axes": [{"key": axis, "label": AXES[axis]} for axis in axes],
        "metrics": [
            {"key": m, "label": observations.metrics[m].label, "percent": observations.metrics[m].percent}
            for m in metrics
        ],
        "curves": _curves(observations, axes, metrics),
        "control": _control(observations, metrics),
        "layers": _layers(finished, observations),
        "histograms": _histograms(finished, observations),
        "ledger": _ledger(results, observations),
        "pitfalls": [
            [{"task": p.task, "axis": p.axis, "metric": p.metric, "methods": p.methods} for p in pitfall.panels]
            for pitfall in pitfalls
        ],
    }


def as_script(payload: Mapping[str, Any]) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(payload, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _task(observations: Observations, task: str) -> dict[str, str]:
    rows = observations.pruned if (observations.pruned["task"] == task).any() else observations.control
    row = rows[rows["task"] == task].iloc[0]
    rest = task.removeprefix(f"{row['dataset']} / {row['model']}").removeprefix(" / ")
    return {"label": task, "dataset": row["dataset"], "model": row["model"], "variant": rest}


def _curves(observations: Observations, axes: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """task -> method -> columns by compression target: means, deviations and every seed's value."""
    table = aggregate(observations.pruned, [*axes, *metrics])
    columns = (*axes, *metrics)
    seeds = {
        cell: {c: rounded(values) for c, values in zip(columns, zip(*rows, strict=True), strict=True)}
        for cell, rows in _cells(observations, *columns)
    }
    found: dict[str, Any] = {}
    for (task, method), part in groups(table, "task", "method"):
        curve: dict[str, Any] = {"target": rounded(part["compression_target"]), "n": part["n"].tolist()}
        curve |= {axis: rounded(part[axis]) for axis in axes}
        for metric in metrics:
            curve[metric] = {
                "mean": rounded(part[metric]),
                "std": rounded(part[f"{metric}_std"]),
                "low": rounded(part[f"{metric}_low"]),
                "high": rounded(part[f"{metric}_high"]),
                "seeds": [seeds[task, method, target][metric] for target in part["compression_target"]],
            }
        curve["seed_x"] = {
            axis: [seeds[task, method, target][axis] for target in part["compression_target"]] for axis in axes
        }
        found.setdefault(task, {})[method] = curve
    return found


def _control(observations: Observations, metrics: Sequence[str]) -> dict[str, Any]:
    found = {}
    for task, part in groups(observations.control, "task"):
        found[task] = {
            metric: {
                "mean": number(part[metric].mean()),
                "std": number(part[metric].std(ddof=1)),
                "n": len(part),
            }
            for metric in metrics
        }
    return found


def _cells(observations: Observations, *columns: str) -> Iterator[tuple[Any, list[Any]]]:
    """What the runs of each cell have in ``columns``; one frame for each would take longer than the rest."""
    cells: dict[Any, list[Any]] = {}
    for row in records(observations.pruned[["task", "method", "compression_target", *columns]]):
        cells.setdefault(tuple(row[:3]), []).append(row[3:])
    yield from cells.items()


def _layers(finished: Mapping[str, RunResult], observations: Observations) -> dict[str, Any]:
    """task -> layer names and, by method and target, mean densities over seeds."""
    found: dict[str, Any] = {}
    for (task, method, target), keys in _cells(observations, "key"):
        runs = [finished[key].layers for (key,) in keys if finished[key].layers]
        if not runs:
            continue
        names = list(runs[0])
        runs = [run for run in runs if list(run) == names]
        entry = found.setdefault(
            task, {"names": names, "totals": [d.total for d in runs[0].values()], "densities": {}}
        )
        if entry["names"] != names:
            continue
        mean = np.mean([[d.kept / max(1, d.total) for d in run.values()] for run in runs], axis=0)
        entry["densities"].setdefault(method, {})[f"{target:g}"] = rounded(mean, 4)
    return found


def _histograms(finished: Mapping[str, RunResult], observations: Observations) -> dict[str, Any]:
    """task -> method -> target -> counts of the first seed's weights in equal bins."""
    found: dict[str, Any] = {}
    for (task, method, target), keys in _cells(observations, "key"):
        run = finished[keys[0][0]]
        histogram = run.weight_histogram
        if histogram is None:
            continue
        found.setdefault(task, {}).setdefault(method, {})[f"{target:g}"] = {
            "low": number(histogram.edges[0]),
            "high": number(histogram.edges[-1]),
            "before": list(histogram.before),
            "after": list(histogram.after),
            "seed": run.spec.seed,
        }
    return found


def _ledger(results: Sequence[RunResult], observations: Observations) -> dict[str, list[Any]]:
    """Every run, failed ones first, as columns."""
    labels = pd.concat([observations.pruned, observations.control])[["key", "task"]]
    tasks = dict(zip(labels["key"], labels["task"], strict=True))
    ordered = sorted(results, key=_place)
    return {
        "key": [r.key[:12] for r in ordered],
        "status": [r.status for r in ordered],
        "task": [tasks.get(r.key, f"{r.spec.data.name} / {r.spec.model}") for r in ordered],
        "method": [r.spec.method.name for r in ordered],
        "target": [r.spec.compression for r in ordered],
        "seed": [r.spec.seed for r in ordered],
        "top1": rounded(r.after.top1 if r.after else None for r in ordered),
        "compression": rounded((r.size.compression if r.size else None for r in ordered), 5),
        "speedup": rounded((r.size.theoretical_speedup if r.size else None for r in ordered), 5),
        "epochs": [r.epochs_run for r in ordered],
        "seconds": rounded(r.provenance.seconds for r in ordered),
        "error": [r.error for r in ordered],
    }


def _place(result: RunResult) -> tuple[Any, ...]:
    spec = result.spec
    return (
        result.status != "failed",
        spec.data.name,
        spec.model,
        spec.method.name,
        spec.compression,
        spec.seed,
        result.key,
    )


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
