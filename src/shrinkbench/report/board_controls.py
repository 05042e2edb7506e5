"""The unpruned networks of a board of the leaderboard, and where sources do not agree on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.compare import groups
from shrinkbench.report.statistics.metrics import HEADLINE, Metric
from shrinkbench.results.labels import CONTROL


@dataclass(frozen=True)
class ControlRow:
    """An unpruned network of a board: its metric over the seeds that it was run with."""

    name: str
    value: stats.Summary


def control_rows(
    rows: pd.DataFrame, sources: Mapping[str, str], metric: Metric, *, seeds: Sequence[str]
) -> dict[str, Any]:
    """The controls of a board; by source, with a sentence, where sources have other numbers of the same one.

    They are those of the ``seeds`` that entries are ranked over; one that has none of these names its own.
    """
    found: list[ControlRow] = []
    apart = 0.0
    for label, part in groups(rows, "method"):
        name = label if rows["method"].nunique() > 1 else CONTROL
        ranked = part["seed"].astype(str).isin(seeds)
        if seeds and not ranked.any():
            name = f"{name} (seed {', '.join(map(str, sorted(part['seed'].unique())))})"
        part = part[ranked] if ranked.any() else part
        distinct = part.drop_duplicates(["seed", HEADLINE])
        spread = distinct.groupby("seed")[HEADLINE].agg(lambda values: values.max() - values.min()).max()
        if distinct["seed"].is_unique:
            found.append(ControlRow(name, stats.summarise(distinct[HEADLINE])))
            continue
        apart = max(apart, spread)
        for source, own in groups(part.assign(source=part["source"].map(sources)), "source"):
            found.append(ControlRow(f"{name} ({source})", stats.summarise(own[HEADLINE])))
    note = f"Sources have other numbers of the same control, by up to {metric.difference(apart)}"
    return {"controls": tuple(found), "note": note if apart else ""}
