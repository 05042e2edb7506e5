"""How many seeds a comparison needs, from the variance that was seen."""

from __future__ import annotations

import math
from collections.abc import Iterator

from shrinkbench.report.statistics.claims import Claim, found_with, judge, more_units
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.report.tables import Cell, Table, slug

MOST = 1000
"""More seeds than this are not counted."""


def power_tables(observations: Observations, *, margin: float, power: float = 0.8) -> Iterator[Table]:
    """For every task, each pair over its range: spread, what its seeds find, seeds for ``margin``.

    ``margin`` is a fraction of accuracy. The spread is the standard deviation of one seed's difference, as it
    is tested (pooled over the methods of the task); the level is what the correction left for the pair.
    """
    claims = judge(observations)
    for task in claims.tasks:
        if task.pairs:
            yield Table(
                name=f"power-{slug(task.task)}",
                caption=f"Pairs of methods on {task.task}, mean top-1 over log compression in points: what "
                f"would be found with {100 * power:g} % probability, after the correction for "
                f"{claims.comparisons} comparisons, if the spread is what was seen; seeds for a difference "
                f"of {100 * margin:g}.",
                columns=(
                    "first",
                    "second",
                    "difference",
                    "spread of a seed",
                    "n",
                    "found with n",
                    "seeds needed",
                ),
                rows=tuple(_row(claim, margin, power) for claim in task.pairs),
                stubs=2,
            )


def _row(claim: Claim, margin: float, power: float) -> tuple[Cell, ...]:
    more = more_units(claim, margin=margin, power=power, most=MOST)
    needed = "–" if not claim.deviation > 0 else f"over {MOST}" if more is None else str(claim.n + more)
    return (
        Cell(claim.first),
        Cell(claim.second),
        Cell(f"{100 * claim.difference:+.2f}".replace("-", "−"), best=claim.decided),
        Cell(_points(claim.deviation)),
        Cell(str(claim.n)),
        Cell(_points(found_with(claim, power=power))),
        Cell(needed),
    )


def _points(value: float) -> str:
    return f"{100 * value:.2f}" if math.isfinite(value) else "–"
