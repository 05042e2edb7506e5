"""Who is better where, on an equal footing: tables made from observations by the statistics of ``stats``."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.observations import METRICS, Observations
from shrinkbench.report.statistics.ranks import Ranking, rank_methods

SAME = 0.01
"""Points whose ratio differs by less than this share count as one operating point."""
SAME_TRAINING = 0.05
"""Training that differs by less than this share counts as equal."""
SHORT = 0.05
"""Networks compressed less by more than this share did not reach the compression asked for."""
MARGIN = 0.01
"""Accuracy within this distance of the control counts as kept (one percentage point)."""


def groups(
    frame: pd.DataFrame, *columns: str, only: Sequence[str] | None = None
) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Rows of one value of ``columns`` at a time, in order of those values.

    ``only`` names the other columns that are needed: rows of a few are cut out many times as fast.
    """
    if only is not None:
        frame = frame[list(dict.fromkeys((*columns, *only)))]
    yield from frame.groupby(list(columns) if len(columns) > 1 else columns[0], sort=True)


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """Rows as named tuples."""
    yield from frame.itertuples(index=False)


def on_target(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of cells that reached the compression asked for, on average up to 5 %.

    Code from outside may decide itself what it keeps, and channels are few: who fell short has the larger
    network. None reaches a compression where none was asked for.
    """
    means = rows.groupby(["task", "method", "amount"])["compression"].transform("mean")
    reached: pd.Series = means >= rows["compression_target"] * (1 - SHORT)
    return reached


def own_controls(observations: Observations, metric: str) -> pd.Series:
    """For every pruned run the value of its own control, that of its ``control_key``; missing without one."""
    values = observations.control.set_index("control_key")[metric]
    return observations.pruned["control_key"].map(values).astype(float)


def references(observations: Observations, metric: str) -> dict[tuple[str, str], stats.Summary]:
    """Each method's own control over the seeds that the method has, by task and method.

    Every control counts once, however many runs refer to it.
    """
    rows = observations.pruned[["task", "method", "control_key"]].assign(
        value=own_controls(observations, metric)
    )
    rows = rows.drop_duplicates(["task", "method", "control_key"]).dropna(subset=["value"])
    return {pair: stats.summarise(part["value"].to_numpy()) for pair, part in groups(rows, "task", "method")}


class Curve(NamedTuple):
    """One seed's measured points in order of ``x``; the method's own control of that seed is the first."""

    task: str
    method: str
    seed: int
    x: stats.Floats
    y: stats.Floats


@functools.lru_cache(maxsize=32)
def curves(observations: Observations, axis: str, metric: str) -> tuple[Curve, ...]:
    """One curve per task, method and seed; incomplete points are left out."""
    return tuple(_curves(observations, axis, metric))


def _curves(observations: Observations, axis: str, metric: str) -> Iterator[Curve]:
    starts = own_controls(observations, metric).to_numpy()
    xs, ys = (observations.pruned[column].to_numpy(dtype=float, na_value=math.nan) for column in (axis, metric))
    known = np.isfinite(xs) & np.isfinite(ys)
    rows: dict[Any, Any] = observations.pruned.groupby(["task", "method", "seed"]).indices
    for (task, method, seed), places in sorted(rows.items()):
        places = places[known[places]]
        if not len(places):
            continue
        x, y = xs[places], ys[places]
        start = starts[places[np.argmin(x)]]  # of the least pruned run, where the runs of a curve have several
        if math.isfinite(start):
            x, y = np.r_[1.0, x], np.r_[start, y]
        order = np.argsort(x, kind="stable")
        yield Curve(task, method, seed, x[order], y[order])


@functools.lru_cache(maxsize=16)
def at_equal(
    observations: Observations, axis: str, *, metric: str = "top1", levels: tuple[float, ...] = ()
) -> pd.DataFrame:
    """Every method's value at the same level of ``axis``: columns task, level, method, seed, value.

    Values between measured points are interpolated on the seed's own curve (linear in the logarithm of the
    axis), and none is given outside the measured range. ``levels`` default to :func:`default_levels`.
    """
    chosen = np.array(levels or default_levels(observations, axis), dtype=float)
    rows = []
    for task, method, seed, x, y in curves(observations, axis, metric):
        near = chosen[np.abs(np.log(x)[:, None] - np.log(chosen)).argmin(axis=1)] if len(chosen) else x
        x = np.where(np.abs(x / near - 1) < SAME, near, x)
        values = stats.interpolate(x, y, chosen)
        rows += [(task, level, method, seed, value) for level, value in zip(chosen, values, strict=True)]
    table = pd.DataFrame(rows, columns=["task", "level", "method", "seed", "value"])
    return table.dropna(subset=["value"]).reset_index(drop=True)


def default_levels(observations: Observations, axis: str) -> list[float]:
    """Compressions that were asked for; powers of two inside the measured range for speedups.

    Where no amount is a compression, powers of two serve for size too.
    """
    targets = observations.pruned["compression_target"].dropna().unique()
    if axis == "compression" and len(targets):
        return sorted(float(t) for t in targets)
    highest = observations.pruned[axis].max()
    return [2.0**k for k in range(1, 12) if math.isfinite(highest) and 2.0**k <= highest * (1 + SAME)]


def at_equal_training(
    observations: Observations, *, metric: str = "top1", by: str = "epochs_allowed"
) -> pd.DataFrame:
    """Values at equal training: columns task, compression_target, level, method, seed, value.

    ``by`` is ``epochs_allowed`` or ``training_multiply_adds`` (of all phases, with pretraining).
    A method that was trained for several lengths, by one recipe or by several, has a curve over them, which is
    interpolated and never extended; one with a single length counts within 5 % of it. Levels are the lengths
    that at least two methods cover.
    """
    rows = []
    known = observations.pruned[on_target(observations.pruned)].dropna(subset=[by, metric])
    known = known.assign(method=known["method_alone"])
    for (task, target), cell in groups(known, "task", "compression_target"):
        spans = cell.groupby("method")[by].agg(["min", "max"])
        low, high = spans["min"] * (1 - SAME_TRAINING), spans["max"] * (1 + SAME_TRAINING)
        for level in _distinct(cell[by].to_numpy(dtype=float)):
            covering = spans.index[(low <= level) & (level <= high)]
            if len(covering) < 2:
                continue
            for (method, seed), run in groups(cell[cell["method"].isin(covering)], "method", "seed"):
                value = stats.interpolate(run[by], run[metric], [level], tolerance=SAME_TRAINING)[0]
                rows.append((task, target, level, method, seed, value))
    columns = ["task", "compression_target", "level", "method", "seed", "value"]
    return pd.DataFrame(rows, columns=columns).dropna(subset=["value"]).reset_index(drop=True)


def _distinct(values: stats.Floats) -> list[float]:
    """Values that differ by more than 5 %, from the smallest up; zeros are left out."""
    kept: list[float] = []
    for value in np.unique(values[values > 0]):
        if not kept or value > kept[-1] * (1 + SAME_TRAINING):
            kept.append(float(value))
    return kept


def winners(values: pd.DataFrame, *, metric: str = "top1") -> pd.DataFrame:
    """The best method at every task and level, and whether it is told apart from the runner-up.

    ``values`` is a table of :func:`at_equal`. Differences are paired by seed; ``p`` is of the paired t-test
    after Holm's correction over all rows. ``decided`` holds where p < 0.05.
    """
    sign = 1 if METRICS[metric].higher_is_better else -1
    rows: list[dict[str, Any]] = []
    if values.empty:
        return pd.DataFrame(rows)
    wide = values.set_index(["task", "level", "seed", "method"])["value"].unstack("method")
    for (task, level), group in wide.groupby(["task", "level"], sort=True):
        means = (sign * group.mean()).dropna().sort_values(ascending=False, kind="stable")
        if len(means) < 2:
            continue
        best, second = means.index[0], means.index[1]
        differences = (group[best] - group[second]).dropna().to_numpy(dtype=float)
        difference = stats.summarise(differences)
        rows.append(
            {
                "task": task,
                "level": level,
                "best": best,
                "value": sign * means.iloc[0],
                "runner_up": second,
                "difference": difference.mean,
                "low": difference.low,
                "high": difference.high,
                "n": difference.n,
                "p_raw": stats.paired_t(differences),
                "methods": len(means),
            }
        )
    table = pd.DataFrame(rows)
    if len(table):
        table["p"] = stats.holm(table["p_raw"])
        table["decided"] = table["p"] < stats.ALPHA
    return table


def pairwise(observations: Observations, *, metric: str = "top1", task: str | None = None) -> pd.DataFrame:
    """Every pair of methods over what they share: dataset, network, weights, compression and seed.

    Cells are of one compression that was asked for and reached; other amounts make no pairs.
    Compressions of one task and seed share a pretrained network, so they are averaged into one unit before
    testing; ``pairs`` counts the cells, ``n`` the units. p-values are corrected by Holm over the table.
    """
    rows = observations.pruned if task is None else observations.pruned[observations.pruned["task"] == task]
    rows = rows[on_target(rows)]
    if rows.empty:
        return pd.DataFrame()
    wide = rows.pivot_table(index=["task", "compression_target", "seed"], columns="method", values=metric)
    units = pd.Series(wide.index.to_frame()["task"] + "\n" + wide.index.to_frame()["seed"].astype(str))
    table = []
    present = [method for method in observations.methods if method in wide.columns]
    for first, second in itertools.combinations(present, 2):
        c = stats.compare_paired(wide[first], wide[second], clusters=units)
        if not c.pairs:
            continue
        table.append(
            {
                "first": first,
                "second": second,
                "pairs": c.pairs,
                "n": c.n,
                "difference": c.difference.mean,
                "low": c.difference.low,
                "high": c.difference.high,
                "effect": c.effect.value,
                "effect_low": c.effect.low,
                "effect_high": c.effect.high,
                "superiority": c.superiority,
                "superiority_low": c.superiority_low,
                "superiority_high": c.superiority_high,
                "p_t": c.p_t,
                "p_wilcoxon": c.p_wilcoxon,
                "warning": c.warning,
            }
        )
    frame = pd.DataFrame(table)
    if len(frame):
        frame["p_t_holm"] = stats.holm(frame["p_t"])
        frame["p_wilcoxon_holm"] = stats.holm(frame["p_wilcoxon"])
    return frame


def curve_summaries(observations: Observations, *, metric: str = "top1") -> pd.DataFrame:
    """Each method's curve in two numbers: the largest compression within 1 % of its own control, and its area.

    Runs are compared with the control of their seed. ``area`` is the mean accuracy over log compression on the
    range that all methods of the task share, mean and sample standard deviation over seeds.
    """
    rows = []
    runs = observations.pruned
    runs = runs.assign(
        change=runs[metric].to_numpy(dtype=float, na_value=math.nan) - own_controls(observations, metric)
    )
    means = runs.groupby(["task", "method", "amount"])[["compression", "change"]].mean().reset_index()
    areas = {
        key: part["area"] for key, part in groups(curve_areas(observations, metric=metric), "task", "method")
    }
    for (task, method), curve in groups(means, "task", "method"):
        kept = stats.largest_within(curve["compression"], curve["change"], 0.0, tolerance=MARGIN)
        if curve["change"].isna().all():  # no control was run
            kept = math.nan
        area = stats.summarise(areas.get((task, method), ()))
        rows.append((task, method, kept, area.mean, area.std, area.n))
    columns = ["task", "method", "largest_within", "area", "area_std", "n"]
    return pd.DataFrame(rows, columns=columns)


def curve_areas(observations: Observations, *, metric: str = "top1") -> pd.DataFrame:
    """Area under each seed's curve over the compression range that the task's methods share."""
    found = list(curves(observations, "compression", metric))
    starts = pd.DataFrame([(c.task, c.x[0]) for c in found], columns=["task", "low"])
    low = starts.groupby("task")["low"].max()
    high = _reach(observations, metric).groupby("task").min()
    rows = [
        (
            c.task,
            c.method,
            c.seed,
            stats.area_under_log_curve(c.x, c.y, low=low[c.task], high=high[c.task], tolerance=SAME),
        )
        for c in found
    ]
    return pd.DataFrame(rows, columns=["task", "method", "seed", "area"]).dropna(subset=["area"])


def _reach(observations: Observations, metric: str) -> pd.Series:
    """How far each method's curve goes, by task and method: where all seeds of its last cell are.

    What an amount comes to may differ by seed; a seed without that cell does not shorten the range of others.
    """
    known = observations.pruned.dropna(subset=["compression", metric])
    cells = known.groupby(["task", "method", "amount"])["compression"].agg(["mean", "min"])
    last = cells.groupby(["task", "method"])["mean"].idxmax()
    reach: pd.Series = cells.loc[last, "min"].droplevel("amount")
    return reach


def ranking(observations: Observations, *, metric: str = "top1") -> tuple[tuple[str, ...], Ranking]:
    """Methods ranked by area under their curve; a block is one task and seed."""
    areas = curve_areas(observations, metric=metric)
    if areas.empty:
        return (), rank_methods(np.empty((0, 0)))
    wide = areas.pivot_table(index=["task", "seed"], columns="method", values="area")
    wide = wide[wide.notna().sum(axis=1) > 1]  # a block with one method ranks nothing
    complete = [m for m in observations.methods if m in wide.columns and wide[m].notna().mean() > 0.5]
    return tuple(complete), rank_methods(
        wide[complete].to_numpy(), higher_is_better=METRICS[metric].higher_is_better
    )
