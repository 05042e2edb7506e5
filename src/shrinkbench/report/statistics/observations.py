"""What the report reasons about: finished runs by task, with the control once per seed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from shrinkbench.report.statistics.tests import half_width
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


@dataclass(frozen=True, eq=False)
class Observations:
    """Finished runs, ready to be compared.

    ``pruned`` has one row per finished run with a compression target above 1, ``control`` one per task, seed
    and recipe, whatever number of methods share it. Both carry the columns of the result table, ``task``,
    ``problem`` (the task without its recipe), ``top1_change`` (from the control of the same seed),
    ``training_cost`` and ``training_budget`` (epochs spent and allowed after pretraining). ``methods`` and
    ``tasks`` give the order of every table and legend; ``chance`` names the methods that score at random;
    ``metrics`` are those of :data:`METRICS` and top-1 on extra evaluation splits.
    """

    pruned: pd.DataFrame
    control: pd.DataFrame
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    chance: frozenset[str]
    metrics: Mapping[str, Metric]


def observe(results: Iterable[RunResult], *, methods: Sequence[str] = ()) -> Observations:
    """Sort finished runs into tasks; ``methods`` comes first in the order of methods.

    A task is one dataset (subset and normalisation included), network and initial weights, and the recipe
    too where one method was run with several.
    """
    done = sorted((r for r in results if r.status == "done" and r.after and r.size), key=lambda r: r.key)
    frame = to_frame(done).set_index("key").loc[[r.key for r in done]].reset_index()
    names = [_Names.of(r.spec) for r in done]
    frame["method"] = method_labels(names)
    frame["task"] = task_labels(names)
    frame["problem"] = task_labels(names, with_recipe=False)
    frame["training_cost"] = _training_costs(done)
    frame["training_budget"] = _training_budgets(done)
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
        chance=frozenset(
            label
            for label, run in zip(method_labels(names), names, strict=True)
            if run.spec.method.score.startswith("random")
        ),
        metrics=METRICS | _further_metrics(done),
    )


def _further_metrics(results: Iterable[RunResult]) -> dict[str, Metric]:
    """Top-1 on every extra evaluation split that some run was measured on."""
    splits = sorted({split for result in results for split in result.further})
    return {f"{s}_top1": Metric(f"{s}_top1", f"top-1 accuracy on {s}", percent=True) for s in splits}


digest_once = functools.lru_cache(maxsize=4096)(digest)
"""The digest of a part of a specification; the same few stand in thousands of runs."""


class _Names(NamedTuple):
    """A run's specification with the digests that tell equal names apart."""

    spec: RunSpec
    method: str
    data: str
    weights: str
    recipe: str

    @classmethod
    def of(cls, spec: RunSpec) -> _Names:
        return cls(spec, *map(digest_once, (spec.method, spec.data, spec.weights, spec.recipe)))


def method_labels(names: Sequence[_Names]) -> list[str]:
    """The method's name, with what else was pruned; one name for two definitions gets a digest."""
    definitions: dict[str, set[str]] = {}
    for run in names:
        definitions.setdefault(run.spec.method.name, set()).add(run.method)
    labels = []
    for run in names:
        label = run.spec.method.name
        if len(definitions[label]) > 1:
            label += f" {run.method[:6]}"
        if run.spec.compression > 1:
            label += " + classifier" if run.spec.prune_classifier else ""
            label += " + biases" if run.spec.prune_biases else ""
        labels.append(label)
    return labels


def task_labels(names: Sequence[_Names], *, with_recipe: bool = True) -> list[str]:
    """A short label for each run's task: parts that all tasks of a network share are left out.

    Names that stand for different values (a subset, another revision, an overridden recipe) get a digest.
    """
    groups: dict[tuple[str, str, str], list[int]] = {}
    for index, run in enumerate(names):
        groups.setdefault((run.data, run.spec.model, run.weights), []).append(index)
    recipes = [""] * len(names)
    for members in groups.values():
        cells = {
            (names[i].method, names[i].spec.compression, names[i].spec.seed, *_options(names[i].spec))
            for i in members
        }
        if with_recipe and len(cells) < len(members):
            for i in members:
                recipes[i] = names[i].recipe
    return _shortest_labels(names, recipes)


def _options(spec: RunSpec) -> tuple[bool, bool]:
    return spec.prune_classifier, spec.prune_biases


def _shortest_labels(names: Sequence[_Names], recipes: Sequence[str]) -> list[str]:
    """Dataset and network always; weights, recipe and digests only where they tell tasks apart."""
    varied: dict[tuple[str, str], tuple[set[str], ...]] = {}
    for run, recipe in zip(names, recipes, strict=True):
        sets = varied.setdefault((run.spec.data.name, run.spec.model), (set(), set(), set(), set()))
        for values, value in zip(sets, (run.data, run.weights, recipe, run.spec.weights.name), strict=True):
            values.add(value)
    labels = []
    for run, recipe in zip(names, recipes, strict=True):
        pair = (run.spec.data.name, run.spec.model)
        data, weights, several_recipes, weight_names = varied[pair]
        label = " / ".join(pair)
        if len(data) > 1:
            label += f" / data {run.data[:6]}"
        if len(weights) > 1:
            distinct = len(weight_names) == len(weights)
            label += f" / {run.spec.weights.name}" + ("" if distinct else f" {run.weights[:6]}")
        if len(several_recipes) > 1 and recipe:
            label += f" / {run.spec.recipe.name} {recipe[:6]}"
        labels.append(label)
    return labels


def _training_costs(results: Sequence[RunResult]) -> list[float]:
    """Epochs of training to find the masks and after, where recorded, else those of the last training."""
    return [
        r.budget.pruning.epochs + r.budget.retraining.epochs
        if r.budget
        else np.nan
        if r.epochs_run is None
        else float(r.epochs_run)
        for r in results
    ]


def _training_budgets(results: Sequence[RunResult]) -> list[float]:
    """Epochs that a run was allowed: those of its recipe or, over several rounds, as they were run."""
    return [
        cost if r.budget and not r.spec.recipe.early_stopping else max(float(r.spec.recipe.epochs), cost)
        for r, cost in zip(results, _training_costs(results), strict=True)
    ]


def aggregate(rows: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Mean, sample standard deviation, n and 95 % interval over seeds, by task, method and compression target.

    Columns are ``<column>`` (mean), ``<column>_std``, ``<column>_low``, ``<column>_high`` (missing for a single
    run) and ``n``. The interval is mean +- t(n - 1) std / sqrt(n).
    """
    columns = list(dict.fromkeys(columns))
    groups = rows.groupby(["task", "method", "compression_target"], sort=True)
    mean, deviation, counts = groups[columns].mean(), groups[columns].std(ddof=1), groups[columns].count()
    factors = {n: half_width(n) for n in np.unique(counts.to_numpy())}
    half = deviation * counts.map(factors.__getitem__)
    parts = [
        mean,
        deviation.add_suffix("_std"),
        (mean - half).add_suffix("_low"),
        (mean + half).add_suffix("_high"),
    ]
    return pd.concat([*parts, groups.size().rename("n")], axis=1).reset_index()
