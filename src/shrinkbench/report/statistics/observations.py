"""What the report reasons about: finished runs by task, each with its own control."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from shrinkbench.report.statistics.tests import half_width
from shrinkbench.results.frame import to_frame
from shrinkbench.results.labels import RunLabel, label_runs
from shrinkbench.results.record import RunResult
from shrinkbench.spec import ExperimentSpec, RunSpec, TaskSpec, UntilDecided


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
class Design:
    """Rules of a sequential comparison, all its seeds in the order in which they are added, and who is in it.

    Without ``methods`` all are, and the question is the best against the rest.
    """

    rules: UntilDecided
    seeds: tuple[int, ...]
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Observations:
    """Finished runs, ready to be compared.

    ``pruned`` has one row per finished run that prunes, ``control`` one per control and seed, whatever number
    of methods share it; there, ``method`` is the control's name, which tells several controls of a task apart.
    Both carry the columns of the result table, ``top1_change`` (from the run's own control, that of its
    ``control_key``), ``training_cost`` and ``epochs_allowed`` (epochs spent and allowed after pretraining).
    ``methods`` and ``tasks`` give the order of every table and legend; ``chance`` names the methods that score
    at random; ``metrics`` are those of :data:`METRICS` and top-1 on extra evaluation splits; ``task_specs``
    tells what each task is. ``gaps`` has one row per run that prunes and is planned but not there: columns
    task, method, amount, seed, compression_target, kind (``failed``, ``missing`` or ``disputed``) and key.
    ``design`` are the rules by which seeds were added, where that was decided on the way.
    """

    pruned: pd.DataFrame
    control: pd.DataFrame
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    chance: frozenset[str]
    metrics: Mapping[str, Metric]
    task_specs: Mapping[str, TaskSpec]
    gaps: pd.DataFrame
    design: Design | None = None

    def controls_of(self, task: str) -> tuple[str, ...]:
        """Names of the controls of ``task``."""
        rows = self.control
        return tuple(sorted(rows.loc[rows["task"] == task, "method"].unique()))

    def renamed(self, names: Mapping[str, str]) -> Observations:
        """The same with methods called by ``names``, wherever they are shown; no two may share one."""
        if not names:
            return self
        columns = {"method": names, "method_alone": names}
        return replace(
            self,
            pruned=self.pruned.replace(columns),
            methods=tuple(names.get(method, method) for method in self.methods),
            chance=frozenset(names.get(method, method) for method in self.chance),
            gaps=self.gaps.replace({"method": names}),
            design=self.design
            and replace(self.design, methods=tuple(names.get(m, m) for m in self.design.methods)),
        )


def observe(
    results: Iterable[RunResult],
    *,
    methods: Sequence[str] = (),
    missing: Iterable[RunSpec] = (),
    disputed: Collection[str] = (),
    sequential: ExperimentSpec | None = None,
) -> Observations:
    """Sort finished runs into tasks; ``methods`` comes first in the order of methods.

    A task is one dataset (subset and normalisation included), network and initial weights. What is compared
    on it are methods with their recipes. A run counts once, though it be stored twice or measured further.
    Failed runs and ``missing`` ones, which are planned and have no result, are its gaps; so are those with
    ``disputed`` keys, for which another source has other numbers. ``sequential`` is the experiment whose seeds
    were added until its comparison was decided.
    """
    results = [*results]
    by_key = {r.key: r for r in reversed(results) if r.status == "done"}
    done = sorted(by_key.values(), key=lambda r: (-len(r.further), r.key))  # of two alike, one measured most
    absent = _absent_runs(results, missing)
    labels = label_runs([*(r.spec for r in done), *(spec for spec, _ in absent)])
    frame = to_frame(done, labels=labels[: len(done)]).set_index("key").loc[[r.key for r in done]].reset_index()
    frame["training_cost"] = _training_costs(done)
    frame["epochs_allowed"] = _epochs_allowed(done)
    frame["is_control"] = np.array([r.spec.is_control for r in done], dtype=bool)
    frame["chance"] = np.array([r.spec.method.score.kind == "random" for r in done], dtype=bool)
    control = frame[frame["is_control"]].drop_duplicates("control_key").assign(method=lambda f: f["control"])
    reference = control.set_index("control_key")["top1"]
    pruned = frame[~frame["is_control"]].drop_duplicates(["task", "method", "amount", "seed"]).copy()
    for part in (control, pruned):
        part["top1_change"] = part["top1"].to_numpy() - reference.reindex(part["control_key"]).to_numpy()
    present = sorted({m for m, r in zip(frame["method"], done, strict=True) if not _is_reference(r.spec)})
    order = ["task", "method", "compression", "seed"]
    return Observations(
        pruned=pruned.sort_values(order, ignore_index=True),
        control=control.sort_values(order, ignore_index=True),
        tasks=tuple(sorted(frame["task"].unique())),
        methods=tuple(dict.fromkeys([m for m in methods if m in present] + present)),
        chance=frozenset(frame.loc[frame["chance"] & ~frame["is_control"], "method"]),
        metrics=METRICS | _further_metrics(done),
        task_specs={task: r.spec.task for task, r in zip(frame["task"], done, strict=True)},
        gaps=_gaps(absent, labels[len(done) :], pruned, disputed),
        design=_design(sequential, labels, [*done, *(spec for spec, _ in absent)]),
    )


def _design(
    sequential: ExperimentSpec | None, labels: Sequence[RunLabel], runs: Sequence[RunResult | RunSpec]
) -> Design | None:
    """The rules by which seeds were added, with the methods that they compare by label."""
    rules = sequential.until_decided if sequential is not None else None
    if sequential is None or rules is None:
        return None
    specs = (run if isinstance(run, RunSpec) else run.spec for run in runs)
    compared = {
        label.method for label, spec in zip(labels, specs, strict=True) if spec.method.name in rules.compare
    }
    return Design(rules, sequential.seed, tuple(sorted(m for m in compared if m is not None)))


def _absent_runs(
    results: Sequence[RunResult], missing: Iterable[RunSpec]
) -> list[tuple[RunSpec, Literal["failed", "missing"]]]:
    """Runs that prune and have no outcome, each once."""
    done = {r.key for r in results if r.status == "done"}
    failed = {r.key: r.spec for r in results if r.status == "failed" and r.key not in done}
    return [
        *((spec, "failed") for spec in failed.values() if not spec.is_control),
        *((spec, "missing") for spec in missing if not spec.is_control),
    ]


def _gaps(
    absent: Sequence[tuple[RunSpec, str]],
    labels: Sequence[RunLabel],
    pruned: pd.DataFrame,
    disputed: Collection[str],
) -> pd.DataFrame:
    """The gaps' table; one run measured in two ways is no gap where one of them is there."""
    columns = ["task", "method", "amount", "seed", "compression_target", "kind", "key"]
    rows = [
        (label.task, label.method, label.amount, spec.seed, spec.target, kind, spec.migrated_from or spec.key)
        for (spec, kind), label in zip(absent, labels, strict=True)
    ]
    cell = columns[:4]
    there = {tuple(row) for row in pruned[cell].itertuples(index=False)}
    told = pruned[pruned["key"].isin(list(disputed))].assign(kind="disputed")[columns]
    rows = [*(row for row in rows if row[:4] not in there), *told.itertuples(index=False, name=None)]
    table = pd.DataFrame(rows, columns=columns).astype({"compression_target": "float64"})
    return table.drop_duplicates(cell, ignore_index=True)


def _is_reference(spec: RunSpec) -> bool:
    """Whether a run is a control of its own, of no method."""
    return spec.is_control and spec.method == spec.control.method


def _further_metrics(results: Iterable[RunResult]) -> dict[str, Metric]:
    """Top-1 on every extra evaluation split that some run was measured on."""
    splits = sorted({split for result in results for split in result.further})
    return {f"{s}_top1": Metric(f"{s}_top1", f"top-1 accuracy on {s}", percent=True) for s in splits}


def _training_costs(results: Sequence[RunResult]) -> list[float]:
    """Epochs of training to find the masks and after, where recorded, else those of the last training."""
    return [
        r.cost.pruning.epochs + r.cost.retraining.epochs
        if r.cost
        else np.nan
        if r.epochs_run is None
        else float(r.epochs_run)
        for r in results
    ]


def _epochs_allowed(results: Sequence[RunResult]) -> list[float]:
    """Epochs that a run was allowed: those of its recipe or, over several rounds, as they were run."""
    return [
        cost if r.cost and not r.spec.recipe.early_stopping else max(float(r.spec.recipe.epochs), cost)
        for r, cost in zip(results, _training_costs(results), strict=True)
    ]


def aggregate(rows: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Mean, sample standard deviation, n and 95 % interval over seeds, by task, method and amount.

    Columns are ``<column>`` (mean), ``<column>_std``, ``<column>_low``, ``<column>_high`` (missing for a single
    run), ``n``, and ``compression_target`` where the amount is a compression. Rows of a method are in order of
    the compression that was achieved. The interval is mean +- t(n - 1) std / sqrt(n).
    """
    columns = list(dict.fromkeys([*columns, "compression"]))
    groups = rows.groupby(["task", "method", "amount"], sort=True)
    mean, deviation, counts = groups[columns].mean(), groups[columns].std(ddof=1), groups[columns].count()
    factors = {n: half_width(n) for n in np.unique(counts.to_numpy())}
    half = deviation * counts.map(factors.__getitem__)
    parts: list[pd.DataFrame | pd.Series[float]] = [
        groups["compression_target"].first(),
        mean,
        deviation.add_suffix("_std"),
        (mean - half).add_suffix("_low"),
        (mean + half).add_suffix("_high"),
    ]
    table = pd.concat([*parts, groups.size().rename("n")], axis=1).reset_index()
    ordered: pd.DataFrame = table.sort_values(
        ["task", "method", "compression"], ignore_index=True, kind="stable"
    )
    return ordered
