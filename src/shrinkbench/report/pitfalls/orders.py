"""Pitfalls of Section 7.3: orders of methods that depend on what is held equal."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from shrinkbench.report.pitfalls.finding import Panel, Pitfall, and_more, mean
from shrinkbench.report.pitfalls.noise import Pair, clear_signs
from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.blocks import Block, common_block
from shrinkbench.report.statistics.compare import groups
from shrinkbench.report.statistics.curves import Curve, at_equal, curves, default_levels
from shrinkbench.report.statistics.metrics import CHANGE, HEADLINE
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.report.statistics.places import place_of


@functools.lru_cache(maxsize=4)
def paired_areas(observations: Observations, axis: str) -> Mapping[str, Mapping[Pair, list[float]]]:
    """Difference in the mean over the range of ``axis`` that two methods share, by seed.

    Differences are shares: see :func:`_as_shares`. Keys are the task, then the pair in the order of
    methods; pairs without a common range are left out.
    """
    differences: dict[str, dict[Pair, list[float]]] = defaultdict(dict)
    for task, by_method in _curves_by_method(observations, axis).items():
        for pair in itertools.combinations(by_method, 2):
            first, second = (by_method[method] for method in pair)
            if {curve.seed for curve in first}.isdisjoint(curve.seed for curve in second):
                continue
            block = common_block([*first, *second])
            if block.low < block.high:
                differences[task] |= _gaps_of(block)
    return differences


def _curves_by_method(observations: Observations, axis: str) -> dict[str, dict[str, list[Curve]]]:
    """Curves by task and method, in the order of methods."""
    place = {method: n for n, method in enumerate(observations.methods)}
    found: dict[str, dict[str, list[Curve]]] = defaultdict(lambda: defaultdict(list))
    known = [
        _as_shares(observations, curve)
        for curve in curves(observations, axis, HEADLINE)
        if curve.method in place
    ]
    for curve in sorted(known, key=lambda c: (c.task, place[c.method], c.seed)):
        found[curve.task][curve.method].append(curve)
    return found


def _as_shares(observations: Observations, curve: Curve) -> Curve:
    """A curve of which more is better, in shares of the control's value where the metric is no share itself."""
    scale = observations.direction(curve.task) / observations.yardstick(curve.task)
    return curve if scale == 1 else replace(curve, y=scale * curve.y)


def _gaps_of(block: Block) -> dict[Pair, list[float]]:
    """Differences of every pair of a block's methods, one per seed."""
    rows = zip(block.methods, block.values, strict=True) if block.units else ()
    return {(a, b): (x - y).tolist() for (a, x), (b, y) in itertools.combinations(rows, 2)}


def _tells_more(observations: Observations, *methods: str) -> bool:
    """Whether no method of a pair is chance: of several findings, those say more."""
    return not observations.chance.intersection(methods)


def metrics_not_interchangeable(observations: Observations) -> Iterator[Pitfall]:
    """One method is better at equal size, the other at equal theoretical speedup (Figure 6)."""
    axes = ("compression", "theoretical_speedup")
    families = {(axis, task): gaps for axis in axes for task, gaps in paired_areas(observations, axis).items()}
    signs = clear_signs(families)
    for task in observations.tasks:
        by_size, by_speed = (families.get((axis, task), {}) for axis in axes)
        found = []
        for pair in by_size:
            sign = signs["compression", task][pair]
            if sign and signs.get(("theoretical_speedup", task), {}).get(pair, 0) == -sign:
                better, worse = pair if sign > 0 else pair[::-1]
                size, speed = abs(mean(by_size[pair])), abs(mean(by_speed[pair]))
                found.append((_tells_more(observations, *pair), min(size, speed), better, worse, size, speed))
        if not found:
            continue
        *_, better, worse, size, speed = max(found)
        metric = observations.metric(task)
        yield Pitfall(
            kind="metrics-not-interchangeable",
            title="The order of methods depends on the size metric",
            where=task,
            finding=(
                f"{better} is {metric.better(size)} than {worse} at equal size, yet "
                f"{metric.worse(speed)} at equal theoretical speedup{and_more(len(found), 'pair')}."
            ),
            advice="Report both compression ratio and theoretical speedup, and claim only what holds for each.",
            panels=tuple(Panel(task, axis, HEADLINE, (better, worse)) for axis in axes),
        )


def order_varies_with_amount(observations: Observations) -> Iterator[Pitfall]:
    """One method is better at small, the other at large compression (Figure 7, left)."""
    families = _gaps_by_level(observations)
    signs = clear_signs(families)
    for task in observations.tasks:
        levels = sorted(level for other, level in families if other == task)
        pairs = list(dict.fromkeys(pair for level in levels for pair in families[task, level]))
        crossings = []
        for pair in pairs:
            of_pair = {level: families[task, level][pair] for level in levels if pair in families[task, level]}
            crossing = _find_crossing(*pair, of_pair, {level: signs[task, level][pair] for level in of_pair})
            if crossing is not None:
                crossings.append(crossing)
        if not crossings:
            continue
        _, better, worse, low, low_gap, high, high_gap = max(
            crossings, key=lambda c: (_tells_more(observations, c[1], c[2]), c[0])
        )
        metric = observations.metric(task)
        yield Pitfall(
            kind="order-varies-with-amount",
            title="The order of methods changes with the amount of pruning",
            where=task,
            finding=(
                f"{better} is {metric.better(low_gap)} than {worse} at compression {low:g}, and "
                f"{metric.worse(high_gap)} at {high:g}{and_more(len(crossings), 'pair')}."
            ),
            advice="Show the whole tradeoff curve; do not rank methods from one operating point.",
            panels=(Panel(task, "compression", HEADLINE, (better, worse)),),
        )


def _gaps_by_level(observations: Observations) -> dict[tuple[str, float], dict[Pair, list[float]]]:
    """Differences of every pair of methods at every task and compression, one per seed."""
    found = {}
    for task, by_method in _curves_by_method(observations, "compression").items():
        members = [curve for curves_of_it in by_method.values() for curve in curves_of_it]
        for level in default_levels(observations, "compression"):
            found[task, level] = _gaps_of(common_block(members, level=level))
    return found


Crossing = tuple[float, str, str, float, float, float, float]


def _find_crossing(
    first: str, second: str, gaps: Mapping[float, Sequence[float]], signs: Mapping[float, int]
) -> Crossing | None:
    """(clarity, better at low, better at high, low level, its gap, high level, its gap), or nothing."""
    decided = [level for level in sorted(signs) if signs[level]]
    if not decided:
        return None
    low = decided[0]
    opposite = [level for level in decided if signs[level] == -signs[low]]
    if not opposite:
        return None
    high = max(opposite, key=lambda level: abs(mean(gaps[level])))
    better, worse = (first, second) if signs[low] > 0 else (second, first)
    low_gap, high_gap = abs(mean(gaps[low])), abs(mean(gaps[high]))
    return min(low_gap, high_gap), better, worse, low, low_gap, high, high_gap


def order_varies_with_task(observations: Observations) -> Iterator[Pitfall]:
    """One method is better on one dataset or network, the other on another (Figure 7)."""
    areas = paired_areas(observations, "compression")
    decided = clear_signs(areas)
    signs: dict[Pair, dict[str, float]] = defaultdict(dict)
    for task, by_pair in areas.items():
        for pair, gaps in by_pair.items():
            if decided[task][pair]:
                signs[pair][task] = mean(gaps)
    places = _places(observations)
    found = []
    for (first, second), by_task in signs.items():
        for_first = {t: d for t, d in by_task.items() if d > 0}
        for_second = {t: d for t, d in by_task.items() if d < 0}
        for here, there in itertools.product(for_first, for_second):
            if places[here] != places[there] and observations.metric(here) == observations.metric(there):
                clarity = min(for_first[here], -for_second[there])
                found.append((_tells_more(observations, first, second), clarity, first, second, here, there))
    if found:
        *_, first, second, here, there = max(found)
        here_gap, there_gap = signs[first, second][here], signs[first, second][there]
        yield Pitfall(
            kind="order-varies-with-task",
            title="The order of methods changes with the dataset or network",
            where=f"{here} and {there}",
            finding=(
                f"{first} is {observations.metric(here).better(here_gap)} than {second} on {here}, but "
                f"{observations.metric(there).worse(there_gap)} on {there}"
                f"{and_more(len({f[2:4] for f in found}), 'pair')}."
            ),
            advice="Claim an order only for the datasets and networks on which it was measured.",
            panels=tuple(Panel(task, "compression", HEADLINE, (first, second)) for task in (here, there)),
        )


def _places(observations: Observations) -> dict[str, object]:
    """What every task is about, whatever its initial weights."""
    return {task: place_of(observations.task_specs[task]) for task in observations.tasks}


def initial_model_confounds(observations: Observations) -> Iterator[Pitfall]:
    """Comparing across initial weights reverses an order that holds within them (Figure 8)."""
    same_place: dict[object, list[str]] = defaultdict(list)  # tasks of one place differ in their weights
    for task, place in _places(observations).items():
        same_place[place].append(task)
    for tasks in same_place.values():
        spec = observations.task_specs[tasks[0]]
        if all(observations.task_specs[task].weights == spec.weights for task in tasks):
            continue
        reversal = _reversal(observations, tasks, HEADLINE)
        if reversal is None:
            continue
        better, worse, good, bad, gap, _ = reversal
        metric = observations.metric(good)
        told = "accuracy" if metric.is_accuracy else metric.short
        cure = _reversal(observations, tasks, CHANGE)
        uncured = (
            f" Reporting the change in {told} does not cure it: {cure[1]} from {cure[2]} still appears "
            f"{metric.share(cure[4])} better than {cure[0]} from {cure[3]}."
            if cure
            else ""
        )
        yield Pitfall(
            kind="initial-model-confounds",
            title="The initial weights decide which method looks better",
            where=f"{spec.data.name} / {spec.model.name}",
            finding=(
                f"From the same weights {_never_better(reversal)}; yet on average {worse} from {good} is "
                f"{metric.better(gap)} than {better} from {bad}.{uncured}"
            ),
            advice=f"Compare methods from identical initial weights only, in absolute {told} and in changes.",
            panels=tuple(
                Panel(task, "compression", column, (better, worse))
                for column in (HEADLINE, CHANGE)
                for task in (good, bad)
            ),
        )


class _Reversal(NamedTuple):
    """The worse method from ``good`` weights lies ``gap`` above the better one from ``bad`` weights.

    ``at`` are the levels compared from the same weights, and whether the worse has the higher mean at one.
    """

    better: str
    worse: str
    good: str
    bad: str
    gap: float
    at: Mapping[float, bool]


def _never_better(found: _Reversal) -> str:
    """How the two compare from the same weights, and at which compressions that was looked at."""
    count, low, high = len(found.at), min(found.at), max(found.at)
    where = f"{count} compressions from {low:g}× to {high:g}×" if count > 1 else f"{low:g}×"
    if not any(found.at.values()):
        return f"{found.worse} never beats {found.better} (means at {where})"
    above = ", ".join(f"{level:g}×" for level, higher in found.at.items() if higher)
    return (
        f"{found.worse} is worse than {found.better} on average over {where}, with the better mean at {above}"
    )


def _reversal(observations: Observations, tasks: Sequence[str], metric: str) -> _Reversal | None:
    """The largest reversal.

    Within a task methods share their blocks; across weights they do not, so there each difference has the
    variance of its own seeds alone.
    """
    values = at_equal(observations, "compression", metric=metric)
    values = values[values["task"].isin(tasks)]
    first = tasks[0]  # one scale for all: they are subtracted
    scale = observations.direction(first) / observations.yardstick(first)
    values = values.assign(value=values["value"] * scale)
    levels, seeds = (sorted(values[column].unique()) for column in ("level", "seed"))
    columns: dict[tuple[str, str], stats.Floats] = {
        pair: part.pivot_table(index="level", columns="seed", values="value")
        .reindex(index=levels, columns=seeds)
        .to_numpy(dtype=float)
        for pair, part in groups(values, "task", "method")
    }
    gaps: dict[tuple[str, str], dict[Pair, list[float]]] = defaultdict(dict)
    for good, bad in itertools.product(tasks, repeat=2):
        pairs = itertools.permutations if good != bad else itertools.combinations
        for first, second in pairs(observations.methods, 2):
            if (good, first) in columns and (bad, second) in columns:
                found = _by_seed(columns[good, first] - columns[bad, second])
                if found:
                    gaps[good, bad][first, second] = found
    signs = clear_signs(gaps, alone=[key for key in gaps if key[0] != key[1]])
    largest = max(
        _reversals(observations.methods, tasks, gaps, signs),
        key=lambda f: (_tells_more(observations, f[0], f[1]), f[4]),
        default=None,
    )
    return largest and _Reversal(*largest, _higher_at(columns, tasks, levels, *largest[:2]))


def _higher_at(
    columns: Mapping[tuple[str, str], stats.Floats],
    tasks: Sequence[str],
    levels: Sequence[float],
    better: str,
    worse: str,
) -> dict[float, bool]:
    """At which levels ``worse`` has the higher mean over seeds from some of the weights; of those compared."""
    found: dict[float, bool] = {}
    for place, level in enumerate(levels):
        for task in tasks:
            differences = columns[task, worse][place] - columns[task, better][place]
            known = differences[np.isfinite(differences)]
            if len(known):
                found[level] = found.get(level, False) or bool(known.mean() > 0)
    return found


def _reversals(
    methods: Sequence[str],
    tasks: Sequence[str],
    gaps: Mapping[tuple[str, str], Mapping[Pair, Sequence[float]]],
    signs: Mapping[tuple[str, str], Mapping[Pair, int]],
) -> Iterator[tuple[str, str, str, str, float]]:
    for first, second in itertools.combinations(methods, 2):
        within = [gaps.get((t, t), {}).get((first, second)) for t in tasks]
        decided = {signs[t, t][first, second] for t, gap in zip(tasks, within, strict=True) if gap} - {0}
        if not all(within) or len(decided) != 1:
            continue
        sign = decided.pop()
        if any(sign * mean(gap) < 0 for gap in within if gap):
            continue
        better, worse = (first, second) if sign > 0 else (second, first)
        for good, bad in itertools.permutations(tasks, 2):
            if signs.get((good, bad), {}).get((worse, better), 0) > 0:
                yield better, worse, good, bad, mean(gaps[good, bad][worse, better])


def _by_seed(differences: stats.Floats) -> list[float]:
    """Differences by level and seed, averaged over the levels that both have, for every seed with some."""
    known = np.isfinite(differences)
    counts = known.sum(axis=0)
    sums = np.where(known, differences, 0.0).sum(axis=0)
    means: list[float] = (sums[counts > 0] / counts[counts > 0]).tolist()
    return means
