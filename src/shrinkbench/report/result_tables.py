"""The tables of results: by task, curves in two numbers, pairs of methods, measured latency."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from shrinkbench.cells import say_count
from shrinkbench.report.bold import best_by_level, say_where_compared
from shrinkbench.report.recommendation import TOLD_SLACK
from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.aggregates import (
    ENOUGH,
    Estimate,
    aggregate_scores,
    normalised_scores,
)
from shrinkbench.report.statistics.claims import FEWEST_TASKS, judge
from shrinkbench.report.statistics.compare import curve_summaries, pairwise, records, references
from shrinkbench.report.statistics.curves import SAME
from shrinkbench.report.statistics.metrics import HEADLINE, Metric
from shrinkbench.report.statistics.observations import Observations, aggregate
from shrinkbench.report.tables import (
    Cell,
    Table,
    achieved_text,
    amount_text,
    effect,
    interval,
    p_value,
    plus_minus,
    ratio_text,
    slug,
    slugs,
)
from shrinkbench.results.labels import distinct_runs
from shrinkbench.results.record import Latency, RunResult
from shrinkbench.spec.measures import UNSTEADY, WallTime


def amounts_of(cells: pd.DataFrame) -> dict[str, float]:
    """Amounts of aggregated ``cells`` and their targets: compressions first, then by what was achieved."""
    means = cells.groupby("amount")[["compression_target", "compression"]].mean().reset_index()
    ordered = means.sort_values(["compression_target", "compression", "amount"])  # missing targets last
    return dict(zip(ordered["amount"], ordered["compression_target"], strict=True))


def result_tables(observations: Observations, metric: str) -> list[Table]:
    """One table per task: controls and methods by amount, mean ± sample standard deviation, best in bold.

    Where what was achieved does not follow from the amount, it stands beside. The best of a column is of those
    that can be compared there: the same seeds, and the compression reached.
    """
    pruned, controls = aggregate(observations.pruned, [metric]), aggregate(observations.control, [metric])
    counts = observations.pruned.groupby(["task", "method", "amount"])[metric].count()
    pruned["n"] = [
        counts[cell] for cell in zip(pruned["task"], pruned["method"], pruned["amount"], strict=True)
    ]
    own = references(observations, metric)
    claims = judge(observations, metric=metric)
    best = best_by_level(claims)
    return [
        _result_table(
            observations,
            (observations.metric(task, metric), metric),
            task,
            pruned[pruned["task"] == task],
            controls[controls["task"] == task],
            own,
            best,
            note=say_where_compared(claims, task),
        )
        for task in observations.tasks
    ]


def _result_table(
    observations: Observations,
    shown: tuple[Metric, str],
    task: str,
    here: pd.DataFrame,
    controls: pd.DataFrame,
    own: Mapping[tuple[str, str], stats.Summary],
    best: Mapping[tuple[str, float], frozenset[str]],
    *,
    note: str,
) -> Table:
    amounts = amounts_of(here)
    kind, column = shown
    columns = {"mean": here[column], "spread": here[f"{column}_std"]}
    here = here.assign(**columns)
    entries = {
        (r.method, r.amount): Cell(
            kind.plus_minus(r.mean, r.spread) + achieved_text(r.compression_target, r.compression),
            best=r.method in best.get((task, r.compression_target), ()),
        )
        for r in records(here)
    }
    rows: list[tuple[Cell, ...]] = []
    for name, mean, spread in zip(controls["method"], controls[column], controls[f"{column}_std"], strict=True):
        reference = kind.plus_minus(mean, spread)
        rows.append((Cell(name), Cell(reference), *(Cell("") for _ in amounts)))
    several = len(rows) > 1
    for method in observations.methods:
        if any((method, amount) in entries for amount in amounts):
            start = own.get((task, method))
            first = kind.plus_minus(start.mean, start.std) if several and start else ""
            rows.append((Cell(method), Cell(first), *(entries.get((method, a), Cell("–")) for a in amounts)))
    return Table(
        name=f"{kind.column}-{slugs(observations.tasks)[task]}",
        caption=_result_caption(task, kind, here, several=several) + note,
        columns=("method", "1×", *(amount_text(a, target) for a, target in amounts.items())),
        rows=tuple(rows),
        group=_group_of(observations, task, column),
    )


def _group_of(observations: Observations, task: str, column: str) -> str:
    """The heading of a table: its metric, or that it is of an extra evaluation split."""
    kind, headline = observations.metric(task, column), observations.metric(task)
    extra = kind.column in {f"{split}_{headline.column}" for split in observations.splits}
    if extra:
        return "Extra evaluation splits"
    alike = [m for t in observations.tasks for m in observations.metrics(t).values() if m.label == kind.label]
    differs = any(metric.higher_is_better != kind.higher_is_better for metric in alike)
    title = f"{kind.label[:1].upper()}{kind.label[1:]}"
    return f"{title} ({'more' if kind.higher_is_better else 'less'} is better)" if differs else title


def folded_groups(observations: Observations) -> frozenset[str]:
    """The groups of tables that a page opens on request: metrics that no task leads with."""
    leading = {_group_of(observations, task, HEADLINE) for task in observations.tasks}
    others = {
        _group_of(observations, task, column)
        for task in observations.tasks
        for column in observations.others(task)
    }
    return frozenset(others - leading)


def _result_caption(task: str, kind: Metric, cells: pd.DataFrame, *, several: bool) -> str:
    counts = sorted(cells.loc[cells["n"] > 0, "n"].unique())
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"
    text = f"{task}: {kind.label}{_unit_of(kind)}, mean ± sample standard deviation over {seeds} seeds."
    if several:
        text += " At 1× each method has its own control."
    if any(map(achieved_text, cells["compression_target"], cells["compression"])):
        text += " In brackets: the compression that was achieved."
    return text


def _unit_of(kind: Metric) -> str:
    """The unit after a metric's label, which names those that are not percent itself."""
    return " in %" if kind.percent else ""


def summary_tables(observations: Observations) -> list[Table]:
    """Largest compression within the margin of the control, and the mean over log compression, by scale."""
    frame = curve_summaries(observations)
    several = len(observations.scales) > 1
    return [
        _summary_table(
            frame[frame["task"].isin(scale.tasks)],
            scale.metric,
            f"curve-summary-{observations.stem(scale.metric)}" if several else "curve-summary",
        )
        for scale in observations.scales
    ]


def _summary_table(frame: pd.DataFrame, metric: Metric, name: str) -> Table:
    compared = frame["shared_within"].where(frame["area"].notna())
    best = compared.groupby(frame["task"]).transform("max").to_frame()
    best["area"] = frame.groupby("task")["area"].transform("max" if metric.higher_is_better else "min")
    rows = tuple(
        (
            Cell(row.task),
            Cell(row.method),
            Cell(
                f"{row.largest_within:.3g}×" if math.isfinite(row.largest_within) else "–",
                best=bool(row.shared_within * (1 + SAME) >= widest and row.n),
            ),
            Cell(metric.plus_minus(row.area, row.area_std), best=bool(row.area == area)),
            Cell(str(row.n)),
        )
        for row, widest, area in zip(records(frame), best["shared_within"], best["area"], strict=True)
    )
    return Table(
        name=name,
        caption=f"Curves in two numbers: the largest measured compression within "
        f"{'one point' if metric.percent else '1 %'} of the {metric.short} of the method's "
        f"own control, before the first failed or missing run, and mean {metric.short}{metric.in_unit} "
        "over log compression on the range and seeds (n) that are compared on the task; – where a method takes "
        "no part, and is bold in neither. Bold in the first is by amounts that all compared methods have.",
        columns=("task", "method", f"within {metric.margin}", "mean over log compression", "n"),
        rows=rows,
        stubs=2,
        group="Curves in two numbers",
    )


def pairwise_table(observations: Observations, *, task: str | None = None) -> Table:
    """Every pair of methods: difference, interval, corrected p, n, effect; over tasks without ``task``."""
    claims = judge(observations)
    where = task or "all tasks"
    unit = "task" if task is None and len(claims.tasks) > 1 else "seed"
    over = "each over its own common range" if unit == "task" else "over the range in the table"
    compared = [task] if task else _compared_over(observations)
    metric = observations.metric(compared[0] if compared else observations.tasks[0])
    signed = (
        "first minus second" if metric.higher_is_better else "second minus first (positive: first is better)"
    )
    rules = observations.design.rules if observations.design else None
    reach, alpha = ("over all looks", rules.alpha) if rules else ("of one comparison", stats.ALPHA)
    tested = (
        f" with the 95 % interval {reach}; p (bold: p < {alpha:g}) corrected for "
        f"{say_count(claims.comparisons, 'comparison', 'comparisons')} of the report"
    )
    pairs = pairwise(observations, task=task)
    slack = pairs["slack"].max() if len(pairs) else 0.0
    if compared and slack >= TOLD_SLACK * observations.yardstick(compared[0]):
        tested += f", for more than the places of runs may make (up to {metric.difference(slack)})"
    if unit == "task" and claims.over_tasks and len(claims.over_tasks.units) < FEWEST_TASKS:
        tested = f"; two tasks are shown and not judged, as {FEWEST_TASKS} are the fewest for that"
    return Table(
        name=f"pairs-{slug(where)}",
        caption=f"Pairs of methods on {where}: mean {metric.short} over log compression, {over}, {signed} in "
        f"{'points' if metric.percent else metric.unit or metric.short}{tested}; n {unit}s, paired; effect "
        "size d_z.",
        columns=(
            *("first", "second", "points" if metric.percent else "better by", "95 % interval", "p"),
            *("n", "range", "d_z"),
        ),
        rows=tuple(_pair(r, metric) for r in records(pairs)),
        stubs=2,
        group="Pairs of methods",
    )


def _compared_over(observations: Observations) -> list[str]:
    """The tasks of the comparison over tasks, or the only one."""
    claims = judge(observations)
    aside = claims.over_tasks.units_left_out if claims.over_tasks else ()
    return [task.task for task in claims.tasks if task.task not in aside]


def _pair(r: Any, metric: Metric) -> tuple[Cell, ...]:
    plus = "+" if math.copysign(1.0, r.difference) > 0 else ""
    return (
        Cell(r.first),
        Cell(r.second),
        Cell(f"{plus}{metric.number(r.difference)}", best=bool(r.decided)),
        Cell(metric.interval(r.low, r.high)),
        Cell(p_value(r.p)),
        Cell(str(r.n)),
        Cell(f"{r.start:.3g}–{ratio_text(r.end)}" if math.isfinite(r.end) else "each task’s"),
        Cell(effect(r.effect, r.effect_low, r.effect_high)),
    )


def over_tasks_table(observations: Observations) -> Table | None:
    """Aggregates of normalised scores over tasks; ``None`` where they cannot be compared over two tasks."""
    scores = normalised_scores(observations)
    if scores is None:
        return None
    tasks = len(scores.tasks)
    caution = (
        f" With {tasks} tasks (fewer than {ENOUGH}) these intervals are too narrow: 95 % is not what they hold."
        if tasks < ENOUGH
        else ""
    )
    without = f" No own control: {', '.join(scores.without_control)}." if scores.without_control else ""
    rows = aggregate_scores(scores)
    metric = observations.metric(_compared_over(observations)[0])
    average = f"mean {metric.short} over log compression"
    control = "the run’s own control"
    decides = (
        "Whether methods differ the table of pairs decides, not this."
        if tasks >= FEWEST_TASKS
        else "Two tasks do not decide whether methods differ."
    )
    share = f"{average} divided by {control}" if metric.higher_is_better else f"{control} divided by {average}"
    return Table(
        name="over-tasks",
        caption=f"Over {tasks} tasks and {scores.values.shape[1]} runs of each method: "
        f"{share}, in % (100: as if not pruned), with 95 % intervals of a "
        "bootstrap that draws tasks, then seeds; and the probability that, on one task, a run of "
        f"{rows[0].method} scores more. {decides}"
        f"{caution}{without}",
        columns=("method", "interquartile mean", "median of tasks", "mean", f"P({rows[0].method} is better)"),
        rows=tuple(
            (
                Cell(row.method),
                *(Cell(_estimate(e, 2)) for e in (row.interquartile_mean, row.median, row.mean)),
                Cell(_estimate(row.beaten, 0) if row.beaten else "–"),
            )
            for row in rows
        ),
        group="Over tasks",
    )


def _estimate(estimate: Estimate, digits: int) -> str:
    """A share in percent with its interval."""
    bounds = interval(100 * estimate.low, 100 * estimate.high, digits)
    return f"{100 * estimate.value:.{digits}f} {bounds}".strip()


def latency_table(results: Iterable[RunResult]) -> Table | None:
    """Measured wall times beside theoretical speedups, mean over seeds; ``None`` where none were taken."""
    cells: dict[tuple[Any, ...], list[tuple[Latency, RunResult]]] = {}
    for run, label in distinct_runs(run for run in results if run.status == "done"):
        for timed in run.provenance.latency:
            how = (
                *(timed.batch_size, timed.form, timed.threads, timed.precision),
                *(run.provenance.device, timed.memory_format),
            )
            cells.setdefault((label.task, label.method, label.amount, *how), []).append((timed, run))
    rows = sorted((_timed_row(cell, found) for cell, found in cells.items()), key=lambda row: row[0])
    if not rows:
        return None
    return Table(
        name="latency",
        caption="Measured latency: milliseconds of a forward pass of one batch, dense and pruned (timed in "
        "turn), median of the rounds and in brackets their interquartile range, and how many times faster that "
        "is, beside the theoretical speedup; means over seeds. Small: masked channels were cut out; masked: "
        f"the network is as large as before. An asterisk: the range is above {100 * UNSTEADY:.0f} % of "
        "the median, so that the time is unsteady.",
        columns=(
            *("task", "method", "amount", "batch", "form", "dense ms", "pruned ms"),
            *("measured speedup", "theoretical", "measured on"),
        ),
        rows=tuple(row for _, row in rows),
        stubs=2,
        group="Measured latency",
    )


def _timed_row(
    cell: tuple[Any, ...], found: list[tuple[Latency, RunResult]]
) -> tuple[tuple[Any, ...], tuple[Cell, ...]]:
    """The place of a row, by achieved compression, and its cells."""
    task, method, amount, batch, form, threads, precision, device, layout = cell
    sizes = [run.size for _, run in found if run.size]
    achieved, target = fmean(size.compression for size in sizes), found[0][1].spec.target
    ratios = [timed.dense_seconds / timed.seconds for timed, _ in found]
    spread = stdev(ratios) if len(ratios) > 1 else math.nan
    texts = (
        *(task, method, amount_text(amount, target) + achieved_text(target, achieved), str(batch), form),
        _milliseconds([(timed.dense_seconds, timed.dense_time) for timed, _ in found]),
        _milliseconds([(timed.seconds, timed.time) for timed, _ in found]),
        plus_minus(fmean(ratios), spread, percent=False),
        f"{fmean(size.theoretical_speedup for size in sizes):.3g}",
        ", ".join(filter(None, (device, f"{threads} threads", precision, layout))),
    )
    place = (task, method, achieved, *cell[2:-1], layout or "")
    return place, tuple(map(Cell, texts))


def _milliseconds(found: Sequence[tuple[float, WallTime | None]]) -> str:
    """Median and, where it was recorded, interquartile range, means over seeds; unsteady ones marked."""
    text = f"{1e3 * fmean(seconds for seconds, _ in found):.3g}"
    times = [time for _, time in found if time is not None]
    if times:
        text += f" ({1e3 * fmean(time.range for time in times):.2g})"
    return f"{text}*" if any(time.unsteady for time in times) else text


def all_tables(observations: Observations) -> list[Table]:
    """Every table of the report: headline, other metrics, extra splits, summaries, over tasks, pairs."""
    tables = [table for scale in observations.scales for table in _scale_tables(observations.only(scale.tasks))]
    pairs = [pairwise_table(observations)] if observations.tasks else []  # of failures alone there are none
    if len(observations.tasks) > 1:
        pairs += [pairwise_table(observations, task=task) for task in observations.tasks]
    over = over_tasks_table(observations)
    return [
        *tables,
        *summary_tables(observations),
        *filter(None, [over]),
        *(table for table in pairs if table.rows),
    ]


def _scale_tables(observations: Observations) -> list[Table]:
    """Tables of one scale by metric: the headline first, then others, then it on extra splits."""
    headline = observations.scales[0].metric.column
    others = dict.fromkeys(c for task in observations.tasks for c in observations.others(task))
    tables = [*result_tables(observations, HEADLINE)]
    for column in (*others, *(f"{split}_{headline}" for split in observations.splits)):
        having = [task for task in observations.tasks if observations.has(task, column)]
        tables += result_tables(observations.only(having), column)
    return tables
