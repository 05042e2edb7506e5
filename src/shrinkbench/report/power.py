"""How many seeds a comparison needs, from the variance that was seen."""

from __future__ import annotations

import math
from collections.abc import Iterator

from shrinkbench.cells import say_count
from shrinkbench.report.pitfalls.conditions import unequal_conditions, unequal_versions
from shrinkbench.report.pitfalls.practice import unequal_training
from shrinkbench.report.statistics.claims import Claim, found_with, judge, more_units
from shrinkbench.report.statistics.metrics import Metric
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.report.tables import Cell, Table, ratio_text, slug
from shrinkbench.report.verdict import left_out_text
from shrinkbench.results.bundle import Bundle

MOST = 1000
"""More seeds than this are not counted."""


def power_tables(observations: Observations, *, margin: float, power: float = 0.8) -> Iterator[Table]:
    """For every task, each pair over its range: spread, what its seeds find, seeds for ``margin``.

    ``margin`` is a difference of the metric where that is a percentage (0.01 is a point), else a share of the
    control's value. The spread is the standard deviation of one seed's difference, as it is tested (pooled over
    the methods of the task); the level is what the correction left for the pair.
    """
    claims = judge(observations)
    comparisons = say_count(claims.comparisons, "comparison", "comparisons")
    for task in claims.tasks:
        metric = observations.metric(task.task)
        wanted = margin * observations.yardstick(task.task)
        if task.pairs:
            yield Table(
                name=f"power-{slug(task.task)}",
                caption=f"Pairs of methods on {task.task}, mean {metric.short} over log compression (above 0: "
                f"the first is better): what would be found with {100 * power:g} % probability, after the "
                f"correction for {comparisons}, if the spread is what was seen; seeds for a difference of "
                f" {metric.difference(wanted)}.",
                columns=(
                    *("first", "second", "range", "difference", "spread", "n", "found with n"),
                    "seeds needed",
                ),
                rows=tuple(_row(claim, wanted, power, metric) for claim in task.pairs),
                stubs=2,
            )


def power_notes(bundle: Bundle, observations: Observations) -> Iterator[str]:
    """What limits the numbers of the tables: who is left out, unequal conditions, seeds added on the way."""
    for task in judge(observations).tasks:
        if task.block.left_out:
            yield f"{task.task}:{left_out_text(task.block.left_out)}"
        elif task.race is not None and not task.race.seeds:
            yield f"{task.task}: the first look, after {task.race.needs} seeds, waits for its runs."
        elif not task.pairs:
            yield f"{task.task}: one method alone was run there, and is compared with none."
    if observations.design is not None:
        yield (
            "Seeds were added until decided; what is told is of one test after a number of seeds that is fixed "
            "beforehand, and several looks ask for more."
        )
    done = [run for run in bundle.results if run.status == "done"]
    conditions = (*unequal_conditions(done), *unequal_versions(done))
    for pitfall in (*unequal_training(done, observations), *conditions):
        yield f"{pitfall.title} ({pitfall.where}): {pitfall.finding}"


def _row(claim: Claim, margin: float, power: float, metric: Metric) -> tuple[Cell, ...]:
    more = more_units(claim, margin=margin, power=power, most=MOST)
    needed = "–" if not claim.deviation > 0 else f"over {MOST}" if more is None else str(claim.n + more)
    sign = "−" if claim.difference < 0 else "+"
    return (
        Cell(claim.first),
        Cell(claim.second),
        Cell(f"{claim.reach[0]:.3g}–{ratio_text(claim.reach[1])}"),
        Cell(f"{sign}{metric.number(abs(claim.difference))}", best=claim.decided),
        Cell(_known(claim.deviation, metric)),
        Cell(str(claim.n)),
        Cell(_known(found_with(claim, power=power), metric)),
        Cell(needed),
    )


def _known(value: float, metric: Metric) -> str:
    return metric.number(value) if math.isfinite(value) else "–"
