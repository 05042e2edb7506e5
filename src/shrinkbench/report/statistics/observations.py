"""What the report reasons about: finished runs by task, each with its own control."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from shrinkbench.report.statistics.metrics import CHANGE, HEADLINE, LOSS, OTHERS_SHOWN, Metric, metrics_of
from shrinkbench.report.statistics.tests import half_width
from shrinkbench.results.bundle import Bundle
from shrinkbench.results.conflicts import find_differing_controls
from shrinkbench.results.frame import column_of, to_frame
from shrinkbench.results.labels import RunLabel, label_runs
from shrinkbench.results.record import RunResult
from shrinkbench.spec import RunSpec, SeedsAdded, TaskSpec, UntilDecided

SMALLEST_YARDSTICK = 1e-12
"""Controls that are zero have no share."""
AXES = {
    "compression": "compression ratio",
    "theoretical_speedup": "theoretical speedup",
    "measured_speedup": "measured speedup",
}


@dataclass(frozen=True)
class Design:
    """Rules of a sequential comparison, all its seeds in the order in which they are added, and who is in it.

    Without ``methods`` all are, and the question is the best against the rest. ``yardsticks`` are what a margin
    is a share of, by task: 1 of percentages, else the control's value.
    """

    rules: UntilDecided
    seeds: tuple[int, ...]
    methods: tuple[str, ...] = ()
    yardsticks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """A metric that tasks lead with, and those tasks: what is said over tasks is said of tasks of one scale."""

    metric: Metric
    tasks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Observations:
    """Finished runs, ready to be compared.

    ``pruned`` has one row per finished run that prunes, ``control`` one per control and seed, whatever number
    of methods share it; there, ``method`` is the control's name, which tells several controls of a task apart.
    Both carry the columns of the result table, ``headline`` (the metric that the run's task leads with),
    ``headline_change`` (from the run's own control, that of its ``control_key``), the same under the metric's
    own name, ``training_cost`` and ``epochs_allowed`` (epochs spent and allowed after pretraining).
    ``methods`` and ``tasks`` give the order of every table and legend; ``chance`` names the methods that score
    at random; ``task_specs`` tells what each task is, and with it its metrics; ``splits`` are extra evaluation
    splits. ``gaps`` has one row per run that prunes and is planned but not there: columns
    task, method, amount, seed, compression_target, kind (``failed``, ``missing`` or ``disputed``) and key.
    ``design`` are the rules by which seeds were added, where that was decided on the way. ``absent_controls``
    counts the controls that failed, and those that are planned and missing, by that kind.
    """

    pruned: pd.DataFrame
    control: pd.DataFrame
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    chance: frozenset[str]
    task_specs: Mapping[str, TaskSpec]
    gaps: pd.DataFrame
    splits: tuple[str, ...] = ()
    design: Design | None = None
    absent_controls: Mapping[str, int] = field(default_factory=dict)

    @functools.cached_property
    def _metrics(self) -> Mapping[str, Mapping[str, Metric]]:
        return {task: metrics_of(spec.objective, self.splits) for task, spec in self.task_specs.items()}

    def metrics(self, task: str) -> Mapping[str, Metric]:
        """The columns of ``task`` that can be drawn or compared, the metric that it leads with first."""
        return self._metrics[task]

    def metric(self, task: str, column: str = HEADLINE) -> Metric:
        """What ``column`` is on ``task``; ``headline`` is the metric that it leads with."""
        own = self._metrics[task]
        if column in (HEADLINE, CHANGE):
            first = next(iter(own.values()))
            return first if column == HEADLINE else own[f"{first.column}_change"]
        return own[column]

    def has(self, task: str, column: str = HEADLINE) -> bool:
        """Whether ``task`` has that metric."""
        return column in (HEADLINE, CHANGE) or column in self._metrics[task]

    def direction(self, task: str, column: str = HEADLINE) -> int:
        """1 where more of ``column`` is better on ``task``, -1 where less is."""
        return self.metric(task, column).sign if self.has(task, column) else 1

    def others(self, task: str) -> list[str]:
        """Columns of the first metrics beside the one that ``task`` leads with; its loss is none of them."""
        objective = self.task_specs[task].objective
        names = [m.name for m in objective.metrics if m.name not in (objective.headline, LOSS)]
        return [column_of(name) for name in names[:OTHERS_SHOWN]]

    def is_share(self, task: str, column: str = HEADLINE) -> bool:
        """Whether ``column`` is shown in percent on ``task``."""
        return self.has(task, column) and self.metric(task, column).percent

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of all tasks that can be drawn or compared."""
        return tuple(dict.fromkeys(column for task in self.tasks for column in self._metrics[task]))

    @functools.cached_property
    def scales(self) -> tuple[Scale, ...]:
        """The metrics that tasks lead with, in order of tasks."""
        found: dict[Metric, list[str]] = {}
        for task in self.tasks:
            found.setdefault(self.metric(task), []).append(task)
        return tuple(Scale(metric, tuple(tasks)) for metric, tasks in found.items())

    def stem(self, metric: Metric) -> str:
        """A name of files about ``metric``: its column, and its direction where another has that column too."""
        alike = [scale for scale in self.scales if scale.metric.column == metric.column]
        return f"{metric.column}-{metric.best}" if len(alike) > 1 else metric.column

    @functools.cached_property
    def _yardsticks(self) -> Mapping[str, float]:
        found = dict.fromkeys(self.tasks, 1.0)
        for task in (task for task in self.tasks if not self.metric(task).percent):
            rows = self.control if (self.control["task"] == task).any() else self.pruned
            means = rows[rows["task"] == task].groupby("method")[HEADLINE].mean().dropna()
            found[task] = max([SMALLEST_YARDSTICK, *map(abs, means.to_list()[:1])])
        return found

    def yardstick(self, task: str) -> float:
        """What differences of the headline are shares of: 1 of a percentage, else its first control's mean."""
        return self._yardsticks[task]

    def only(self, tasks: Collection[str]) -> Observations:
        """The same of some of its tasks."""
        if set(tasks) >= set(self.tasks):
            return self
        kept = tuple(task for task in self.tasks if task in tasks)

        def part(rows: pd.DataFrame) -> pd.DataFrame:
            return rows[rows["task"].isin(kept)].reset_index(drop=True) if len(rows) else rows

        return replace(
            self,
            tasks=kept,
            task_specs={task: self.task_specs[task] for task in kept},
            pruned=part(self.pruned),
            control=part(self.control),
            gaps=part(self.gaps),
        )

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


def observe_bundle(bundle: Bundle) -> Observations:
    """:func:`observe` of all that a source holds, with what it misses, disputes and decided by."""
    return observe(
        bundle.results, missing=bundle.missing, disputed=bundle.disputed, sequential=bundle.sequential
    )


def observe(
    results: Iterable[RunResult],
    *,
    methods: Sequence[str] = (),
    missing: Iterable[RunSpec] = (),
    disputed: Collection[str] = (),
    sequential: SeedsAdded | None = None,
) -> Observations:
    """Sort finished runs into tasks; ``methods`` comes first in the order of methods.

    A task is one dataset (subset and normalisation included), network and initial weights. What is compared
    on it are methods with their recipes. A run counts once, though it be stored twice or measured further.
    Failed runs and ``missing`` ones, which are planned and have no result, are its gaps; so are those with
    ``disputed`` keys, which another source contradicts, and those whose own control is disputed: what a run is
    measured against is a part of what it says. ``sequential`` is how seeds
    were added until the comparison was decided.
    """
    results, missing = [*results], [*missing]
    by_key = {r.key: r for r in reversed(results) if r.status == "done"}
    done = sorted(by_key.values(), key=lambda r: (-len(r.further), r.key))  # of two alike, one measured most
    absent = _absent_runs(results, missing)
    labels = label_runs([*(r.spec for r in done), *(spec for spec, _ in absent)])
    frame = to_frame(done, labels=labels[: len(done)]).set_index("key").loc[[r.key for r in done]].reset_index()
    frame["training_cost"] = _training_costs(done)
    frame["epochs_allowed"] = _epochs_allowed(done)
    frame["is_control"] = np.array([r.spec.is_control for r in done], dtype=bool)
    frame["chance"] = np.array([r.spec.method.score.kind == "random" for r in done], dtype=bool)
    frame[HEADLINE] = np.array([np.nan if r.headline is None else r.headline for r in done], dtype=float)
    apart = find_differing_controls(results, keys=dict(zip(frame["key"], frame["control_key"], strict=True)))
    doubted = set(frame.loc[frame["key"].isin([copy.key for pair in apart for copy in pair]), "control_key"])
    control = frame[frame["is_control"] & ~frame["control_key"].isin(list(doubted))]
    control = control.drop_duplicates("control_key").assign(method=lambda f: f["control"])
    reference = control.set_index("control_key")[HEADLINE]
    columns = {
        task: column_of(r.spec.task.objective.headline) for task, r in zip(frame["task"], done, strict=True)
    }
    pruned = frame[~frame["is_control"]].drop_duplicates(["task", "method", "amount", "seed"]).copy()
    for part in (control, pruned):
        part[CHANGE] = part[HEADLINE].to_numpy() - reference.reindex(part["control_key"]).to_numpy()
        for column in dict.fromkeys(columns.values()):
            own = part["task"].map(columns) == column
            part[f"{column}_change"] = part[CHANGE].where(own)
    present = sorted({m for m, r in zip(frame["method"], done, strict=True) if not _is_reference(r.spec)})
    order = ["task", "method", "compression", "seed"]
    pruned = pruned.sort_values(order, ignore_index=True)
    return Observations(
        pruned=pruned,
        control=control.sort_values(order, ignore_index=True),
        tasks=tuple(sorted(frame["task"].unique())),
        methods=tuple(dict.fromkeys([m for m in methods if m in present] + present)),
        chance=frozenset(frame.loc[frame["chance"] & ~frame["is_control"], "method"]),
        task_specs={task: r.spec.task for task, r in zip(frame["task"], done, strict=True)},
        gaps=_gaps(absent, labels[len(done) :], pruned, _disputed_runs(frame, disputed, doubted)),
        design=_design(sequential, labels, [*done, *(spec for spec, _ in absent)]),
        splits=tuple(sorted({split for result in done for split in result.further})),
        absent_controls={
            "failed": len({r.key for r in results if r.spec.is_control and r.key not in by_key}),
            "missing": sum(spec.is_control for spec in missing),
        },
    )


def _design(
    sequential: SeedsAdded | None, labels: Sequence[RunLabel], runs: Sequence[RunResult | RunSpec]
) -> Design | None:
    """The rules by which seeds were added, with the methods that they compare by label."""
    if sequential is None:
        return None
    specs = (run if isinstance(run, RunSpec) else run.spec for run in runs)
    rules = sequential.rules
    compared = {
        label.method for label, spec in zip(labels, specs, strict=True) if spec.method.name in rules.compare
    }
    return Design(rules, sequential.seeds, tuple(sorted(m for m in compared if m is not None)))


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


def _disputed_runs(frame: pd.DataFrame, disputed: Collection[str], doubted: Collection[str]) -> Collection[str]:
    """The keys of ``disputed`` runs, and of those that start from a disputed control, or one ``doubted``."""
    if not (disputed or doubted):
        return ()
    doubtful = frame["key"].isin(list(disputed))
    controls = [*frame.loc[doubtful & frame["is_control"], "control_key"], *doubted]
    return frozenset(frame.loc[doubtful | frame["control_key"].isin(controls), "key"])


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
