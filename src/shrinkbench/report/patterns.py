"""What pruning left in each stage of a network, averaged over networks that were pruned alike.

What is counted in one network is a function of its layers (:func:`shrinkbench.metrics.patterns.counted`), which
takes the network itself; here are the groups, means and tables of what it gives.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from shrinkbench.report.tables import achieved_text, slugs
from shrinkbench.results.labels import distinct_runs, label_runs
from shrinkbench.results.record import RunResult
from shrinkbench.spec import Amount, DataSpec
from shrinkbench.spec.measures import LayerDensity

Layers = Mapping[str, LayerDensity]
Place = tuple[object, ...]
Count = Callable[[Layers], Mapping[Place, float]]
"""What is kept at each place of one network, such as a stage; all networks of a series have the same places."""


@dataclass(frozen=True)
class Column:
    """Networks pruned equally far: how far in words, the mean compression that was reached, their layers."""

    name: str
    compression: float
    layers: tuple[Layers, ...]


@dataclass(frozen=True)
class Series:
    """Networks of one task that one method pruned, a column for each amount; ``data`` is unknown for masks."""

    title: str
    model: str
    data: DataSpec | None
    columns: tuple[Column, ...]


def selected(
    results: Iterable[RunResult],
    *,
    model: str | None = None,
    dataset: str | None = None,
    method: str | None = None,
    amount: Amount | None = None,
) -> list[RunResult]:
    """Finished runs of what was chosen, controls included.

    ``method`` is a method's name, the name that it is a variant of, or its label in these results; ``amount``
    is how much it pruned.
    """
    done = [r for r in results if r.status == "done"]
    labels = label_runs([r.spec for r in done])
    return [
        r
        for r, label in zip(done, labels, strict=True)
        if model in (None, r.spec.model.name)
        and dataset in (None, r.spec.data.name)
        and method in (None, r.spec.method.name, r.spec.method.base, label.method)
        and (amount in (None, r.spec.amount) or r.spec.is_control)
    ]


def series_of_runs(results: Sequence[RunResult]) -> list[Series]:
    """A series for each task and method, by label; columns in order of the compression reached."""
    groups: dict[tuple[str, str], dict[str, list[RunResult]]] = defaultdict(lambda: defaultdict(list))
    for result, label in distinct_runs(r for r in results if is_pruned(r)):
        groups[label.task, label.method][label.amount].append(result)
    found = []
    for (task, method), amounts in sorted(groups.items()):
        spec = next(iter(amounts.values()))[0].spec
        columns = sorted((_column(*item) for item in amounts.items()), key=lambda c: c.compression)
        found.append(Series(f"{task}, {method}", spec.model.name, spec.data, tuple(columns)))
    return found


def is_pruned(result: RunResult) -> bool:
    """Whether something was pruned and the run tells what was left where."""
    return not result.spec.is_control and bool(result.layers)


def _column(amount: str, runs: Sequence[RunResult]) -> Column:
    reached = fmean(r.size.compression for r in runs if r.size)
    differs = bool(achieved_text(runs[0].spec.target, reached))
    name = f"{amount} ({reached:.2g}x)" if differs else amount
    return Column(name, reached, tuple(r.layers for r in runs))


def series_of_masks(model: str, networks: Iterable[tuple[float, Layers]]) -> Series:
    """The series of networks by (compression, layers); those of nearly one compression stand together."""
    alike: dict[str, list[tuple[float, Layers]]] = defaultdict(list)
    for compression, layers in networks:
        alike[f"{compression:.2g}"].append((compression, layers))
    columns = [
        Column(f"{fmean(c for c, _ in found):.3g}x", fmean(c for c, _ in found), tuple(ls for _, ls in found))
        for found in alike.values()
    ]
    count = sum(len(column.layers) for column in columns)
    ordered = sorted(columns, key=lambda c: c.compression)
    return Series(f"{model}, {count} masks", model, None, tuple(ordered))


def pattern_rows(series: Series, count: Count, places: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each place, with ``places`` as names of its parts, and mean, deviation and n by column."""
    rows: dict[Place, dict[str, Any]] = {}
    for column in series.columns:
        each = [count(layers) for layers in column.layers]
        for place in each[0]:
            values = [counted[place] for counted in each]
            spread = stdev(values) if len(values) > 1 else None
            row = rows.setdefault(place, dict(zip(places, place, strict=True)))
            row[column.name] = {"mean": fmean(values), "std": spread, "n": len(values)}
    return list(rows.values())


def stage_shares(series: Series, count: Count) -> list[tuple[Column, tuple[tuple[float, ...], ...]]]:
    """For every column the mean share at each place of every stage; a place's first part is its stage."""
    found = []
    for column in series.columns:
        each = [count(layers) for layers in column.layers]
        stages: dict[object, list[float]] = defaultdict(list)
        for place in each[0]:
            stages[place[0]].append(fmean(counted[place] for counted in each))
        found.append((column, tuple(tuple(shares) for shares in stages.values())))
    return found


def in_text(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of :func:`pattern_rows` as text: mean and sample standard deviation.

    >>> in_text({"stage": 1, "2x": {"mean": 0.5, "std": 0.1, "n": 2}, "4x": {"mean": 3.0, "std": None, "n": 1}})
    {'stage': 1, '2x': '0.500 ± 0.100', '4x': '3.0'}
    """
    return {name: _text(value) if isinstance(value, dict) else value for name, value in row.items()}


def _text(value: Mapping[str, Any]) -> str:
    digits = 1 if value["mean"] > 1 else 3
    spread = "" if value["std"] is None else f" ± {value['std']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{spread}"


def with_weights(results: Iterable[RunResult]) -> dict[str, list[RunResult]]:
    """Pruned runs that recorded their weights, by task and amount as a file is named after them."""
    chosen = (r for r in results if r.weight_histogram is not None and not r.spec.is_control)
    groups: dict[tuple[str, str], list[RunResult]] = defaultdict(list)
    for result, label in distinct_runs(chosen):
        groups[label.task, label.amount].append(result)
    names = slugs(f"{task} {amount.replace('%', ' percent')}" for task, amount in groups)
    return dict(zip(names.values(), groups.values(), strict=True))
