"""Pitfalls of practice: what was chosen on the test split, who was trained longer, which epoch is shown."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from shrinkbench.report.pitfalls.finding import Pitfall, and_more, mean, points
from shrinkbench.report.statistics.compare import groups
from shrinkbench.report.statistics.observations import Observations
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
                    f"{' and '.join(sorted(by_method[b]))}{and_more(len(differing), 'pair')}."
                ),
                advice="Compare at equal training budget, or give every method each budget.",
            )
            continue
        yield from _unequal_epochs(rows[rows["problem"] == problem], problem, names)
    yield from _idle_control(observations)


def _unequal_epochs(rows: pd.DataFrame, problem: str, recipes: Mapping[str, Recipe]) -> Iterator[Pitfall]:
    """One recipe, but what was spent differs: early stopping may halve it, nothing else may change it."""
    columns = ["compression_target", "method", "training_cost", "key"]
    for target, cell in groups(rows[columns].dropna(), "compression_target"):
        cost = cell.groupby("method")["training_cost"].mean()
        stopping = any(recipes[key].early_stopping for key in cell["key"])
        allowed = 2.0 if stopping else 1.1
        if len(cost) > 1 and cost.max() > allowed * cost.min():
            times = cost.max() / cost.min() if cost.min() else float("inf")
            rule = " under one early-stopping rule" if stopping else ""
            yield Pitfall(
                kind="unequal-budgets",
                title="Methods were trained on different budgets",
                where=f"{problem}, compression {target:g}",
                finding=f"{cost.idxmax()} was trained {times:.1f} times as long as {cost.idxmin()}{rule}.",
                advice="Compare at equal training budget, or say what each accuracy cost.",
                runs=tuple(cell["key"]),
            )
            return


def _idle_control(observations: Observations) -> Iterator[Pitfall]:
    trained, control = (
        {str(task): float(mean) for task, mean in part.groupby("task")["epochs_run"].mean().items()}
        for part in (observations.pruned, observations.control)
    )
    for task in control:
        if control[task] == 0 and trained.get(task, 0) > 0:
            yield Pitfall(
                kind="unequal-budgets",
                title="The control was not fine-tuned",
                where=task,
                finding=f"Pruned networks had {trained[task]:.3g} epochs of fine-tuning, the control none.",
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
        cell = (f"{result.spec.data.name} / {result.spec.model}", result.spec.method.name)
        gains[cell].append(max(validation) - validation[-1])
        runs[cell].append(result.key)
    by_place: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for (place, method), values in gains.items():
        if mean(values) >= BEST_OF_EPOCHS_GAIN:
            by_place[place].append((mean(values), method))
    for where, found in by_place.items():
        gain, method = max(found)
        yield Pitfall(
            kind="best-of-epochs",
            title="The headline is the best of many epochs",
            where=where,
            finding=(
                f"For {method} the best epoch reads {points(gain)} higher on validation than the last one, on "
                f"average over {len(gains[where, method])} runs{and_more(len(found), 'method')}."
            ),
            advice="Report the last epoch, or say that the best was chosen on validation and what that adds.",
            runs=tuple(runs[where, method]),
        )
