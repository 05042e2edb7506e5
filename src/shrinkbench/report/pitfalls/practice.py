"""Pitfalls of practice: what was chosen on the test split, who was trained longer, which epoch is shown."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from shrinkbench.cells import say_count
from shrinkbench.report.checklist.causes import joined
from shrinkbench.report.conditions import Facts, recipe_facts
from shrinkbench.report.pitfalls.conditions import RECIPE, unequal_conditions
from shrinkbench.report.pitfalls.finding import Pitfall, and_more, mean, points
from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.compare import MARGIN, groups, records
from shrinkbench.report.statistics.curves import SAME
from shrinkbench.report.statistics.metrics import CHANGE, HEADLINE, Metric, metric_of
from shrinkbench.report.statistics.observations import SMALLEST_YARDSTICK, Observations
from shrinkbench.results.labels import distinct_runs
from shrinkbench.results.record import RunResult
from shrinkbench.spec import MethodSpec, Recipe, TaskSpec

BEST_OF_EPOCHS_GAIN = 0.01
FEWEST_ABOVE = 3
"""Most of so many methods have to be above their control before it is doubted."""
LONGER = 1.1
"""Costs that differ by no more than this factor count as equal."""


def selection_on_test(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """Something was chosen on the split that is reported."""
    chosen: dict[str, list[RunResult]] = defaultdict(list)
    for result in results:
        spec, recipes = result.spec, [result.spec.recipe]
        if spec.weights.recipe is not None:
            recipes.append(spec.weights.recipe)
        for recipe in recipes:
            if recipe.selection == "best-test":
                chosen[f"recipe {recipe.name} takes the epoch with the best accuracy on the test split"].append(
                    result
                )
        if result.validation is not None and result.validation == result.after and result.epochs:
            chosen["validation and test figures are identical, so they are one split"].append(result)
    methods = {result.spec.method.name for result in results if not result.spec.is_control}
    for reason, runs in chosen.items():
        own = sorted({run.spec.method.name for run in runs if not run.spec.is_control})
        whose = f" of {joined(own)}" if own and len(own) < len(methods) else ""
        yield Pitfall(
            kind="selection-on-test",
            title="The reported split decided something",
            where=f"{len(runs)} of {len(results)} runs",
            finding=f"In {say_count(len(runs), 'run', 'runs')}{whose}, {reason}: their accuracy is an upper "
            "bound, not an estimate.",
            advice="Choose epochs and settings on a validation split cut from the training data.",
            runs=tuple(run.key for run in runs),
        )


def unequal_training(results: Sequence[RunResult], observations: Observations) -> Iterator[Pitfall]:
    """Methods of one task were trained by different recipes or for much longer, or the control for less."""
    yield from _differences_in_training(results, observations)
    yield from _short_control(results, observations)


def training_is_equal(results: Sequence[RunResult], observations: Observations) -> tuple[bool, str]:
    """Whether methods of every task were trained alike, and a sentence that says how or who was not.

    Compared are the values of their recipes, and the epochs that were allowed and spent; they are alike exactly
    where :func:`unequal_training` finds no two methods that differ. Multiply-adds are told beside.
    """
    done = [result for result in results if result.status == "done"]
    found = list(_differences_in_training(done, observations))
    if found:
        return False, (
            f"Not all comparisons are at equal training ({found[0].where}): "
            f"{found[0].finding.rstrip('.')}{and_more(len(found), 'case')}."
        )
    pruned = [run for run in done if not run.spec.is_control]
    stopping = any(run.spec.recipe.early_stopping for run in pruned)
    cells = [
        cell for _, cell in _lengths(observations.pruned, by_seed=not stopping) if cell["method"].nunique() > 1
    ]
    if not cells:
        return True, "No two methods were run over a common range of pruning: there is no training to compare."
    facts = [_recipes_of(pruned), *_say_lengths(cells, observations.pruned["training_cost"].isna())]
    return True, f"Within every task, methods were trained by {'; '.join(facts)}."


def _say_lengths(cells: Sequence[pd.DataFrame], unknown: pd.Series) -> Iterator[str]:
    """How far methods' epochs and multiply-adds are apart in a cell, of runs that record them."""
    epochs, computation = (
        max(_apart(cell, column) for cell in cells) for column in ("training_cost", "training_multiply_adds")
    )
    if unknown.all():
        yield "no run records its epochs"
    else:
        those = ""
        if unknown.any():
            yield f"{unknown.sum()} of {len(unknown)} runs do not record their epochs"
            those = "recorded "
        if epochs <= LONGER:
            yield f"{those}epochs were equal, up to 10 %"
        elif math.isinf(epochs):
            yield f"{those}epochs were none for some, and not for others (early stopping or equal computation)"
        else:
            yield f"{those}epochs differed by up to {epochs:.2g} times (early stopping or equal computation)"
    if LONGER < computation < math.inf:
        yield f"multiply-adds of training differed by up to {computation:.2g} times"


def _recipes_of(results: Sequence[RunResult]) -> str:
    """What the recipes of a task's methods have in common, in words."""
    recipes: dict[TaskSpec, dict[MethodSpec, set[Facts]]] = defaultdict(lambda: defaultdict(set))
    for run in results:
        recipes[run.spec.task][run.spec.method].add(recipe_facts(run.spec.recipe))
    if all(len(set().union(*by_method.values())) == 1 for by_method in recipes.values()):
        return "one recipe"
    if all(len(set(map(frozenset, by_method.values()))) == 1 for by_method in recipes.values()):
        return "the same recipes"
    return "recipes that are alike where they play the same part"


def _differences_in_training(results: Sequence[RunResult], observations: Observations) -> Iterator[Pitfall]:
    """Recipes that differ in value and, where they do not, epochs that do."""
    named: set[str] = set()
    for pitfall in unequal_conditions(results, (RECIPE,)):
        named |= set(pitfall.runs)
        yield pitfall
    recipes = {r.key: r.spec.recipe for r in results}
    columns = ("amount", "compression", "method", "method_alone", "seed", "key", *_MEASURES)
    for _, rows in groups(observations.pruned, "task", only=columns):
        if not named.intersection(rows["key"]):
            yield from _unequal_epochs(rows, recipes)


_MEASURES = ["training_cost", "epochs_allowed", "training_multiply_adds"]


def _lengths(rows: pd.DataFrame, *, by_seed: bool = False) -> Iterator[tuple[str, pd.DataFrame]]:
    """By task and amount: the mean of every measure of training, for each method under each of its recipes.

    Then, of each pair of methods, amounts that one of them lacks beside the nearest of the other.
    ``by_seed`` gives the measures themselves: a mean hides that one seed had little, and another much.
    """
    units = ["task", *(["seed"] if by_seed else [])]
    names = [*units[:1], "amount", *units[1:]]
    means = rows.groupby([*names, "method_alone", "method"])[[*_MEASURES, "compression"]].mean().reset_index()
    for (task, amount, *seed), cell in groups(means, *names):
        yield f"{task}, {amount}{f', seed {seed[0]}' if seed else ''}", cell
    for (task, *seed), part in means.groupby(units, sort=True):
        for pair in _side_by_side(part):
            amounts = " beside ".join(dict.fromkeys(pair["amount"]))
            yield f"{task}, {amounts}{f', seed {seed[0]}' if seed else ''}", pair


def _side_by_side(means: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Of each pair of methods, an amount that the other lacks, within its range, with the nearest that it has.

    Curves are compared between their points too, wherever these lie.
    """
    curves = dict(iter(groups(means, "method_alone")))
    amounts = {method: frozenset(part["amount"]) for method, part in curves.items()}
    if len(set(amounts.values())) == 1:
        return
    for one, other in itertools.permutations(curves, 2):
        reached = curves[other].groupby("amount")["compression"].mean()
        for amount, point in groups(curves[one], "amount"):
            at = point["compression"].mean()
            if amount not in amounts[other] and reached.min() / LONGER <= at <= reached.max() * LONGER:
                nearest = (reached / at).map(math.log).abs().idxmin()
                yield pd.concat([point, curves[other][curves[other]["amount"] == nearest]])


def _unequal_epochs(rows: pd.DataFrame, recipes: Mapping[str, Recipe]) -> Iterator[Pitfall]:
    """Of one task: what was spent or allowed differs by more than 10 %, what early stopping spent by twice.

    On average over seeds and, where nothing stops early, with any one of them. Where epochs differ and
    multiply-adds do not, methods were trained at equal computation on purpose.
    """
    if _spread(rows, "training_cost") <= LONGER and _spread(rows, "epochs_allowed") <= LONGER:
        return  # nor do means differ by more
    stopping = any(recipes[key].early_stopping for key in rows["key"])
    for where, cell in [*_lengths(rows), *(() if stopping else _lengths(rows, by_seed=True))]:
        known = cell["training_multiply_adds"].notna().all()
        if known and _apart(cell, "training_multiply_adds") <= LONGER:
            continue
        for column, words, limit in (
            ("training_cost", "was trained", 2.0 if stopping else LONGER),
            ("epochs_allowed", "was allowed to train", LONGER),
        ):
            most, least = _furthest(cell, column)
            if _ratio(most[0], least[0]) <= limit:
                continue
            rule = " under early stopping" if stopping else ""
            times = f"{_ratio(most[0], least[0]):.1f} times as long as {least[1]}"
            yield Pitfall(
                kind="unequal-training",
                title="Methods had unequal training",
                where=where,
                finding=(
                    f"{most[1]} {words} {times} ({most[0]:.3g} epochs against {least[0]:.3g}){rule}."
                    if least[0]
                    else f"{most[1]} {words} for {most[0]:.3g} epochs, {least[1]} for none{rule}."
                ),
                advice="Compare at equal training, or say what each accuracy cost.",
                runs=tuple(rows.loc[rows["amount"].isin(cell["amount"]), "key"]),
            )
            return


def _spread(rows: pd.DataFrame, column: str) -> float:
    """How many times the smallest value the largest is."""
    values = rows[column].dropna()
    return _ratio(values.max(), values.min()) if len(values) else 1.0


def _furthest(cell: pd.DataFrame, column: str) -> tuple[tuple[float, str], tuple[float, str]]:
    """The largest and the smallest value, with their methods, of the two methods that have least in common.

    A method that was trained in several ways is compared at the one nearest to another's.
    """
    levels: dict[str, list[float]] = defaultdict(list)
    for method, value in zip(cell["method_alone"], cell[column].to_numpy(dtype=float), strict=True):
        if math.isfinite(value):
            levels[method].append(value)
    furthest = ((1.0, ""), (1.0, ""))
    for a, b in itertools.combinations(sorted(levels), 2):
        nearest = min(itertools.product(levels[a], levels[b]), key=lambda pair: _ratio(*pair))
        if _ratio(*nearest) > _ratio(furthest[0][0], furthest[1][0]):
            low, high = sorted(zip(nearest, (a, b), strict=True))
            furthest = (high, low)
    return furthest


def _apart(cell: pd.DataFrame, column: str) -> float:
    """How many times as much as another a method of the cell had, where they are furthest apart."""
    most, least = _furthest(cell, column)
    return _ratio(most[0], least[0])


def _ratio(a: float, b: float) -> float:
    """How many times the larger is the smaller."""
    low, high = min(a, b), max(a, b)
    return 1.0 if low == high else high / low if low else math.inf


def _short_control(results: Sequence[RunResult], observations: Observations) -> Iterator[Pitfall]:
    """Controls that trained for fewer epochs than the pruned networks of the same recipe that name them.

    Early stopping may end any training soon, yet not before it began.
    """
    by_key = {run.key: run for run in results}
    controls = {r.control_key: by_key[r.key] for r in records(observations.control[["control_key", "key"]])}
    spent: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in records(observations.pruned[["task", "control_key", "key"]]):
        run, control = by_key[row.key], controls.get(row.control_key)
        if control is None or control.spec.recipe != run.spec.recipe or control.epochs_run is None:
            continue
        if run.spec.method.finetuning.equal == "computation":  # longer, as the networks are smaller
            continue
        stopped = run.spec.recipe.early_stopping and control.epochs_run
        if run.epochs_run and run.epochs_run > LONGER * control.epochs_run and not stopped:
            spent[row.task, row.control_key].append(run.epochs_run)
    short: dict[tuple[str, int], list[tuple[RunResult, float]]] = defaultdict(list)
    for (task, key), epochs in spent.items():
        control = controls[key]
        short[task, control.epochs_run or 0].append((control, mean(epochs)))
    for (task, own), cases in short.items():
        seeds = sorted({control.spec.seed for control, _ in cases})
        yield Pitfall(
            kind="unequal-training",
            title=f"The control was {'trained for less than the pruned networks' if own else 'not fine-tuned'}",
            where=task,
            finding=(
                f"Pruned networks had {mean([epochs for _, epochs in cases]):.3g} epochs of training, their "
                f"control {own or 'none'} (seed{'s' if len(seeds) > 1 else ''} {joined(seeds)})."
            ),
            advice="Train the control like every pruned network.",
            runs=tuple(control.key for control, _ in cases),
        )


def low_controls(observations: Observations) -> Iterator[Pitfall]:
    """Controls that most methods are above by a point or more, on every seed, where they prune least.

    One method may gain from pruning; that most do tells of a control that lacks something. All methods have
    the same one, so that one number a seed, their median gain, has to stand out: t-test over seeds, Holm over
    tasks. A single seed tells nothing, as by chance its control alone may be low.
    """
    rows = observations.pruned
    least = rows.groupby(["task", "method"])["compression"].transform("min")
    cells = list(groups(rows[rows["compression"] <= least * (1 + SAME)], "task"))
    gains = [_gains(part, observations.direction(str(task), HEADLINE)) for task, part in cells]
    p_values = stats.holm([stats.paired_t(of_seeds) for of_seeds in (own.median(axis=0) for own in gains)])
    for (task, part), own, p in zip(cells, gains, p_values, strict=True):
        means = own.mean(axis=1)
        above = means[(own.min(axis=1) > 0) & (means >= MARGIN)]
        most = 2 * len(above) > len(own) >= FEWEST_ABOVE
        if observations.is_share(task, HEADLINE) and most and p < stats.ALPHA:
            yield Pitfall(
                kind="low-control",
                title="Most methods are better than their control",
                where=task,
                finding=(
                    f"Where they prune least, {len(above)} of {len(own)} methods are "
                    f"{points(above.min())} or more above their control, and on every seed above it."
                ),
                advice="Find out what the control lacks: what pruning costs is measured from it.",
                runs=tuple(dict.fromkeys(part["control_key"].dropna())),
            )


def _gains(rows: pd.DataFrame, sign: int) -> pd.DataFrame:
    """How much better than its control each method (rows) is on each seed (columns)."""
    return sign * rows.pivot_table(index="method", columns="seed", values=CHANGE)


def best_of_epochs(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """The headline is the best of many epochs, and the last one would read clearly lower."""
    chosen = (r for r in results if not r.spec.is_control and r.spec.recipe.selection != "last")
    gains: dict[tuple[str, str], list[float]] = defaultdict(list)
    metrics: dict[str, Metric] = {}
    runs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result, label in distinct_runs(chosen):
        values = _by_epoch(result)
        if values:
            gains[label.task, label.method].append(max(values) - values[-1])
            runs[label.task, label.method].append(result.key)
            objective = result.spec.task.objective
            metrics[label.task] = metric_of(objective.metric(objective.headline))
    by_task: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for (task, method), found in gains.items():
        if mean(found) >= BEST_OF_EPOCHS_GAIN:
            by_task[task].append((mean(found), method))
    for where, clear in by_task.items():
        gain, method = max(clear)
        metric = metrics[where]
        yield Pitfall(
            kind="best-of-epochs",
            title="The headline is the best of many epochs",
            where=where,
            finding=(
                f"For {method} the best epoch reads {metric.share(gain)} {_side(metric)} on validation than "
                f"the last one, on average over {len(gains[where, method])} runs"
                f"{and_more(len(clear), 'method')}."
            ),
            advice="Report the last epoch, or say that the best was chosen on validation and what that adds.",
            runs=tuple(runs[where, method]),
        )


def _side(metric: Metric) -> str:
    """Where a better value lies."""
    return "higher" if metric.higher_is_better else "lower"


def _by_epoch(result: RunResult) -> list[float]:
    """The headline metric on validation by epoch, turned so that more is better, in shares of its best value.

    One that is a share itself is in points.
    """
    objective = result.spec.task.objective
    metric = metric_of(objective.metric(objective.headline))
    values = [e.validation[objective.headline] for e in result.epochs if objective.headline in e.validation]
    best = max((metric.sign * value for value in values), default=0.0)
    whole = 1.0 if metric.percent else max(abs(best), SMALLEST_YARDSTICK)
    return [metric.sign * value / whole for value in values]
