"""Pitfalls of Section 7.3 of the paper, and of its practice, found in the results themselves.

A difference counts only where it is at least half a point of accuracy and its 95 % interval over seeds leaves
out zero (a single seed must differ by a whole point), so a clean set of results shows no pitfall.
"""

from __future__ import annotations

from collections.abc import Sequence

from shrinkbench.report.pitfalls.finding import Panel, Pitfall
from shrinkbench.report.pitfalls.orders import (
    initial_model_confounds,
    metrics_not_interchangeable,
    order_varies_with_amount,
    order_varies_with_task,
    wide_seed_spread,
)
from shrinkbench.report.pitfalls.practice import best_of_epochs, selection_on_test, unequal_training
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.results.record import RunResult

__all__ = ["Panel", "Pitfall", "find_pitfalls"]


def find_pitfalls(results: Sequence[RunResult], observations: Observations) -> list[Pitfall]:
    """Every pitfall in the results, in the order of the paper."""
    done = [result for result in results if result.status == "done"]
    return [
        *metrics_not_interchangeable(observations),
        *order_varies_with_amount(observations),
        *order_varies_with_task(observations),
        *initial_model_confounds(observations),
        *wide_seed_spread(observations),
        *selection_on_test(done),
        *unequal_training(done, observations),
        *best_of_epochs(done),
    ]
