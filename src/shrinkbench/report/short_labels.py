"""Short labels of methods: where they come from, and the table that says which is which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from shrinkbench.report.statistics.observations import Observations
from shrinkbench.report.tables import Cell, Table
from shrinkbench.results.labels import label_runs
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import Plan


def short_labels(observations: Observations, results: Iterable[RunResult], plan: Plan | None) -> dict[str, str]:
    """Method as the report names it -> its label, for every method that an experiment of ``plan`` labels.

    Of two experiments that label one method the first counts. Labels that two methods would share are left out.
    """
    names: dict[str, str] = {}
    for experiment in plan.experiments if plan else ():
        names = {**experiment.labels, **names}
    shared = Counter(names.values())
    names = {name: label for name, label in names.items() if shared[label] == 1}
    if not names:
        return {}
    by_key = {result.key: result.spec for result in results}
    rows = observations.pruned
    runs = label_runs([by_key[key] for key in rows["key"]], names=names)
    short = {method: label.method for method, label in zip(rows["method"], runs, strict=True)}
    counts = Counter(short.values())
    return {method: label for method, label in short.items() if label != method and counts[label] == 1}


def labels_table(labels: Mapping[str, str]) -> Table:
    """Which label stands for which method."""
    return Table(
        name="labels",
        caption="What methods are called in figures and tables.",
        columns=("label", "method"),
        rows=tuple((Cell(label), Cell(method)) for method, label in sorted(labels.items())),
        stubs=2,
        group="Labels",
    )
