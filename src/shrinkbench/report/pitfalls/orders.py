"""Pitfalls of Section 7.3: orders of methods that depend on what is held equal."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from shrinkbench.report.pitfalls.finding import (
    SMALLEST,
    Panel,
    Pitfall,
    and_more,
    clear_sign,
    mean,
    percent,
    points,
)
from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.compare import groups, records
from shrinkbench.report.statistics.curves import at_equal, curves
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.report.tables import amount_text
from shrinkbench.spec import DataSpec, ModelSpec, Objective

WIDE_SPREAD = 0.02

_Points = tuple[stats.Floats, stats.Floats]
_Pair = tuple[str, str]
Areas = Mapping[tuple[str, str, str], list[float]]


def paired_areas(observations: Observations, axis: str, metric: str = "top1") -> Areas:
    """Difference in mean accuracy over the range of ``axis`` that two methods share, by seed.

    Keys are (task, first, second), the first before the second in the order of methods.
    """
    by_method: dict[tuple[str, str], dict[int, _Points]] = defaultdict(dict)
    for task, method, seed, x, y, _ in curves(observations, axis, metric):
        by_method[task, method][seed] = (x, y)
    known: dict[tuple[tuple[str, str, int], float, float], float] = {}

    def area(curve: tuple[str, str, int], low: float, high: float, points_of_it: _Points) -> float:
        key = (curve, low, high)  # most pairs of a task share one range
        if key not in known:
            known[key] = stats.area_under_log_curve(*points_of_it, low=low, high=high, tolerance=0.02)
        return known[key]

    differences: dict[tuple[str, str, str], list[float]] = {}
    for task, (first, second) in itertools.product(
        observations.tasks, itertools.combinations(observations.methods, 2)
    ):
        a, b = by_method.get((task, first), {}), by_method.get((task, second), {})
        seeds = sorted(a.keys() & b.keys())
        if not seeds:
            continue
        low = max(c[s][0][0] for c in (a, b) for s in seeds)
        high = min(max(c[s][0][-1] for s in seeds) for c in (a, b))
        areas = [[area((task, m, s), low, high, c[s]) for s in seeds] for m, c in ((first, a), (second, b))]
        gaps = (one - other for one, other in zip(*areas, strict=True))
        differences[task, first, second] = [gap for gap in gaps if math.isfinite(gap)]
    return differences


def _tells_more(observations: Observations, *methods: str) -> bool:
    """Whether no method of a pair is chance: of several findings, those say more."""
    return not observations.chance.intersection(methods)


def metrics_not_interchangeable(observations: Observations) -> Iterator[Pitfall]:
    """One method is better at equal size, the other at equal theoretical speedup (Figure 6)."""
    by_size = paired_areas(observations, "compression")
    by_speed = paired_areas(observations, "theoretical_speedup")
    flips: dict[str, list[tuple[bool, float, str, str, float, float]]] = defaultdict(list)
    for (task, first, second), at_size in by_size.items():
        at_speed = by_speed.get((task, first, second), [])
        sign = clear_sign(at_size)
        if sign and clear_sign(at_speed) == -sign:
            better, worse = (first, second) if sign > 0 else (second, first)
            size, speed = abs(mean(at_size)), abs(mean(at_speed))
            flips[task].append(
                (_tells_more(observations, better, worse), min(size, speed), better, worse, size, speed)
            )
    for task, found in flips.items():
        *_, better, worse, size, speed = max(found)
        yield Pitfall(
            kind="metrics-not-interchangeable",
            title="The order of methods depends on the size metric",
            where=task,
            finding=(
                f"{better} is {points(size)} more accurate than {worse} at equal size, yet "
                f"{points(speed)} less accurate at equal theoretical speedup{and_more(len(found), 'pair')}."
            ),
            advice="Report both compression ratio and theoretical speedup, and claim only what holds for each.",
            panels=tuple(
                Panel(task, axis, "top1", (better, worse)) for axis in ("compression", "theoretical_speedup")
            ),
        )


def order_varies_with_amount(observations: Observations) -> Iterator[Pitfall]:
    """One method is better at small, the other at large compression (Figure 7, left)."""
    values = at_equal(observations, "compression")
    for task, part in groups(values, "task"):
        by_method: dict[str, dict[tuple[float, int], float]] = defaultdict(dict)
        for row in records(part):
            by_method[row.method][row.level, row.seed] = row.value
        methods = [m for m in observations.methods if m in by_method]
        pairs = list(itertools.combinations(methods, 2))
        gaps = {pair: _gaps(*(by_method[m] for m in pair)) for pair in pairs}
        signs = _clear_signs(gaps)
        crossings = [c for pair in pairs if (c := _find_crossing(*pair, gaps[pair], signs[pair])) is not None]
        if not crossings:
            continue
        _, better, worse, low, low_gap, high, high_gap = max(
            crossings, key=lambda c: (_tells_more(observations, c[1], c[2]), c[0])
        )
        yield Pitfall(
            kind="order-varies-with-amount",
            title="The order of methods changes with the amount of pruning",
            where=task,
            finding=(
                f"{better} is {points(low_gap)} more accurate than {worse} at compression {low:g}, and "
                f"{points(high_gap)} less accurate at {high:g}{and_more(len(crossings), 'pair')}."
            ),
            advice="Show the whole tradeoff curve; do not rank methods from one operating point.",
            panels=(Panel(task, "compression", "top1", (better, worse)),),
        )


def _gaps(
    first: Mapping[tuple[float, int], float], second: Mapping[tuple[float, int], float]
) -> dict[float, list[float]]:
    """Differences of two methods by level, one per seed that both have; keys are (level, seed)."""
    gaps: dict[float, list[float]] = defaultdict(list)
    for level, seed in sorted(first.keys() & second.keys()):
        gaps[level].append(first[level, seed] - second[level, seed])
    return gaps


def _clear_signs(gaps: Mapping[_Pair, Mapping[float, list[float]]]) -> Mapping[_Pair, Mapping[float, int]]:
    """Which method of each pair is clearly better at each level: 1 the first, -1 the second, 0 neither.

    Every pair is compared at every level, so p-values are corrected by Holm over all of them: the order of
    many equal methods would else change somewhere by chance alone.
    """
    cells: list[tuple[_Pair, float]] = []
    p_values: list[float] = []
    for level in sorted({level for by_level in gaps.values() for level in by_level}):
        here = {pair: by_level[level] for pair, by_level in gaps.items() if level in by_level}
        methods = {method for pair in here for method in pair}
        blocks = max(map(len, here.values()))
        cells += [(pair, level) for pair in here]
        p_values += list(
            stats.paired_t_in_blocks(list(here.values()), freedom=(len(methods) - 1) * (blocks - 1))
        )
    signs: dict[_Pair, dict[float, int]] = {pair: {} for pair in gaps}
    for (pair, level), p in zip(cells, stats.holm(p_values), strict=True):
        sign = clear_sign(gaps[pair][level]) if len(gaps[pair][level]) == 1 else _sign(gaps[pair][level], p)
        signs[pair][level] = sign
    return signs


def _sign(differences: Sequence[float], p: float) -> int:
    """The sign of a difference that is large enough to matter and told apart from none."""
    gap = mean(differences)
    if abs(gap) < SMALLEST or not p < stats.ALPHA:
        return 0
    return 1 if gap > 0 else -1


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
    signs: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for (task, first, second), gaps in paired_areas(observations, "compression").items():
        sign = clear_sign(gaps)
        if sign:
            signs[first, second][task] = mean(gaps)
    places = _places(observations)
    found = []
    for (first, second), by_task in signs.items():
        for_first = {t: d for t, d in by_task.items() if d > 0}
        for_second = {t: d for t, d in by_task.items() if d < 0}
        for here, there in itertools.product(for_first, for_second):
            if places[here] != places[there]:
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
                f"{first} is {points(here_gap)} more accurate than {second} on {here}, but "
                f"{points(there_gap)} less accurate on {there}{and_more(len({f[2:4] for f in found}), 'pair')}."
            ),
            advice="Claim an order only for the datasets and networks on which it was measured.",
            panels=tuple(Panel(task, "compression", "top1", (first, second)) for task in (here, there)),
        )


_Place = tuple[Objective, DataSpec, ModelSpec]


def _places(observations: Observations) -> dict[str, _Place]:
    """What every task is about, whatever its initial weights."""
    specs = observations.task_specs
    return {task: (specs[task].objective, specs[task].data, specs[task].model) for task in observations.tasks}


def initial_model_confounds(observations: Observations) -> Iterator[Pitfall]:
    """Comparing across initial weights reverses an order that holds within them (Figure 8)."""
    same_place: dict[_Place, list[str]] = defaultdict(list)  # tasks of one place differ in their weights
    for task, place in _places(observations).items():
        same_place[place].append(task)
    for (_, data, model), tasks in same_place.items():
        if len(tasks) < 2:
            continue
        reversal = _reversal(observations, tasks, "top1")
        if reversal is None:
            continue
        better, worse, good, bad, gap = reversal
        cure = _reversal(observations, tasks, "top1_change")
        uncured = (
            f" Reporting the change in accuracy does not cure it: {cure[1]} from {cure[2]} still appears "
            f"{points(cure[4])} better than {cure[0]} from {cure[3]}."
            if cure
            else ""
        )
        yield Pitfall(
            kind="initial-model-confounds",
            title="The initial weights decide which method looks better",
            where=f"{data.name} / {model.name}",
            finding=(
                f"From the same weights {worse} never beats {better}; yet {worse} from {good} is "
                f"{points(gap)} more accurate than {better} from {bad}.{uncured}"
            ),
            advice="Compare methods from identical initial weights only, in absolute accuracy and in changes.",
            panels=tuple(
                Panel(task, "compression", metric, (better, worse))
                for metric in ("top1", "top1_change")
                for task in (good, bad)
            ),
        )


def _reversal(
    observations: Observations, tasks: Sequence[str], metric: str
) -> tuple[str, str, str, str, float] | None:
    """The largest reversal: (better, worse, weights that favour the worse, the other weights, gap)."""
    values = at_equal(observations, "compression", metric=metric)
    values = values[values["task"].isin(tasks)]
    table = values.pivot_table(index=["level", "seed"], columns=["task", "method"], values="value")
    found = []
    for better, worse in itertools.permutations(observations.methods, 2):
        within = [(t, better) in table and (t, worse) in table for t in tasks]
        if not all(within) or any(
            clear_sign(_by_seed(table, (t, worse), (t, better))) > 0
            or clear_sign(_by_seed(table, (t, better), (t, worse))) < 0
            for t in tasks
        ):
            continue
        if not any(clear_sign(_by_seed(table, (t, better), (t, worse))) > 0 for t in tasks):
            continue
        for good, bad in itertools.permutations(tasks, 2):
            across = _by_seed(table, (good, worse), (bad, better))
            if clear_sign(across) > 0:
                found.append((better, worse, good, bad, mean(across)))
    return max(found, key=lambda f: (_tells_more(observations, f[0], f[1]), f[4])) if found else None


def _by_seed(table: pd.DataFrame, first: tuple[str, str], second: tuple[str, str]) -> list[float]:
    """Difference of two columns, averaged over levels for every seed."""
    return (table[first] - table[second]).dropna().groupby("seed").mean().tolist()


_OF_A_CELL = ("method", "amount", "compression_target", "top1", "key")


def wide_seed_spread(observations: Observations) -> Iterator[Pitfall]:
    """Seeds of one cell differ by so much that a single run says little."""
    for task, part in groups(observations.pruned, "task", only=_OF_A_CELL):
        spreads = part.groupby(["method", "amount"])["top1"].std(ddof=1)
        found = spreads[spreads >= WIDE_SPREAD].reset_index()
        for method, amount, spread in records(found.nlargest(1, "top1")):
            cell = part[(part["method"] == method) & (part["amount"] == amount)]
            where = amount_text(amount, cell["compression_target"].iloc[0])
            yield Pitfall(
                kind="wide-seed-spread",
                title="Seeds disagree near the drop-off",
                where=task,
                finding=(
                    f"{method} at {where} gives between {percent(cell['top1'].min())} and "
                    f"{percent(cell['top1'].max())} over {len(cell)} seeds (standard deviation "
                    f"{points(spread)}){and_more(len(found), 'cell')}."
                ),
                advice="Give mean and deviation over several seeds here; one run would be luck.",
                runs=tuple(cell["key"]),
                panels=(Panel(task, "compression", "top1", (method,)),),
            )
