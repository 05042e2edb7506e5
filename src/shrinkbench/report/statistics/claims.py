"""Is A better than B? One answer to each question that the report is asked, corrected for all of them.

Questions are: over the common range of a task (every pair of methods), at one level of a task (the best method
against the runner-up), and over tasks (every pair, where there are several). Units are the seeds of a task, or
the tasks; see docs/statistics.md for the choices and their error rates.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.blocks import (
    Block,
    LeftOut,
    Stretches,
    common_block,
    known_stretches,
    shared_units,
)
from shrinkbench.report.statistics.curves import Curve, curves, default_levels
from shrinkbench.report.statistics.metrics import HEADLINE
from shrinkbench.report.statistics.observations import Design, Observations
from shrinkbench.report.statistics.pairs import (
    Claim,
    Layout,
    Noise,
    compare_pair,
    compare_pairs,
    mean_of,
    relative_noise,
)
from shrinkbench.report.statistics.places import place_of
from shrinkbench.report.statistics.readings import Slack
from shrinkbench.report.statistics.sequential import Race, race, widen

__all__ = ["Claim", "Claims", "Level", "TaskClaims", "found_with", "judge", "judge_curves", "more_units"]

FEWEST_TASKS = 3
"""Claims over tasks are made from as many: two may agree by chance, which hides how a method varies."""
SHARES = {"range": 0.25, "tasks": 0.25, "level": 0.5}
"""How the 5 % are shared among the questions; one that is not asked gives its share to the levels."""


@dataclass(frozen=True, eq=False)
class Level:
    """What can be said at one level of a task; ``claim`` is missing where one method alone can be compared.

    ``leads`` are those of the best method over each other one, by themselves: they are not shown.
    """

    level: float
    block: Block
    claim: Claim | None
    leads: tuple[Claim, ...] = ()


@dataclass(frozen=True, eq=False)
class TaskClaims:
    """A task's comparison over its common range, its pairs, and its levels one by one.

    ``looks`` counts the leads of best methods over others at all levels of all tasks. ``race`` is how a
    comparison went whose number of seeds was decided on the way; its levels are shown and not tested.
    ``known`` are the stretches over which a method was measured on the compared seeds.
    """

    task: str
    block: Block
    pairs: tuple[Claim, ...]
    levels: tuple[Level, ...]
    looks: int = 0
    race: Race | None = None
    known: Mapping[str, Stretches] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Claims:
    """All answers. ``over_tasks`` has tasks as units, ``comparisons`` is what p-values are corrected for."""

    tasks: tuple[TaskClaims, ...]
    over_tasks: Block | None
    pairs_over_tasks: tuple[Claim, ...]
    comparisons: int

    def of(self, task: str) -> TaskClaims | None:
        """The answers about one task."""
        return next((found for found in self.tasks if found.task == task), None)


@functools.lru_cache(maxsize=16)
def judge(observations: Observations, *, metric: str = HEADLINE, axis: str = "compression") -> Claims:
    """Answer all questions about ``observations``; decisions of the report are those along compression.

    Of a sequential design one question is tested, that which decided how many seeds there are: of another
    metric or axis values are given, of the methods and seeds of the last look, and nothing is told apart.
    """
    decisive = (metric, axis) == (HEADLINE, "compression")
    design = observations.design if decisive else None
    if design is not None:
        design = replace(design, yardsticks={t: observations.yardstick(t) for t in observations.tasks})
    found = curves(observations, axis, metric)
    aside = observations.design is not None and not decisive
    looked = {t.task: t.race for t in judge(observations).tasks if t.race} if aside else {}
    if aside:
        found = tuple(c for c in found if (last := looked.get(c.task)) and last.has(c.method, c.seed))
    claims = judge_curves(
        found,
        default_levels(observations, axis),
        places={task: place_of(spec) for task, spec in observations.task_specs.items()},
        order=observations.methods,
        scales={task: scale.metric for scale in observations.scales for task in scale.tasks},
        falling={task for task in observations.tasks if observations.direction(task, metric) < 0},
        design=design,
    )
    return _untested(claims, looked) if aside else claims


def _untested(claims: Claims, looked: Mapping[str, Race]) -> Claims:
    """The same differences, none of them told apart; intervals are those of the last look of each task."""

    def plain(claim: Claim) -> Claim:
        return replace(claim, p=math.nan, p_raw=math.nan)

    def shown(task: TaskClaims) -> TaskClaims:
        level = looked[task.task].level
        pairs = (plain(widen(claim, level, p_raw=math.nan)) for claim in task.pairs)
        return replace(task, pairs=tuple(pairs), levels=tuple(_untested_level(lv, level) for lv in task.levels))

    over = tuple(map(plain, claims.pairs_over_tasks))
    return replace(claims, tasks=tuple(map(shown, claims.tasks)), pairs_over_tasks=over)


def _untested_level(shown: Level, level: float) -> Level:
    """What is shown and not tested, with the intervals of a single test at ``level``."""
    leads = tuple(replace(widen(lead, level, p_raw=math.nan), p=math.nan) for lead in shown.leads)
    return replace(shown, claim=leads[0] if leads else None, leads=leads)


def judge_curves(
    found: Iterable[Curve],
    levels: Sequence[float],
    *,
    places: Mapping[str, object],
    order: Sequence[str] = (),
    scales: Mapping[str, object] | None = None,
    falling: Container[str] = (),
    design: Design | None = None,
) -> Claims:
    """Answer all questions about curves at ``levels``.

    Tasks of equal ``places`` (data, by content, and network) are one unit over tasks, and tasks
    of equal ``scales`` (metric, direction and unit) alone are compared over tasks: those of the scale that has
    most. ``falling`` are tasks of which less is better. With a sequential ``design`` the one question is every
    pair over the range of a task.
    """
    by_task: dict[str, list[Curve]] = defaultdict(list)
    rank = {method: place for place, method in enumerate(order)}
    for curve in sorted(found, key=lambda c: (c.task, rank.get(c.method, len(rank)), c.method, c.seed)):
        by_task[curve.task].append(replace(curve, y=-curve.y) if curve.task in falling else curve)
    if design is not None:
        return _judge_sequentially(by_task, levels, design)
    at = {task: _blocks_at(members, levels) for task, members in by_task.items()}
    blocks = {task: common_block(members) for task, members in by_task.items()}
    # who is not compared tells nothing of who is
    noise = relative_noise(found.of(blocks[task].methods) for task in at for _, found in at[task])
    tasks = [_judge_task(blocks[task], members, at[task], noise) for task, members in by_task.items()]
    over = _over_scales(tasks, places, scales or {})
    own = replace(relative_noise([over] if over else []), blocks=0)
    pairs = compare_pairs("tasks", "", over, own.at_least(noise)) if over else []
    if over and len(over.units) < FEWEST_TASKS:
        shown = [replace(claim, p_raw=math.nan, low=math.nan, high=math.nan) for claim in pairs]
        return replace(_corrected(tasks, over, ()), pairs_over_tasks=tuple(shown))
    return _corrected(tasks, over, pairs)


def _judge_sequentially(
    by_task: Mapping[str, Sequence[Curve]], levels: Sequence[float], design: Design
) -> Claims:
    """Pairs as of the looks at them; levels as of each task's last look, shown and not tested."""
    tasks = []
    for found in race(by_task, levels, design):
        members = [c for c in by_task[found.task] if c.method in found.block.methods and c.seed in found.seeds]
        at = _blocks_at(members, levels)
        noise = relative_noise([block for _, block in at])
        judged = (_judge_level(found.task, level, block, noise) for level, block in at)
        shown = [_untested_level(level, found.level) for level in judged]
        known = known_stretches(members, found.block.units)
        tasks.append(TaskClaims(found.task, found.block, found.pairs, tuple(shown), race=found, known=known))
    return Claims(tuple(tasks), None, (), sum(len(task.pairs) for task in tasks))


def _blocks_at(members: Sequence[Curve], levels: Sequence[float]) -> list[tuple[float, Block]]:
    at = [(level, common_block(members, level=level)) for level in levels]
    return [(level, found) for level, found in at if found.methods]


def _judge_task(
    block: Block, members: Sequence[Curve], at: Sequence[tuple[float, Block]], everywhere: Noise
) -> TaskClaims:
    """Few seeds may agree by chance: a pair that is noisier ``everywhere`` counts as such on this task too."""
    task = members[0].task
    noise = relative_noise([found for _, found in at]).at_least(everywhere)
    compared = [found.of(block.methods) for _, found in at]
    pairs = [*compare_pairs("range", task, block, relative_noise(compared).at_least(everywhere))]
    for left_out in block.left_out:  # with each other method over what the two share
        for other in dict.fromkeys(c.method for c in members):
            pair = common_block([c for c in members if c.method in (left_out.method, other)], beside=members)
            if other != left_out.method and not any(
                c.involves(other) and c.involves(left_out.method) for c in pairs
            ):
                pairs += compare_pairs("range", task, pair, noise)
    levels = tuple(_judge_level(task, level, here, noise) for level, here in at)
    return TaskClaims(task, block, tuple(pairs), levels, known=known_stretches(members, block.units))


def _judge_level(task: str, level: float, block: Block, noise: Noise) -> Level:
    """The best method against the runner-up, which tells it apart from all others (Hung and Fithian 2019)."""
    best, *others = (block.methods[i] for i in np.argsort(-block.means, kind="stable"))
    layout = Layout.of(block, noise)
    leads = tuple(compare_pair("level", task, layout, (best, other)) for other in others)
    return Level(level, block, leads[0] if leads else None, leads)


def _over_scales(
    tasks: Sequence[TaskClaims], places: Mapping[str, object], scales: Mapping[str, object]
) -> Block | None:
    """What is compared over tasks: those of the scale with most units; the others are named as left out."""
    groups: dict[object, list[TaskClaims]] = defaultdict(list)
    for task in tasks:
        groups[scales.get(task.task)].append(task)
    found = [(members, _over_tasks(members, places)) for members in groups.values()]
    known = [(members, block) for members, block in found if block is not None]
    if not known:
        return None
    chosen, block = max(known, key=lambda pair: len(pair[1].units))
    others = tuple(task.task for task in tasks if task not in chosen)
    return replace(block, units_left_out=(*block.units_left_out, *others))


def _over_tasks(tasks: Sequence[TaskClaims], places: Mapping[str, object]) -> Block | None:
    """Methods x places, seeds averaged, each task over its own range; missing below two places.

    Places are chosen as seeds are within a task (:func:`shared_units`); a method that is not compared on one of
    them is left out, as a method without one of the seeds is. One that lacks runs of a place has it, as it has
    a seed of which it failed.
    """
    by_place: dict[object, list[TaskClaims]] = defaultdict(list)
    for task in tasks:
        by_place[places.get(task.task, task.task)].append(task)
    methods = list(dict.fromkeys(method for task in tasks for method in task.block.methods))
    known = [_means_at(members) for members in by_place.values()]
    names = [" and ".join(task.task for task in members) for members in by_place.values()]
    short = [
        {one.method for task in members for one in task.block.left_out if one.lacks_runs}
        for members in by_place.values()
    ]
    lacking = [found & {*methods} - {*means} for found, means in zip(short, known, strict=True)]
    judged = [p for p, means in enumerate(known) if means and len(means) + len(lacking[p]) > 1]
    has = {m: [place for place in judged if m in known[place] or m in lacking[place]] for m in methods}
    whole = {m: places for m, places in has.items() if all(m in known[place] for place in places)}
    kept = shared_units(has, whole, fewest=2)
    if len(kept) < 2:
        return None
    chosen = [task for place, members in enumerate(by_place.values()) if place in kept for task in members]
    absent = {m: [task for task in chosen if m not in task.block.methods] for m in methods}
    complete = [method for method in methods if not absent[method]]
    nowhere = dict.fromkeys(
        one.method for task in tasks for one in task.block.left_out if one.method not in absent
    )
    return Block(
        math.nan,
        math.nan,
        tuple(complete),
        tuple(names[place] for place in kept),
        np.array([[known[place][method] for place in kept] for method in complete]).reshape(
            len(complete), len(kept)
        ),
        (
            *(LeftOut(m, _why_absent(m, where)) for m, where in absent.items() if where),
            *(LeftOut(method, "compared on no task") for method in nowhere),
        ),
        tuple(name for place, name in enumerate(names) if place not in kept),
        slack=_mean_slack(
            [[task.block for task in members] for p, members in enumerate(by_place.values()) if p in kept],
            frozenset(complete),
        ),
    )


def _why_absent(method: str, tasks: Sequence[TaskClaims]) -> str:
    """On which tasks a method takes no part and, where that is one reason, why."""
    reasons = {one.why for task in tasks for one in task.block.left_out if one.method == method}
    why = f": {reasons.pop()}" if len(reasons) == 1 else ""
    return f"not compared on {', '.join(task.task for task in tasks)}{why}"


def _mean_slack(places: Sequence[Sequence[Block]], methods: frozenset[str]) -> Slack:
    """What the places of runs may make on average over tasks, all to one side."""
    pairs = {pair for blocks in places for block in blocks for pair in block.slack if pair <= methods}
    return {
        pair: mean_of(mean_of(b.slack.get(pair, 0.0) for b in blocks) for blocks in places) for pair in pairs
    }


def _means_at(members: Sequence[TaskClaims]) -> dict[str, float]:
    """Mean of every method over the tasks of one place; of those compared on all of them."""
    means = [dict(zip(task.block.methods, task.block.means, strict=True)) for task in members]
    return {method: mean_of(m[method] for m in means) for method in means[0] if all(method in m for m in means)}


def _corrected(tasks: Sequence[TaskClaims], over: Block | None, pairs: Sequence[Claim]) -> Claims:
    """All claims with p corrected by weighted Holm: each question's share of the 5 % in equal parts."""
    everything = [*pairs]
    for task in tasks:
        everything += [*task.pairs, *(level.claim for level in task.levels if level.claim)]
    counts = {question: sum(c.question == question for c in everything) for question in SHARES}
    shares = {question: share if counts[question] else 0.0 for question, share in SHARES.items()}
    weights = [shares[c.question] / counts[c.question] for c in everything]
    if counts["level"]:
        spare = 1.0 - sum(shares.values())
        weights = [
            w + spare / counts["level"] * (c.question == "level")
            for w, c in zip(weights, everything, strict=True)
        ]
    adjusted = stats.holm([c.p_raw for c in everything], weights=weights)
    left = sum(w for w, p in zip(weights, adjusted, strict=True) if p >= stats.ALPHA)
    shares_left = [w / (left + w * (not p >= stats.ALPHA)) for w, p in zip(weights, adjusted, strict=True)]
    looks = sum(len(level.leads) for task in tasks for level in task.levels)
    told = {
        id(c): replace(c, p=float(p), share=share)
        for c, p, share in zip(everything, adjusted, shares_left, strict=True)
    }
    return Claims(
        tuple(
            replace(
                task,
                looks=looks,
                pairs=tuple(told[id(c)] for c in task.pairs),
                levels=tuple(replace(lv, claim=told[id(lv.claim)] if lv.claim else None) for lv in task.levels),
            )
            for task in tasks
        ),
        over,
        tuple(told[id(c)] for c in pairs),
        len(everything),
    )


def more_units(claim: Claim, *, margin: float, power: float = 0.8, most: int = 1000) -> int | None:
    """How many more seeds (or tasks) would find a difference of ``margin`` with probability ``power``.

    At the level that the correction left for this claim, if its deviation is what was seen. ``None`` where it
    would be more than ``most``, or nothing is known of the deviation.
    """
    if not claim.n > 1 or not claim.deviation > 0 or not math.isfinite(claim.p):
        return None
    units = range(claim.n, claim.n + most + 1)
    enough = bisect.bisect_left(units, True, key=lambda n: _power_of(claim, margin, n) >= power)
    return enough if enough <= most else None


def found_with(claim: Claim, *, power: float = 0.8) -> float:
    """The difference that is found with probability ``power`` with as many units as there are.

    At the level that the correction left for this claim; undefined where nothing is known of the deviation.
    """
    if not claim.n > 1 or not claim.deviation > 0 or not math.isfinite(claim.p):
        return math.nan
    high = claim.deviation
    while _power_of(claim, high, claim.n) < power:
        high *= 2
    return float(scipy.optimize.brentq(lambda d: _power_of(claim, d, claim.n) - power, 0.0, high))


def _power_of(claim: Claim, difference: float, n: int) -> float:
    """Chance that ``difference`` is told apart with ``n`` units, at the level that the correction left."""
    alpha = claim.alpha * claim.share
    freedom = claim.freedom / (claim.n - 1) * (n - 1)
    beyond = max(difference - claim.slack, 0.0)
    return stats.power_of_t(beyond / claim.deviation * math.sqrt(n), freedom, alpha=alpha)
