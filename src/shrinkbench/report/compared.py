"""Which runs a report compares: those whose tasks have top-1, which figures, tables and judgements are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shrinkbench.results.labels import label_runs
from shrinkbench.results.record import RunResult
from shrinkbench.spec import CLASSIFICATION


@dataclass(frozen=True)
class Split:
    """Runs that are compared, and a sentence about the tasks of the others, empty where there are none."""

    compared: tuple[RunResult, ...]
    sentence: str


def split_by_metric(results: Sequence[RunResult]) -> Split:
    """Set runs aside whose tasks lead with another metric than top-1: they have no place on its axis."""
    labels = label_runs([result.spec for result in results])
    compared, others = [], {}
    for result, label in zip(results, labels, strict=True):
        objective = result.spec.task.objective
        if objective.headline == CLASSIFICATION.headline:
            compared.append(result)
        else:
            others[label.task] = objective.headline
    if not others:
        return Split(tuple(compared), "")
    named = "; ".join(f"{task} ({metric})" for task, metric in sorted(others.items()))
    sentence = f"Not drawn, ranked or judged here, but in results.csv, are tasks of another metric: {named}."
    return Split(tuple(compared), sentence)
