"""What the page draws, as compact JSON: curves, layer densities, weight histograms, single runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from shrinkbench.plotting import series_styles
from shrinkbench.report.page.runs import describe_runs, number, rounded
from shrinkbench.report.pitfalls import Panel, Pitfall
from shrinkbench.report.result_tables import amounts_of
from shrinkbench.report.statistics.compare import groups, records, references
from shrinkbench.report.statistics.curves import own_controls
from shrinkbench.report.statistics.observations import AXES, Observations, aggregate
from shrinkbench.report.tables import achieved_text, amount_text
from shrinkbench.results.record import RunResult

_DASHES = ("", "6 2", "1.5 2", "6 2 1.5 2", "9 3")


def build_payload(
    results: Sequence[RunResult], observations: Observations, pitfalls: Sequence[Pitfall]
) -> dict[str, Any]:
    """Everything that scripts read; numbers are rounded to what a screen can show."""
    finished = {r.key: r for r in results if r.status == "done"}
    axes = [axis for axis in AXES if observations.pruned[axis].notna().any()]
    metrics = [column for column in observations.columns if observations.pruned[column].notna().any()]
    cells = aggregate(observations.pruned, [*axes, *metrics])
    return {
        "tasks": [_task(observations, task, metrics) for task in observations.tasks],
        "methods": [
            {"name": name, "colour": s.colour, "marker": s.marker, "dash": _DASHES[i % len(_DASHES)]}
            for i, (name, s) in enumerate(series_styles(observations.methods).items())
        ],
        "axes": [{"key": axis, "label": AXES[axis]} for axis in axes],
        "amounts": [amount_text(amount, target) for amount, target in amounts_of(cells).items()],
        "curves": _curves(observations, cells, axes, metrics),
        "controls": _controls(observations, metrics),
        "layers": _layers(finished, observations),
        "histograms": _histograms(finished, observations),
        **describe_runs(results),
        "pitfalls": [
            [
                {"task": p.task, "axis": p.axis, "metric": _column(observations, p), "methods": p.methods}
                for p in pitfall.panels
            ]
            for pitfall in pitfalls
        ],
    }


def _column(observations: Observations, panel: Panel) -> str:
    return observations.metric(panel.task, panel.metric).column


def as_script(payload: Mapping[str, Any]) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(payload, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _task(observations: Observations, task: str, metrics: Sequence[str]) -> dict[str, Any]:
    """A task by what it is chosen by, and its metrics, the one that it leads with first."""
    rows = observations.pruned if (observations.pruned["task"] == task).any() else observations.control
    row = rows[rows["task"] == task].iloc[0]
    rest = task.removeprefix(f"{row['dataset']} / {row['model']}").removeprefix(" / ")
    known = [metric for column, metric in observations.metrics(task).items() if column in metrics]
    return {
        "label": task,
        "dataset": row["dataset"],
        "model": row["model"],
        "variant": rest,
        "metrics": [
            {
                "key": metric.column,
                "label": metric.label,
                "short": metric.short,
                "percent": metric.percent,
                "higher": metric.higher_is_better,
                "unit": metric.unit,
            }
            for metric in known
        ],
    }


def _curves(
    observations: Observations, cells: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str]
) -> dict[str, Any]:
    """task -> method -> columns by amount: means, deviations and every seed's value; where the curve starts."""
    columns = (*axes, *metrics)
    seeds = {
        cell: {c: rounded(values) for c, values in zip(columns, zip(*rows, strict=True), strict=True)}
        for cell, rows in _cells(observations, *columns)
    }
    starts = {metric: references(observations, metric) for metric in metrics}
    changes = {metric: _changes(observations, metric) for metric in metrics}
    found: dict[str, Any] = {}
    for (task, method), part in groups(cells, "task", "method"):
        curve: dict[str, Any] = {
            "amount": [*map(amount_text, part["amount"], part["compression_target"])],
            "n": part["n"].tolist(),
        }
        curve |= {axis: rounded(part[axis]) for axis in axes}
        for metric in (metric for metric in metrics if observations.has(task, metric)):
            start = starts[metric].get((task, method))
            curve[metric] = {
                "start": number(start.mean if start else None),
                "mean": rounded(part[metric]),
                "change": [number(changes[metric].get((task, method, amount))) for amount in part["amount"]],
                "std": rounded(part[f"{metric}_std"]),
                "low": rounded(part[f"{metric}_low"]),
                "high": rounded(part[f"{metric}_high"]),
                "seeds": [seeds[task, method, amount][metric] for amount in part["amount"]],
            }
        curve["seed_x"] = {axis: [seeds[task, method, a][axis] for a in part["amount"]] for axis in axes}
        found.setdefault(task, {})[method] = curve
    return found


def _changes(observations: Observations, metric: str) -> dict[Any, float]:
    """Mean difference of the runs of each cell from their own controls; runs without one are left out."""
    change = observations.pruned[metric].astype(float) - own_controls(observations, metric)
    rows = observations.pruned.assign(change=change)
    return dict(rows.groupby(["task", "method", "amount"])["change"].mean())


def _controls(observations: Observations, metrics: Sequence[str]) -> dict[str, Any]:
    """task -> name of a control -> metric -> mean, deviation and n over seeds."""
    found: dict[str, Any] = {}
    for (task, name), part in groups(observations.control, "task", "method"):
        found.setdefault(task, {})[name] = {
            metric: {
                "mean": number(part[metric].mean()),
                "std": number(part[metric].std(ddof=1)),
                "n": len(part),
            }
            for metric in metrics
            if observations.has(task, metric)
        }
    return found


def _cells(observations: Observations, *columns: str) -> Iterator[tuple[Any, list[Any]]]:
    """What the runs of each cell have in ``columns``; one frame for each would take longer than the rest."""
    cells: dict[Any, list[Any]] = {}
    for row in records(observations.pruned[["task", "method", "amount", *columns]]):
        cells.setdefault(tuple(row[:3]), []).append(row[3:])
    yield from cells.items()


def _layers(finished: Mapping[str, RunResult], observations: Observations) -> dict[str, Any]:
    """task -> layer names and, by method and amount, mean densities over seeds and what was achieved."""
    found: dict[str, Any] = {}
    for (task, method, amount), keys in _cells(observations, "key"):
        runs = [finished[key] for (key,) in keys if finished[key].layers]
        if not runs:
            continue
        names = list(runs[0].layers)
        runs = [run for run in runs if list(run.layers) == names]
        entry = found.setdefault(
            task, {"names": names, "totals": [d.total for d in runs[0].layers.values()], "densities": {}}
        )
        if entry["names"] != names:
            continue
        shares = np.mean([[d.kept / max(1, d.total) for d in run.layers.values()] for run in runs], axis=0)
        entry["densities"].setdefault(method, {})[amount_text(amount, runs[0].spec.target)] = {
            "shares": rounded(shares, 4),
            "achieved": _achieved(runs),
        }
    return found


def _achieved(runs: Sequence[RunResult]) -> str:
    """The compression in brackets where it is another than was asked for, mean over ``runs``."""
    sizes = [run.size.compression for run in runs if run.size]
    return achieved_text(runs[0].spec.target, float(np.mean(sizes))).strip()


def _histograms(finished: Mapping[str, RunResult], observations: Observations) -> dict[str, Any]:
    """task -> method -> amount -> counts of the first seed's weights in equal bins."""
    found: dict[str, Any] = {}
    for (task, method, amount), keys in _cells(observations, "key"):
        run = finished[keys[0][0]]
        histogram = run.weight_histogram
        if histogram is None:
            continue
        found.setdefault(task, {}).setdefault(method, {})[amount_text(amount, run.spec.target)] = {
            "low": number(histogram.edges[0]),
            "high": number(histogram.edges[-1]),
            "before": list(histogram.before),
            "after": list(histogram.after),
            "seed": run.spec.seed,
            "achieved": _achieved([run]),
        }
    return found
