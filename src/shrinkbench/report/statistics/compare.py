"""Who is better where, on an equal footing: tables made from observations by the statistics of ``stats``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.blocks import shared_units
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.curves import SAME, TOLERANCE, curves, own_controls
from shrinkbench.report.statistics.metrics import HEADLINE
from shrinkbench.report.statistics.observations import SMALLEST_YARDSTICK, Observations
from shrinkbench.report.statistics.ranks import Ranking, join_undecided, rank_methods

SAME_TRAINING = 0.05
"""Training that differs by less than this share counts as equal."""
SHORT = TOLERANCE
"""Networks compressed less by more than this share did not reach the compression asked for."""
TIE = 1e-12
"""Means that differ by no more are equal: rounding orders nothing."""
MARGIN = 0.01
"""A metric this near to the control counts as kept: one point of a percentage, 1 % of the value of others."""


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


def references(observations: Observations, metric: str) -> dict[tuple[str, str], stats.Summary]:
    """Each method's own control over the seeds that the method has, by task and method.

    Every control counts once, however many runs refer to it.
    """
    rows = observations.pruned[["task", "method", "control_key"]].assign(
        value=own_controls(observations, metric)
    )
    rows = rows.drop_duplicates(["task", "method", "control_key"]).dropna(subset=["value"])
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in records(rows):
        values[row.task, row.method].append(row.value)
    return {pair: stats.summarise(found) for pair, found in values.items()}


def at_equal_training(
    observations: Observations, *, metric: str = HEADLINE, by: str = "epochs_allowed"
) -> pd.DataFrame:
    """Values at equal training: columns task, compression_target, level, method, seed, value.

    ``by`` is ``epochs_allowed`` or ``training_multiply_adds`` (of all phases, with pretraining).
    A method that was trained for several lengths, by one recipe or by several, has a curve over them, which is
    interpolated and never extended; one with a single length counts within 5 % of it. Levels are the lengths
    that at least two methods cover. Methods are compared on common seeds, as over a range: one that has not
    finished all of them is left out, and a seed that it failed with is one that it has.
    """
    rows: list[tuple[Any, ...]] = []
    alone = dict(zip(observations.pruned["method"], observations.pruned["method_alone"], strict=True))
    failed: dict[tuple[str, float, str], set[int]] = defaultdict(set)
    for gap in records(observations.gaps):
        failed[gap.task, gap.compression_target, alone.get(gap.method, gap.method)].add(int(gap.seed))
    known = observations.pruned[on_target(observations.pruned)].dropna(subset=[by, metric])
    known = known.assign(method=known["method_alone"])
    for (task, target), cell in groups(known, "task", "compression_target"):
        spans = cell.groupby("method")[by].agg(["min", "max"])
        low, high = spans["min"] * (1 - SAME_TRAINING), spans["max"] * (1 + SAME_TRAINING)
        for level in _distinct(cell[by].to_numpy(dtype=float)):
            covering = spans.index[(low <= level) & (level <= high)]
            if len(covering) < 2:
                continue
            values: dict[str, dict[int, float]] = defaultdict(dict)
            for (method, seed), run in groups(cell[cell["method"].isin(covering)], "method", "seed"):
                value = stats.interpolate(run[by], run[metric], [level], tolerance=SAME_TRAINING)[0]
                if math.isfinite(value):
                    values[method][int(seed)] = float(value)
            has = {method: own.keys() | failed[task, target, method] for method, own in values.items()}
            seeds = shared_units(has, values)
            compared = [method for method, own in values.items() if seeds and own.keys() >= set(seeds)]
            if len(compared) > 1:
                rows += [(task, target, level, m, seed, values[m][seed]) for m in compared for seed in seeds]
    columns = ["task", "compression_target", "level", "method", "seed", "value"]
    return pd.DataFrame(rows, columns=columns)


def _distinct(values: stats.Floats) -> list[float]:
    """Values that differ by more than 5 %, from the smallest up; zeros are left out."""
    kept: list[float] = []
    for value in np.unique(values[values > 0]):
        if not kept or value > kept[-1] * (1 + SAME_TRAINING):
            kept.append(float(value))
    return kept


def winners(observations: Observations, *, metric: str = HEADLINE, axis: str = "compression") -> pd.DataFrame:
    """The best method at every task and level, its lead over the runner-up, and whether they are told apart.

    On the methods and seeds that can be compared at the level. ``p`` is corrected for every comparison of
    :func:`~shrinkbench.report.statistics.claims.judge`; along another axis than compression the same runs are
    seen from another side, and their leads are not tested.
    """
    rows = []
    for task in judge(observations, metric=metric, axis=axis).tasks:
        for level in task.levels:
            claim = level.claim
            if claim is None:
                continue
            best = level.block.methods.index(claim.first)
            sign = observations.direction(task.task, metric)
            rows.append(
                {
                    "task": task.task,
                    "level": level.level,
                    "at": level.block.high,
                    "best": claim.first,
                    "value": sign * level.block.means[best],
                    "runner_up": claim.second,
                    "tied": tuple(c.second for c in level.leads if abs(c.difference) <= TIE),
                    "difference": claim.difference,
                    "low": claim.low,
                    "high": claim.high,
                    "n": claim.n,
                    "p": claim.p,
                    "decided": claim.decided,
                    "slack": claim.slack,
                    "methods": len(level.block.methods),
                    "left_out": len(level.block.left_out),
                }
            )
    return pd.DataFrame(rows)


def pairwise(observations: Observations, *, metric: str = HEADLINE, task: str | None = None) -> pd.DataFrame:
    """Every pair of methods over what they share of the compression range; over tasks without ``task``.

    Of one task the units (``n``) are its seeds, over tasks the tasks; with one task alone, that is meant. ``p``
    is corrected for every comparison of :func:`~shrinkbench.report.statistics.claims.judge`.
    """
    claims = judge(observations, metric=metric)
    if task is None and claims.over_tasks is None and len(claims.tasks) == 1:
        task = claims.tasks[0].task
    of_task = claims.of(task) if task is not None else None
    found = claims.pairs_over_tasks if task is None else of_task.pairs if of_task else ()
    rows = [
        {
            "first": c.first,
            "second": c.second,
            "start": c.reach[0],
            "end": c.reach[1],
            "difference": c.difference,
            "low": c.low,
            "high": c.high,
            "p": c.p,
            "decided": c.decided,
            "n": c.n,
            "slack": c.slack,
            "effect": c.effect.value,
            "effect_low": c.effect.low,
            "effect_high": c.effect.high,
        }
        for c in found
    ]
    return pd.DataFrame(rows)


def curve_summaries(observations: Observations, *, metric: str = HEADLINE) -> pd.DataFrame:
    """Each method's curve in two numbers: the largest compression within a margin of its control, and its area.

    ``shared_within`` is the first of amounts alone that all compared methods have, up to 10 %: who has more
    of them would have a larger one.

    Runs are compared with the control of their seed; an amount that failed, or is missing, for one seed is not
    within. ``area`` is the mean of the metric over log compression on the
    task's common range, mean and sample standard deviation over the common seeds; missing for a method that
    does not cover them.
    """
    rows = []
    runs = observations.pruned
    runs = runs.assign(
        change=runs[metric].to_numpy(dtype=float, na_value=math.nan) - own_controls(observations, metric)
    )
    runs["change"] *= runs["task"].map(lambda task: observations.direction(task, metric)).astype(float)
    runs["change"] /= _sizes(observations, metric)
    means = runs.groupby(["task", "method", "amount"])[["compression", "change"]].mean().reset_index()
    ends = _first_gaps(observations)
    areas = {
        (task.task, method): observations.direction(task.task, metric) * values
        for task in judge(observations, metric=metric).tasks
        for method, values in zip(task.block.methods, task.block.values, strict=True)
    }
    places: dict[str, list[stats.Floats]] = defaultdict(list)
    for (task, method), curve in groups(means, "task", "method"):
        if (task, method) in areas:
            places[task].append(curve["compression"].to_numpy(dtype=float))
    for (task, method), curve in groups(means, "task", "method"):
        whole = curve[curve["compression"] < ends.get((task, method), math.inf)]
        kept = stats.largest_within(whole["compression"], whole["change"], 0.0, tolerance=MARGIN)
        if curve["change"].isna().all():  # no control was run
            kept = math.nan
        of_all = whole[_are_shared(whole["compression"], places[task])]
        shared = stats.largest_within(of_all["compression"], of_all["change"], 0.0, tolerance=MARGIN)
        area = stats.summarise(areas.get((task, method), ()))
        rows.append((task, method, kept, min(kept, shared), area.mean, area.std, area.n))
    columns = ["task", "method", "largest_within", "shared_within", "area", "area_std", "n"]
    return pd.DataFrame(rows, columns=columns)


def _are_shared(compressions: pd.Series, places: Sequence[stats.Floats]) -> np.ndarray:
    """Which of ``compressions`` lie within 10 % of one of each method's ``places``."""
    near = 1 + TOLERANCE
    found = [
        all(bool(((own * near >= x) & (own <= x * near)).any()) for own in places)
        for x in compressions.to_numpy(dtype=float)
    ]
    return np.array(found, dtype=bool)


def _sizes(observations: Observations, metric: str) -> pd.Series:
    """What each run's change is a share of: 1 where the metric is one, else its own control's size."""
    shares = {task for task in observations.tasks if observations.is_share(task, metric)}
    own = own_controls(observations, metric).abs().clip(lower=SMALLEST_YARDSTICK)
    return own.mask(observations.pruned["task"].isin(shares), 1.0)


def _first_gaps(observations: Observations) -> dict[tuple[str, str], float]:
    """Where the first run of each task and method lies that failed or is missing; nothing is known from there.

    A little below the cell, so that what its other seeds achieved is not before it.
    """
    found: dict[tuple[str, str], float] = {}
    for curve in curves(observations, "compression", HEADLINE):
        for hole in curve.holes:
            place = hole.place * (1 - SAME) if math.isfinite(hole.place) else 0.0
            found[curve.task, curve.method] = min(place, found.get((curve.task, curve.method), math.inf))
    return found


def ranking(observations: Observations, *, metric: str = HEADLINE) -> tuple[tuple[str, ...], Ranking]:
    """Ranks of the compared methods by mean over log compression: over tasks or, of one, over its seeds.

    Joined are those that the pairs (:func:`pairwise`) do not tell apart.
    """
    claims = judge(observations, metric=metric)
    block = claims.over_tasks or next((t.block for t in claims.tasks if len(claims.tasks) == 1), None)
    if block is None or len(block.methods) < 2:
        return (), rank_methods(np.empty((0, 0)))
    claims_shown = claims.pairs_over_tasks or claims.tasks[0].pairs
    place = {method: index for index, method in enumerate(block.methods)}
    decided = frozenset(
        (place[c.first], place[c.second])
        for c in claims_shown
        if c.decided and c.first in place and c.second in place
    )
    ranked = rank_methods(block.values.T)
    return block.methods, replace(ranked, joined=join_undecided(ranked.mean_ranks, decided))
