"""Pitfalls of Section 7.3 of the paper, of its practice and of its records, found in the results themselves.

An order counts only where the difference is at least half a point (half a percent, of a metric that is no
share) and is told apart from none after Holm's correction over all that was looked at; a single seed shows no
order.
"""

from __future__ import annotations

from collections.abc import Sequence

from shrinkbench.report.pitfalls.conditions import other_networks, unequal_conditions, unequal_versions
from shrinkbench.report.pitfalls.finding import Panel, Pitfall
from shrinkbench.report.pitfalls.noise import wide_seed_spread
from shrinkbench.report.pitfalls.orders import (
    initial_model_confounds,
    metrics_not_interchangeable,
    order_varies_with_amount,
    order_varies_with_task,
)
from shrinkbench.report.pitfalls.practice import (
    best_of_epochs,
    low_controls,
    selection_on_test,
    unequal_training,
)
from shrinkbench.report.pitfalls.runs import (
    copied_runs,
    copied_seeds,
    emptied_layers,
    failed_runs,
    missed_targets,
    shared_starts,
    twin_methods,
)
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.results.record import RunResult

__all__ = ["Panel", "Pitfall", "find_pitfalls"]


def find_pitfalls(results: Sequence[RunResult], observations: Observations) -> list[Pitfall]:
    """Every pitfall in the results: those of the paper in its order, then those of practice and of records."""
    done = [result for result in results if result.status == "done"]
    return [
        *metrics_not_interchangeable(observations),
        *order_varies_with_amount(observations),
        *order_varies_with_task(observations),
        *initial_model_confounds(observations),
        *wide_seed_spread(observations),
        *selection_on_test(done),
        *unequal_training(done, observations),
        *low_controls(observations),
        *unequal_conditions(done),
        *unequal_versions(done),
        *other_networks(done),
        *best_of_epochs(done),
        *missed_targets(observations),
        *emptied_layers(done),
        *failed_runs(results),
        *copied_seeds(done),
        *shared_starts(done),
        *copied_runs(done),
        *twin_methods(done),
    ]
