"""What stands out of the noise of seeds, whatever the number of pairs, levels, tasks or cells looked at."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
import scipy

from shrinkbench.report.pitfalls.finding import SMALLEST, Panel, Pitfall, and_more, mean
from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.compare import groups, records
from shrinkbench.report.statistics.metrics import HEADLINE, Metric
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.report.tables import amount_text

WIDE_SPREAD = 0.02
"""A standard deviation over seeds of two points, or of 2 % of the control's value, is wide."""

Pair = tuple[str, str]
KeyT = TypeVar("KeyT", bound=Hashable)


def clear_signs(
    families: Mapping[KeyT, Mapping[Pair, Sequence[float]]], *, alone: Collection[KeyT] = ()
) -> dict[KeyT, dict[Pair, int]]:
    """Which method of each pair is clearly better: 1 the first, -1 the second, 0 neither.

    A family holds the differences, one per seed, of pairs of methods that ran on the same seeds; its noise is
    pooled (randomised blocks), but for families named in ``alone``. p-values are corrected by Holm over all
    pairs of all families: of many equal methods some would else differ somewhere by chance. A single seed
    tells nothing, and differences below half a point do not matter.
    """
    cells: list[tuple[KeyT, Pair]] = []
    p_values: list[float] = []
    for key, by_pair in families.items():
        if not by_pair:
            continue
        cells += [(key, pair) for pair in by_pair]
        if key in alone:
            p_values += [stats.paired_t(d) if len(d) > 1 else np.nan for d in by_pair.values()]
            continue
        methods = {method for pair in by_pair for method in pair}
        blocks = max(map(len, by_pair.values()))
        freedom = (len(methods) - 1) * (blocks - 1)
        p_values += list(stats.paired_t_in_blocks(list(by_pair.values()), freedom=freedom))
    signs: dict[KeyT, dict[Pair, int]] = {key: {} for key in families}
    for (key, pair), p in zip(cells, stats.holm(p_values), strict=True):
        gap = mean(families[key][pair])
        clear = abs(gap) >= SMALLEST and p < stats.ALPHA
        signs[key][pair] = (1 if gap > 0 else -1) if clear else 0
    return signs


def wide_seed_spread(observations: Observations) -> Iterator[Pitfall]:
    """Cells whose standard deviation over seeds is above 2 points, beyond what all cells of a seed share.

    Tested by the chi-square distribution of a normal sample's variance, corrected by Holm over all cells.
    """
    spreads = [
        _spreads(part, observations.yardstick(str(task))).assign(task=task)
        for task, part in groups(observations.pruned, "task", only=("method", "amount", "seed", HEADLINE))
    ]
    if not spreads:
        return
    table = pd.concat(spreads, ignore_index=True)
    table["p"] = stats.holm(table["p"])
    for task, found in groups(table[table["p"] < stats.ALPHA], "task"):
        worst = max(records(found), key=lambda row: row.spread)
        rows = observations.pruned
        cell = rows[
            (rows["task"] == task) & (rows["method"] == worst.method) & (rows["amount"] == worst.amount)
        ]
        metric = observations.metric(str(task))
        where = amount_text(worst.amount, cell["compression_target"].iloc[0])
        yield Pitfall(
            kind="wide-seed-spread",
            title=f"{_title(metric)} of one cell deviates by more than {_limit(metric)} over seeds",
            where=str(task),
            finding=(
                f"{worst.method} at {where} gives between {metric.text(cell[HEADLINE].min())} and "
                f"{metric.text(cell[HEADLINE].max())} over {len(cell)} seeds; beyond what all cells of "
                f"a seed share, the standard deviation is {metric.share(worst.spread)}{_of(metric)}"
                f"{and_more(len(found), 'cell')}."
            ),
            advice="Give mean and deviation over several seeds here; one run would be luck.",
            runs=tuple(cell["key"]),
            panels=(Panel(str(task), "compression", HEADLINE, (worst.method,)),),
        )


def _title(metric: Metric) -> str:
    name = "accuracy" if metric.is_accuracy else metric.short
    return f"{name[:1].upper()}{name[1:]}"


def _limit(metric: Metric) -> str:
    """The deviation from which a spread is wide."""
    return f"{100 * WIDE_SPREAD:g} {'points' if metric.percent else '% of the control’s value'}"


def _of(metric: Metric) -> str:
    return "" if metric.percent else " of the control’s value"


def _spreads(part: pd.DataFrame, yardstick: float) -> pd.DataFrame:
    """Standard deviation of every cell of a task over seeds, and p that the true one is at most 2 points.

    What a seed's initial network does to all cells alike is taken off: the mean deviation of the complete
    cells. Sums of squares are scaled so that, of equal deviations, that is what they estimate; of unequal ones
    it is between them.
    """
    wide = part.pivot_table(index=["method", "amount"], columns="seed", values=HEADLINE)
    values = wide.to_numpy(dtype=float) / yardstick
    counts = np.isfinite(values).sum(axis=1)
    residuals = values - np.nanmean(values, axis=1, keepdims=True)
    complete = counts == values.shape[1]
    scale, cells = np.ones(len(values)), int(complete.sum())
    if cells > 1:
        residuals = residuals - residuals[complete].mean(axis=0)
        residuals = residuals - np.nanmean(residuals, axis=1, keepdims=True)
        scale = np.where(complete, 1 - 1 / cells, 1 + 1 / cells)
    squares = np.nansum(residuals**2, axis=1) / scale
    freedom = np.where(counts > 1, counts - 1, np.nan)
    table = wide.index.to_frame(index=False)
    table["spread"] = np.sqrt(squares / freedom)
    table["p"] = scipy.special.chdtrc(freedom, squares / WIDE_SPREAD**2)
    return table
