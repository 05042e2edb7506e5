"""Pitfalls of Section 7.3 of the paper, and of its practice, found in the results themselves.

A difference counts only where it is at least half a point of accuracy and its 95 % interval over seeds leaves
out zero (a single seed must differ by a whole point), so a clean set of results shows no pitfall.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from shrinkbench.report import stats
from shrinkbench.report.compare import at_equal, curves, groups
from shrinkbench.report.observations import Observations
from shrinkbench.results.record import RunResult

SMALLEST = 0.005
SMALLEST_OF_ONE_SEED = 0.01
WIDE_SPREAD = 0.02
BEST_OF_EPOCHS_GAIN = 0.01


@dataclass(frozen=True)
class Panel:
    """One drawing that shows a pitfall: some methods' curves of one task."""

    task: str
    axis: str
    metric: str
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Pitfall:
    """One finding: what, where, by how much, what to do, which runs, and what to draw."""

    kind: str
    title: str
    where: str
    finding: str
    advice: str
    runs: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = field(default=())


def find_pitfalls(results: Sequence[RunResult], observations: Observations) -> list[Pitfall]:
    """Every pitfall in the results, in the order of the paper."""
    done = [result for result in results if result.status == "done"]
    return [
        *metrics_not_interchangeable(observations),
        *order_varies_with_amount(observations),
        *order_varies_with_task(observations),
        *initial_model_confounds(observations),
        *wide_seed_spread(observations),
        *selection_on_test(done),
        *unequal_budgets(done, observations),
        *best_of_epochs(done),
    ]


def clear_sign(differences: Iterable[float]) -> int:
    """Sign of the mean difference where it stands out of the noise, else 0.

    >>> clear_sign([0.02, 0.021, 0.019]), clear_sign([0.02, -0.02, 0.03]), clear_sign([-0.02])
    (1, 0, -1)
    """
    s = stats.summarise(list(differences))
    if s.n == 0 or abs(s.mean) < (SMALLEST if s.n > 1 else SMALLEST_OF_ONE_SEED):
        return 0
    if s.n > 1 and s.low <= 0 <= s.high:
        return 0
    return 1 if s.mean > 0 else -1


Areas = Mapping[tuple[str, str, str], list[float]]


def paired_areas(observations: Observations, axis: str, metric: str = "top1") -> Areas:
    """Difference in mean accuracy over the range of ``axis`` that two methods share, by seed.

    Keys are (task, first, second), the first before the second in the order of methods.
    """
    by_method: dict[tuple[str, str], dict[int, tuple[stats.Floats, stats.Floats]]] = defaultdict(dict)
    for task, method, seed, x, y in curves(observations, axis, metric):
        by_method[task, method][seed] = (x, y)
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
        areas = [
            [stats.area_under_log_curve(*c[s], low=low, high=high, tolerance=0.02) for s in seeds]
            for c in (a, b)
        ]
        found = np.subtract(*areas)
        differences[task, first, second] = found[np.isfinite(found)].tolist()
    return differences


def metrics_not_interchangeable(observations: Observations) -> Iterator[Pitfall]:
    """One method is better at equal size, the other at equal theoretical speedup (Figure 6)."""
    by_size = paired_areas(observations, "compression")
    by_speed = paired_areas(observations, "theoretical_speedup")
    flips: dict[str, list[tuple[float, str, str, float, float]]] = defaultdict(list)
    for (task, first, second), at_size in by_size.items():
        at_speed = by_speed.get((task, first, second), [])
        sign = clear_sign(at_size)
        if sign and clear_sign(at_speed) == -sign:
            better, worse = (first, second) if sign > 0 else (second, first)
            size, speed = abs(np.mean(at_size)), abs(np.mean(at_speed))
            flips[task].append((float(min(size, speed)), better, worse, float(size), float(speed)))
    for task, found in flips.items():
        _, better, worse, size, speed = max(found)
        yield Pitfall(
            kind="metrics-not-interchangeable",
            title="The order of methods depends on the size metric",
            where=task,
            finding=(
                f"{better} is {_points(size)} more accurate than {worse} at equal size, yet {_points(speed)} less "
                f"accurate at equal theoretical speedup{_and_more(len(found), 'pair')}."
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
        wide = part.pivot_table(index=["level", "seed"], columns="method", values="value")
        found = []
        methods = [m for m in observations.methods if m in wide.columns]
        for first, second in itertools.combinations(methods, 2):
            gaps = (wide[first] - wide[second]).dropna().groupby("level").apply(list)
            signs = {level: clear_sign(gap) for level, gap in gaps.items()}
            for better, worse, sign in ((first, second, 1), (second, first, -1)):
                lower = [level for level, s in signs.items() if s == sign]
                upper = [level for level, s in signs.items() if s == -sign and lower and level > lower[0]]
                if upper:
                    size = min(abs(np.mean(gaps[lower[0]])), abs(np.mean(gaps[upper[-1]])))
                    found.append((float(size), better, worse, lower[0], upper[-1], gaps))
                    break
        if found:
            _, better, worse, low, high, gaps = max(found, key=lambda item: item[0])
            yield Pitfall(
                kind="order-varies-with-amount",
                title="The order of methods changes with the amount of pruning",
                where=str(task),
                finding=(
                    f"{better} is {_points(abs(np.mean(gaps[low])))} more accurate than {worse} at compression "
                    f"{low:g}, and {_points(abs(np.mean(gaps[high])))} less accurate at {high:g}"
                    f"{_and_more(len(found), 'pair')}."
                ),
                advice="Show the whole tradeoff curve; do not rank methods from one operating point.",
                panels=(Panel(str(task), "compression", "top1", (better, worse)),),
            )


def order_varies_with_task(observations: Observations) -> Iterator[Pitfall]:
    """One method is better on one dataset or network, the other on another (Figure 7)."""
    signs: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for (task, first, second), gaps in paired_areas(observations, "compression").items():
        sign = clear_sign(gaps)
        if sign:
            signs[first, second][task] = float(np.mean(gaps))
    places = _places(observations)
    found = []
    for (first, second), by_task in signs.items():
        for_first = {t: d for t, d in by_task.items() if d > 0}
        for_second = {t: d for t, d in by_task.items() if d < 0}
        for here, there in itertools.product(for_first, for_second):
            if places[here] != places[there]:
                found.append((min(for_first[here], -for_second[there]), first, second, here, there))
    if found:
        size, first, second, here, there = max(found)
        here_gap, there_gap = signs[first, second][here], signs[first, second][there]
        yield Pitfall(
            kind="order-varies-with-task",
            title="The order of methods changes with the dataset or network",
            where=f"{here} and {there}",
            finding=(
                f"{first} is {_points(here_gap)} more accurate than {second} on {here}, but {_points(-there_gap)} "
                f"less accurate on {there}{_and_more(len({f[1:3] for f in found}), 'pair')}."
            ),
            advice="Claim an order only for the datasets and networks on which it was measured.",
            panels=tuple(Panel(task, "compression", "top1", (first, second)) for task in (here, there)),
        )


def _places(observations: Observations) -> dict[str, tuple[str, str]]:
    """Dataset and network of every task."""
    rows = observations.pruned.drop_duplicates("task")
    return {t: (d, m) for t, d, m in zip(rows["task"], rows["dataset"], rows["model"], strict=True)}


def initial_model_confounds(observations: Observations) -> Iterator[Pitfall]:
    """Comparing across initial weights reverses an order that holds within them (Figure 8)."""
    weights = observations.pruned.drop_duplicates("task").set_index("task")["weights"].to_dict()
    same_place: dict[tuple[str, str], list[str]] = defaultdict(list)
    for task, place in _places(observations).items():
        same_place[place].append(task)
    for place, tasks in same_place.items():
        if len({weights[t] for t in tasks}) < 2:
            continue
        reversal = _reversal(observations, tasks, "top1")
        if reversal is None:
            continue
        better, worse, good, bad, gap = reversal
        cure = _reversal(observations, tasks, "top1_change")
        uncured = (
            f" Reporting the change in accuracy does not cure it: {cure[1]} from {cure[2]} still appears "
            f"{_points(cure[4])} better than {cure[0]} from {cure[3]}."
            if cure
            else ""
        )
        yield Pitfall(
            kind="initial-model-confounds",
            title="The initial weights decide which method looks better",
            where=" / ".join(place),
            finding=(
                f"From the same weights {worse} never beats {better}; yet {worse} from {good} is {_points(gap)} more "
                f"accurate than {better} from {bad}.{uncured}"
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
                found.append((better, worse, good, bad, float(np.mean(across))))
    return max(found, key=lambda item: item[4]) if found else None


def _by_seed(table: pd.DataFrame, first: tuple[str, str], second: tuple[str, str]) -> list[float]:
    """Difference of two columns, averaged over levels for every seed."""
    return (table[first] - table[second]).dropna().groupby("seed").mean().tolist()


def wide_seed_spread(observations: Observations) -> Iterator[Pitfall]:
    """Seeds of one cell differ by so much that a single run says little."""
    for task, part in groups(observations.pruned, "task"):
        found = []
        for (method, target), cell in groups(part, "method", "compression_target"):
            values = cell["top1"].dropna()
            if len(values) > 1 and values.std(ddof=1) >= WIDE_SPREAD:
                found.append((float(values.std(ddof=1)), str(method), float(target), cell))
        if found:
            spread, method, target, cell = max(found, key=lambda item: item[0])
            yield Pitfall(
                kind="wide-seed-spread",
                title="Seeds disagree near the drop-off",
                where=str(task),
                finding=(
                    f"{method} at compression {target:g} gives between {_percent(cell['top1'].min())} and "
                    f"{_percent(cell['top1'].max())} over {len(cell)} seeds (standard deviation "
                    f"{_points(spread)}){_and_more(len(found), 'cell')}."
                ),
                advice="Give mean and deviation over several seeds here; one run would be luck.",
                runs=tuple(cell["key"]),
                panels=(Panel(str(task), "compression", "top1", (method,)),),
            )


def selection_on_test(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """Something was chosen on the split that is reported."""
    chosen: dict[str, list[str]] = defaultdict(list)
    for result in results:
        spec, recipes = result.spec, [result.spec.recipe]
        if spec.weights.recipe is not None:
            recipes.append(spec.weights.recipe)
        for recipe in recipes:
            if recipe.selection == "best-test":
                chosen[f"recipe {recipe.name} takes the epoch with the best accuracy on the test split"].append(
                    result.key
                )
        if result.validation is not None and result.validation == result.after and result.epochs:
            chosen["validation and test figures are identical, so they are one split"].append(result.key)
    for reason, runs in chosen.items():
        yield Pitfall(
            kind="selection-on-test",
            title="The reported split decided something",
            where=f"{len(runs)} of {len(results)} runs",
            finding=f"In {len(runs)} runs, {reason}: their accuracy is an upper bound, not an estimate.",
            advice="Choose epochs and settings on a validation split cut from the training data.",
            runs=tuple(runs),
        )


def unequal_budgets(results: Sequence[RunResult], observations: Observations) -> Iterator[Pitfall]:
    """Methods of one comparison were trained by different recipes or for much longer than others."""
    recipes: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    names = {r.key: r.spec.recipe for r in results}
    rows = observations.pruned
    for problem, method, key in zip(rows["problem"], rows["method"], rows["key"], strict=True):
        recipe = names[key]
        recipes[problem][method].add(f"{recipe.name} ({recipe.epochs} epochs, batch {recipe.batch_size})")
    for problem, by_method in recipes.items():
        differing = [
            (a, b) for a, b in itertools.combinations(sorted(by_method), 2) if not by_method[a] & by_method[b]
        ]
        if differing:
            a, b = differing[0]
            yield Pitfall(
                kind="unequal-budgets",
                title="Methods were trained on different budgets",
                where=problem,
                finding=(
                    f"{a} was fine-tuned by {' and '.join(sorted(by_method[a]))}, {b} by "
                    f"{' and '.join(sorted(by_method[b]))}{_and_more(len(differing), 'pair')}."
                ),
                advice="Compare at equal training budget, or give every method each budget.",
            )
            continue
        yield from _unequal_epochs(rows[rows["problem"] == problem], problem, names)
    yield from _idle_control(observations)


def _unequal_epochs(rows: pd.DataFrame, problem: str, recipes: Mapping[str, object]) -> Iterator[Pitfall]:
    """One recipe, but what was spent differs: early stopping may halve it, nothing else may change it."""
    for target, cell in groups(rows.dropna(subset=["training_cost"]), "compression_target"):
        cost = cell.groupby("method")["training_cost"].mean()
        stopping = any(getattr(recipes[key], "early_stopping", None) for key in cell["key"])
        allowed = 2.0 if stopping else 1.1
        if len(cost) > 1 and cost.max() > allowed * cost.min():
            yield Pitfall(
                kind="unequal-budgets",
                title="Methods were trained on different budgets",
                where=f"{problem}, compression {target:g}",
                finding=(
                    f"{cost.idxmax()} spent {cost.max() / max(cost.min(), 1e-12):.1f} times as much training as "
                    f"{cost.idxmin()}" + (" under one early-stopping rule." if stopping else ".")
                ),
                advice="Compare at equal training budget, or say what each accuracy cost.",
                runs=tuple(cell["key"]),
            )
            return


def _idle_control(observations: Observations) -> Iterator[Pitfall]:
    trained = observations.pruned.groupby("task")["epochs_run"].mean()
    control = observations.control.groupby("task")["epochs_run"].mean()
    for task in control.index.intersection(trained.index):
        if control[task] == 0 and trained[task] > 0:
            yield Pitfall(
                kind="unequal-budgets",
                title="The control was not fine-tuned",
                where=str(task),
                finding=f"Pruned networks were fine-tuned for {trained[task]:.3g} epochs, the control for none.",
                advice="Fine-tune the control like every pruned network.",
            )


def best_of_epochs(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """The headline is the best of many epochs, and the last one would read clearly lower."""
    gains: dict[tuple[str, str], list[float]] = defaultdict(list)
    runs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result in results:
        if result.spec.recipe.selection == "last" or not result.epochs or result.spec.compression == 1:
            continue
        validation = [epoch.validation_top1 for epoch in result.epochs]
        place = (f"{result.spec.data.name} / {result.spec.model}", result.spec.method.name)
        gains[place].append(max(validation) - validation[-1])
        runs[place].append(result.key)
    by_place: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for (place, method), values in gains.items():
        if np.mean(values) >= BEST_OF_EPOCHS_GAIN:
            by_place[place].append((float(np.mean(values)), method))
    for place, found in by_place.items():
        gain, method = max(found)
        yield Pitfall(
            kind="best-of-epochs",
            title="The headline is the best of many epochs",
            where=place,
            finding=(
                f"For {method} the best epoch reads {_points(gain)} higher on validation than the last one, on "
                f"average over {len(gains[place, method])} runs{_and_more(len(found), 'method')}."
            ),
            advice="Report the last epoch, or say that the best was chosen on validation and what that adds.",
            runs=tuple(runs[place, method]),
        )


def _points(difference: float) -> str:
    return f"{100 * abs(difference):.1f} points"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _and_more(count: int, noun: str) -> str:
    return f" (and {count - 1} more {noun}{'s' if count > 2 else ''})" if count > 1 else ""
