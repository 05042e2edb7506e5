"""Pitfalls of practice: what was chosen on the test split, who was trained longer, which epoch is shown."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from shrinkbench.report.pitfalls.finding import Pitfall, and_more, mean, points
from shrinkbench.report.statistics.compare import groups
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.results.labels import distinct_runs, recipe_labels
from shrinkbench.results.record import RunResult
from shrinkbench.spec import Recipe

BEST_OF_EPOCHS_GAIN = 0.01


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


def unequal_training(results: Sequence[RunResult], observations: Observations) -> Iterator[Pitfall]:
    """Methods of one task were trained by different recipes or for much longer than others."""
    specs = {r.key: r.spec for r in results}
    rows = observations.pruned
    for task in observations.tasks:
        here = rows[rows["task"] == task]
        recipes: dict[str, set[Recipe]] = defaultdict(set)
        for key, method in zip(here["key"], here["method_alone"], strict=True):
            recipes[method].add(specs[key].recipe)
        pairs = itertools.combinations(sorted(recipes), 2)
        differing = [(a, b) for a, b in pairs if not recipes[a] & recipes[b]]
        if not differing:
            yield from _unequal_epochs(here, task, {key: specs[key].recipe for key in here["key"]})
            continue
        a, b = differing[0]
        names = recipe_labels(recipes[a] | recipes[b])
        yield Pitfall(
            kind="unequal-training",
            title="Methods had unequal training",
            where=task,
            finding=(
                f"{a} was trained by {_named(recipes[a], names)}, {b} by "
                f"{_named(recipes[b], names)}{and_more(len(differing), 'pair')}."
            ),
            advice="Compare at equal training, or train every method by each recipe.",
        )
    yield from _idle_control(observations)


def _named(recipes: Iterable[Recipe], names: Mapping[Recipe, str]) -> str:
    return " and ".join(sorted(f"{names[r]} ({r.epochs} epochs, batch {r.batch_size})" for r in recipes))


def _unequal_epochs(rows: pd.DataFrame, task: str, recipes: Mapping[str, Recipe]) -> Iterator[Pitfall]:
    """One recipe, but what was spent differs: early stopping may halve it, nothing else may change it."""
    columns = ["amount", "method", "training_cost", "key"]
    for amount, cell in groups(rows[columns].dropna(), "amount"):
        cost = cell.groupby("method")["training_cost"].mean()
        stopping = any(recipes[key].early_stopping for key in cell["key"])
        allowed = 2.0 if stopping else 1.1
        if len(cost) > 1 and cost.max() > allowed * cost.min():
            times = cost.max() / cost.min() if cost.min() else float("inf")
            rule = " under one early-stopping rule" if stopping else ""
            yield Pitfall(
                kind="unequal-training",
                title="Methods had unequal training",
                where=f"{task}, {amount}",
                finding=f"{cost.idxmax()} was trained {times:.1f} times as long as {cost.idxmin()}{rule}.",
                advice="Compare at equal training, or say what each accuracy cost.",
                runs=tuple(cell["key"]),
            )
            return


def _idle_control(observations: Observations) -> Iterator[Pitfall]:
    """Pruned networks were trained, and the control of these very runs was not."""
    idle = observations.control[observations.control["epochs_run"] == 0]
    pruned = observations.pruned
    trained = pruned[pruned["control_key"].isin(idle["control_key"]) & (pruned["epochs_run"] > 0)]
    for task, rows in groups(trained, "task"):
        epochs = rows["epochs_run"].mean()
        yield Pitfall(
            kind="unequal-training",
            title="The control was not fine-tuned",
            where=str(task),
            finding=f"Pruned networks had {epochs:.3g} epochs of fine-tuning, the control none.",
            advice="Fine-tune the control like every pruned network.",
        )


def best_of_epochs(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """The headline is the best of many epochs, and the last one would read clearly lower."""
    chosen = (r for r in results if not r.spec.is_control and r.spec.recipe.selection != "last")
    gains: dict[tuple[str, str], list[float]] = defaultdict(list)
    runs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result, label in distinct_runs(chosen):
        values = _by_epoch(result)
        if values:
            gains[label.task, label.method].append(max(values) - values[-1])
            runs[label.task, label.method].append(result.key)
    by_task: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for (task, method), found in gains.items():
        if mean(found) >= BEST_OF_EPOCHS_GAIN:
            by_task[task].append((mean(found), method))
    for where, clear in by_task.items():
        gain, method = max(clear)
        yield Pitfall(
            kind="best-of-epochs",
            title="The headline is the best of many epochs",
            where=where,
            finding=(
                f"For {method} the best epoch reads {points(gain)} higher on validation than the last one, on "
                f"average over {len(gains[where, method])} runs{and_more(len(clear), 'method')}."
            ),
            advice="Report the last epoch, or say that the best was chosen on validation and what that adds.",
            runs=tuple(runs[where, method]),
        )


def _by_epoch(result: RunResult) -> list[float]:
    """The headline metric on validation, epoch by epoch, where it is a share of which more is better."""
    objective = result.spec.task.objective
    metric = objective.metric(objective.headline)
    if metric.unit != "fraction" or metric.direction != "higher":
        return []
    return [e.validation[metric.name] for e in result.epochs if metric.name in e.validation]
