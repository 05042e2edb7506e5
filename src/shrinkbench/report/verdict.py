"""The answer first: what to use, by how much it is better, over which range, and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from shrinkbench.cells import say_count
from shrinkbench.report.races import describe_race, describe_rules
from shrinkbench.report.recommendation import (
    TOLD_SLACK,
    listed,
    only_pairs_text,
    over_tasks_text,
    range_text,
    recommend,
    segments_text,
    slack_text,
)
from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.blocks import LeftOut
from shrinkbench.report.statistics.claims import FEWEST_TASKS, Claims, TaskClaims, judge
from shrinkbench.report.statistics.compare import TIE, at_equal_training, ranking, records, winners
from shrinkbench.report.statistics.curves import own_controls, repeated_amounts
from shrinkbench.report.statistics.metrics import HEADLINE, Metric
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.report.statistics.places import breadth, pair_of, place_of
from shrinkbench.report.statistics.ranks import Ranking
from shrinkbench.report.tables import ratio_text

BASES = {
    "compression": "at equal size",
    "theoretical_speedup": "at equal theoretical speedup",
    "measured_speedup": "at equal measured speedup",
}


@dataclass(frozen=True)
class Win:
    """The best method at one level of one task; ``decided`` if it is told apart from the runner-up.

    ``tied`` are methods whose mean is the same. ``at`` is where methods were compared, which may lie a little
    below ``level``; ``left_out`` counts methods that took no part there. ``slack`` is what the places of runs
    may make of the lead, where that is told.
    """

    level: float
    at: float
    best: str
    value: float
    runner_up: str
    tied: tuple[str, ...]
    difference: float
    low: float
    high: float
    p: float
    n: int
    decided: bool
    slack: float
    methods: int
    left_out: int


@dataclass(frozen=True)
class Basis:
    """Winners of one task, everything compared at equal levels of one quantity, and who was left out where."""

    axis: str
    label: str
    wins: tuple[Win, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskVerdict:
    """What can be said about one task: a recommendation, who was left out, and winners level by level."""

    task: str
    sentences: tuple[str, ...]
    bases: tuple[Basis, ...]


@dataclass(frozen=True)
class Verdict:
    """The whole answer: a headline, what limits it, and the tasks one by one."""

    headline: str
    ranking: Ranking
    ranked: tuple[str, ...]
    warnings: tuple[str, ...]
    tasks: tuple[TaskVerdict, ...]
    comparisons: int


def reach_verdict(observations: Observations) -> Verdict:
    """Compare methods by what each task leads with: over ranges, at levels of size, and at levels of speed."""
    claims = judge(observations)
    tables = {axis: winners(observations, axis=axis) for axis in BASES}
    ranked, order = ranking(observations)
    tasks = tuple(
        TaskVerdict(
            task,
            tuple(describe_task(observations, claims.of(task))),
            tuple(
                _basis(
                    axis,
                    table[table["task"] == task] if len(table) else table,
                    found,
                    told=TOLD_SLACK * observations.yardstick(task),
                )
                for axis, table in tables.items()
                if (found := judge(observations, axis=axis).of(task)) is not None and _are_several(found)
            ),
        )
        for task in observations.tasks
    )
    return Verdict(
        headline=_headline(observations, claims, tasks),
        ranking=order,
        ranked=ranked,
        warnings=tuple(_warnings(observations, claims)),
        tasks=tasks,
        comparisons=claims.comparisons,
    )


def _are_several(claims: TaskClaims) -> bool:
    """Whether there is anything to be compared, were it left out."""
    return len(claims.block.methods) + len(claims.block.left_out) > 1


def _basis(axis: str, table: pd.DataFrame, claims: TaskClaims, *, told: float) -> Basis:
    """Winners along one axis; only those at equal size are tested."""
    wins = tuple(
        Win(
            **{n: getattr(row, n) for n in Win.__dataclass_fields__ if n not in ("decided", "slack")},
            decided=bool(row.decided) and axis == "compression",
            slack=row.slack if row.slack >= told else 0.0,
        )
        for row in records(table)
    )
    return Basis(axis, BASES[axis], wins, tuple(_left_out_at_levels(claims)))


def _left_out_at_levels(claims: TaskClaims) -> Iterator[str]:
    """Who takes no part at which levels, and why; without any level, who takes none over the range."""
    where: dict[LeftOut, list[str]] = {}
    for level in claims.levels:
        for one in level.block.left_out:
            where.setdefault(one, []).append(f"{level.level:g}×")
    if not claims.levels:
        where = {one: [] for one in claims.block.left_out}
    for one, levels in where.items():
        yield f"{one.method}{' at ' * bool(levels)}{', '.join(levels)}: {one.why}"


def _headline(observations: Observations, claims: Claims, tasks: Sequence[TaskVerdict]) -> str:
    if len(observations.methods) < 2:
        return "Fewer than two methods have finished runs: there is nothing to compare."
    if len(tasks) == 1:
        return " ".join(tasks[0].sentences)
    block = claims.over_tasks
    if observations.design is not None:
        return "Seeds were added until decided, task by task: each task has its own answer below."
    if block is None or len(block.methods) < 2:
        return f"{_why_not_over_tasks(observations, claims)} Each task has its own answer below."
    ordered = [block.methods[i] for i in (-block.means).argsort(kind="stable")]
    compared = [t for t in observations.tasks if claims.of(t) and t not in block.units_left_out]
    metric = observations.metric(compared[0])
    yardstick = sum(map(observations.yardstick, compared)) / len(compared)
    text = over_tasks_text(
        block.units,
        ordered[0],
        claims.pairs_over_tasks,
        ordered,
        metric,
        yardstick=yardstick,
        breadth=breadth([observations.task_specs[task] for task in compared]),
    )
    if len(block.units) >= FEWEST_TASKS:  # of fewer nobody is told apart
        slack = slack_text(block, metric, yardstick, "on average over tasks")
        text += f" {slack}".rstrip()
    planned = dict.fromkeys([*observations.tasks, *observations.gaps["task"]])
    aside = [*block.units_left_out, *(task for task in planned if claims.of(task) is None)]
    aside = [f"{task}{_other_metric(observations, task, metric)}" for task in aside]
    return f"{text}{left_out_text(block.left_out)}" + (f" Not part of it: {listed(aside)}." if aside else "")


def _why_not_over_tasks(observations: Observations, claims: Claims) -> str:
    """Why nothing is said over tasks."""
    scales = {task: scale.metric for scale in observations.scales for task in scale.tasks}
    places: dict[object, set[object]] = {}
    for task in claims.tasks:
        places.setdefault(scales[task.task], set()).add(place_of(observations.task_specs[task.task]))
    if len(claims.tasks) < 2:
        return "Runs that prune are finished on fewer than two tasks."
    if len({place for found in places.values() for place in found}) < 2:
        names = {observations.task_specs[task.task].data.name for task in claims.tasks}
        alike = "are one content under several names, or " * (len(names) > 1)
        return f"Nothing is said over tasks: they {alike}differ in initial weights alone, and count as one."
    if max(map(len, places.values())) < 2:
        return "Nothing is said over tasks: no two are measured by one metric."
    if claims.over_tasks is not None:
        lacking = left_out_text(claims.over_tasks.left_out)
        return f"Nothing is said over tasks: fewer than two methods are compared on all of them.{lacking}"
    several = len(claims.tasks) > sum(map(len, places.values()))
    all_weights = " (on all the initial weights of each)" * several
    return f"Nothing is said over tasks: no two methods are both compared on two of them{all_weights}."


def _other_metric(observations: Observations, task: str, metric: Metric) -> str:
    """The metric of a task, in brackets, where it is another one."""
    own = observations.metric(task) if task in observations.tasks else metric
    if own == metric:
        return ""
    alike = own.short == metric.short
    return f" ({own.short}{', of which less is better' * (alike and not own.higher_is_better)})"


def describe_task(observations: Observations, claims: TaskClaims | None, *, disputed: int = 0) -> Iterator[str]:
    """The recommendation for a task, its evidence, and what was left out of that.

    ``disputed`` counts finished runs that ``observations`` do not hold since sources contradict each other.
    """
    if claims is None:
        yield (
            f"No run that prunes is finished and undisputed: sources contradict each other on {disputed} "
            f"finished run{'s' if disputed > 1 else ''}, or on {'their' if disputed > 1 else 'its'} control."
            if disputed
            else "No run that prunes is finished."
        )
        return
    metric, yardstick = observations.metric(claims.task), observations.yardstick(claims.task)
    segments = recommend(claims, sign=metric.sign, yardstick=yardstick)
    if segments:
        yield f"{segments_text(segments, metric)}."
    if claims.race is not None and observations.design is not None:
        yield f"{describe_race(claims.race, observations.design.rules, metric)}."
        rows = observations.pruned[observations.pruned["task"] == claims.task]
        others = [str(seed) for seed in sorted(set(rows["seed"].astype(int)) - set(claims.race.seeds))]
        if others:
            beyond = "" if claims.race.state == "waiting" else "; these rules did not ask for them"
            yield f"Seeds that no look took in were run too, and take no part in it: {listed(others)}{beyond}."
    if len(claims.block.methods) > 1:
        yield range_text(claims, _control_text(observations, claims), metric, yardstick=yardstick)
    elif claims.race is None or claims.race.seeds:  # else no look was taken yet
        yield only_pairs_text(claims)
    left_out = left_out_text(claims.block.left_out).strip()
    if left_out:
        yield left_out
    uncounted = [
        f"{method} at {listed([ratio_text(run) for run in runs])}"
        for method, runs in claims.block.uncounted.items()
    ]
    if uncounted:
        named = listed(uncounted, "; ")
        yield f"Runs between those of other compared methods do not count over the range: {named}."
    slack = slack_text(claims.block, metric, yardstick)
    if slack:
        yield slack
    if claims.block.units_left_out:
        seeds = listed(claims.block.units_left_out)
        yield f"Other seeds, which too few methods share, were left out: {seeds}."


def _control_text(observations: Observations, claims: TaskClaims) -> str:
    """The control of the best method on the compared seeds, in brackets."""
    block = claims.block
    pruned = observations.pruned
    rows = pruned[
        (pruned["task"] == claims.task)
        & (pruned["method"] == block.methods[int(block.means.argmax())])
        & pruned["seed"].astype(str).isin(block.units)
    ]
    known = rows.assign(value=own_controls(observations, HEADLINE)).dropna(subset=["value"])
    if known.empty:
        return " (it has no finished control)"
    count = known["seed"].nunique()
    aside = f" on {count} of {len(block.units)} seeds" if count < len(block.units) else ""
    mean = known.drop_duplicates("control_key")["value"].mean()
    return f" (its control {observations.metric(claims.task).text(mean)}{aside})"


def left_out_text(left_out: Iterable[LeftOut]) -> str:
    """Who took no part, and why."""
    found = [f"{one.method} ({one.why})" for one in left_out]
    return f" Not compared: {'; '.join(found)}." if found else ""


def _warnings(observations: Observations, claims: Claims) -> Iterator[str]:
    """What limits the claim: failed and missing runs, few seeds, few tasks."""
    yield from _absent(observations)
    repeated = repeated_amounts(observations)
    if repeated:
        where = [f"{m} on {task} with {listed(amounts)}" for (task, m), amounts in repeated.items()]
        yield (
            f"Several amounts reached one compression, up to 1 %: {listed(where, '; ')}. Where it is compared "
            "the mean of a seed’s runs counts."
        )
    if observations.design is not None:
        yield describe_rules(observations.design.rules)
    seeds = {task.task: len(task.block.units) for task in claims.tasks if len(task.block.methods) > 1}
    fewest = min(seeds.values(), default=0)
    if seeds and stats.too_few(fewest):
        where = [task for task, n in seeds.items() if n == fewest]
        yield f"Within {'a task' if len(where) == len(seeds) else listed(where)}, {stats.too_few(fewest)}."
    tasks = [observations.task_specs[task] for task in observations.pruned["task"].unique()]
    pairs = len({pair_of(task) for task in tasks})
    if 0 < pairs < 3:
        named = len({(task.data.name, task.model.name) for task in tasks})
        once = " (one content under several names counts once)" if named > pairs else ""
        yield (
            f"{pairs} pair{'s' if pairs != 1 else ''} of dataset and network{once}: the order of methods "
            "may differ on others."
        )
    yield from _at_equal_training(observations)


_WHAT = {
    "failed": ("failed", "failed"),
    "missing": ("of the plan is missing", "of the plan are missing"),
    "disputed": (
        "has two outcomes, or its control has",
        "have two outcomes, or their control has",
    ),
}


def _absent(observations: Observations) -> Iterator[str]:
    """Runs that failed or are missing, by method; they forbid every claim over a range that they lie in.

    Controls, which methods share, are counted beside.
    """
    controls = {kind: count for kind, count in observations.absent_controls.items() if count}
    for kind, rows in observations.gaps.groupby("kind"):
        counts = rows["method"].value_counts(sort=True)
        named = [f"{method} {count}" for method, count in counts.items()]
        one, many = _WHAT[str(kind)]
        runs = f"{len(rows)} runs {many}" if len(rows) > 1 else f"1 run {one}"
        beside = controls.pop(str(kind), 0)
        also = f", and {beside} control{'s' * (beside > 1)}" if beside else ""
        yield (
            f"{runs} ({listed(named)}){also}: no claim is made for or "
            "against a method over a range in which it lacks one of a compared seed."
        )
    for kind, count in controls.items():
        yield f"{count} control{f's {_WHAT[kind][1]}' if count > 1 else f' {_WHAT[kind][0]}'}."


def _at_equal_training(observations: Observations) -> Iterator[str]:
    """Who is best at equal training, where methods were given several lengths of it."""
    if observations.pruned["epochs_allowed"].nunique() < 2:
        return
    table = at_equal_training(observations)
    if table["method"].nunique() < 2 or table["level"].nunique() < 2:
        return
    table["value"] *= table["task"].map(observations.direction)
    means = table.groupby(["task", "compression_target", "level", "method"])["value"].mean().reset_index()
    highest = means.groupby(["task", "compression_target", "level"])["value"].transform("max")
    first = means[means["value"] >= highest - TIE]
    several = first.duplicated(["task", "compression_target", "level"], keep=False)
    best = Counter(first.loc[~several, "method"])
    tally = [f"{method} {count}" for method, count in best.most_common()]
    ties = first[several].drop_duplicates(["task", "compression_target", "level"])
    tally += [f"level in {len(ties)}"] * bool(len(ties))
    number = best.total() + len(ties)
    yield (
        "At equal numbers of epochs (interpolated between those that each method was given) and on common "
        f"seeds, the {_best_word(observations)} mean in {say_count(number, 'comparison', 'comparisons')}, "
        f"which are not tested: {', '.join(tally)}."
    )


def _best_word(observations: Observations) -> str:
    """``highest`` or ``lowest``; ``best`` where tasks differ in it."""
    words = {scale.metric.best for scale in observations.scales}
    return words.pop() if len(words) == 1 else "best"
