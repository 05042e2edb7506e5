"""What the report reasons about: finished runs by task, with the control once per seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shrinkbench.results.frame import to_frame
from shrinkbench.results.record import RunResult
from shrinkbench.spec import RunSpec, digest

CONTROL = "control"
"""Name under which the unpruned network stands in every table."""


@dataclass(frozen=True)
class Metric:
    """One column that can be drawn or compared."""

    column: str
    label: str
    percent: bool = False
    higher_is_better: bool = True


METRICS = {
    metric.column: metric
    for metric in (
        Metric("top1", "top-1 accuracy", percent=True),
        Metric("top5", "top-5 accuracy", percent=True),
        Metric("loss", "test loss (nats)", higher_is_better=False),
        Metric("top1_before_finetuning", "top-1 before fine-tuning", percent=True),
        Metric("top1_change", "change in top-1 from the control", percent=True),
    )
}
AXES = {
    "compression": "compression ratio",
    "theoretical_speedup": "theoretical speedup",
    "measured_speedup": "measured speedup",
}


@dataclass(frozen=True)
class Observations:
    """Finished runs, ready to be compared.

    ``pruned`` has one row per finished run with a compression target above 1, ``control`` one per task, seed
    and recipe, whatever number of methods share it. Both carry the columns of the result table, ``task``,
    ``problem`` (the task without its recipe), ``top1_change`` (from the control of the same seed),
    ``measured_speedup`` and ``training_cost``. ``methods`` and ``tasks`` give the order of every table and
    legend.
    """

    pruned: pd.DataFrame
    control: pd.DataFrame
    tasks: tuple[str, ...]
    methods: tuple[str, ...]


def observe(results: Iterable[RunResult], *, methods: Sequence[str] = ()) -> Observations:
    """Sort finished runs into tasks; ``methods`` comes first in the order of methods.

    A task is one dataset (subset and normalisation included), network and initial weights, and the recipe
    too where one method was run with several.
    """
    done = sorted((r for r in results if r.status == "done" and r.after and r.size), key=lambda r: r.key)
    frame = to_frame(done).set_index("key").loc[[r.key for r in done]].reset_index()
    frame["method"] = method_labels([r.spec for r in done])
    frame["task"] = task_labels([r.spec for r in done])
    frame["problem"] = task_labels([r.spec for r in done], with_recipe=False)
    frame["measured_speedup"] = [_measured_speedup(r) for r in done]
    frame["training_cost"] = _training_costs(done)
    frame = frame.drop_duplicates(["task", "method", "compression_target", "seed"], ignore_index=True)
    is_control = frame["compression_target"] == 1
    control = frame[is_control].drop_duplicates(["task", "recipe", "seed"]).assign(method=CONTROL)
    reference = control.groupby(["task", "seed"])["top1"].mean()
    pruned = frame[~is_control].copy()
    for part in (control, pruned):
        pairs = pd.MultiIndex.from_frame(part[["task", "seed"]])
        part["top1_change"] = part["top1"].to_numpy() - reference.reindex(pairs).to_numpy()
    present = set(frame["method"]) - {CONTROL}
    order = ["task", "method", "compression_target", "seed"]
    return Observations(
        pruned=pruned.sort_values(order, ignore_index=True),
        control=control.sort_values(order, ignore_index=True),
        tasks=tuple(sorted(frame["task"].unique())),
        methods=tuple(dict.fromkeys([m for m in methods if m in present] + sorted(present))),
    )


def method_labels(specs: Sequence[RunSpec]) -> list[str]:
    """The method's name, with what else was pruned; one name for two definitions gets a digest."""
    definitions: dict[str, set[str]] = {}
    for spec in specs:
        definitions.setdefault(spec.method.name, set()).add(digest(spec.method))
    labels = []
    for spec in specs:
        label = spec.method.name
        if len(definitions[label]) > 1:
            label += f" {digest(spec.method)[:6]}"
        if spec.compression > 1:
            label += " + classifier" if spec.prune_classifier else ""
            label += " + biases" if spec.prune_biases else ""
        labels.append(label)
    return labels


def task_labels(specs: Sequence[RunSpec], *, with_recipe: bool = True) -> list[str]:
    """A short label for each run's task: parts that all tasks of a network share are left out.

    Names that stand for different values (a subset, another revision, an overridden recipe) get a digest.
    """
    groups: dict[tuple[str, str, str], list[int]] = {}
    for index, spec in enumerate(specs):
        identity = (digest(spec.data), spec.model, digest(spec.weights))
        groups.setdefault(identity, []).append(index)
    parts = [("", "", "")] * len(specs)
    methods = method_labels(specs)
    for (data, _, weights), members in groups.items():
        cells = {(methods[i], specs[i].compression, specs[i].seed) for i in members}
        by_recipe = with_recipe and len(cells) < len(members)
        for i in members:
            parts[i] = (data, weights, digest(specs[i].recipe) if by_recipe else "")
    return _shortest_labels(specs, parts)


def _shortest_labels(specs: Sequence[RunSpec], parts: Sequence[tuple[str, str, str]]) -> list[str]:
    """Dataset and network always; weights, recipe and digests only where they tell tasks apart."""
    pairs = [(spec.data.name, spec.model) for spec in specs]
    varied: dict[tuple[str, str], tuple[set[str], set[str], set[str]]] = {}
    named: dict[tuple[str, str], set[str]] = {}
    for pair, part, spec in zip(pairs, parts, specs, strict=True):
        for values, value in zip(varied.setdefault(pair, (set(), set(), set())), part, strict=True):
            values.add(value)
        named.setdefault(pair, set()).add(spec.weights.name)
    labels = []
    for pair, (data, weights, recipe), spec in zip(pairs, parts, specs, strict=True):
        several_data, several_weights, several_recipes = (len(values) > 1 for values in varied[pair])
        label = " / ".join(pair)
        if several_data:
            label += f" / data {data[:6]}"
        if several_weights:
            distinct = len(named[pair]) == len(varied[pair][1])
            label += f" / {spec.weights.name}" + ("" if distinct else f" {weights[:6]}")
        if several_recipes and recipe:
            label += f" / {spec.recipe.name} {recipe[:6]}"
        labels.append(label)
    return labels


def _measured_speedup(result: RunResult) -> float:
    """Dense over pruned wall time at the largest batch timed, of the small network where there is one."""
    timed = sorted(result.provenance.latency, key=lambda t: (t.form == "small", t.batch_size))
    return timed[-1].dense_seconds / timed[-1].seconds if timed else float("nan")


def _training_costs(results: Sequence[RunResult]) -> list[float]:
    """Multiply-adds spent after pruning where every run records them, else epochs of fine-tuning."""
    if results and all(r.budget for r in results):
        return [
            r.budget.pruning.multiply_adds + r.budget.retraining.multiply_adds if r.budget else np.nan
            for r in results
        ]
    return [np.nan if r.epochs_run is None else float(r.epochs_run) for r in results]


def aggregate(rows: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Mean, sample standard deviation and n over seeds, by task, method and compression target.

    Columns are ``<column>`` (mean), ``<column>_std`` (missing for a single run) and ``n``.
    """
    columns = list(dict.fromkeys(columns))
    groups = rows.groupby(["task", "method", "compression_target"], sort=True)
    mean = groups[columns].mean()
    deviation = groups[columns].std(ddof=1).add_suffix("_std")
    return pd.concat([mean, deviation, groups.size().rename("n")], axis=1).reset_index()
