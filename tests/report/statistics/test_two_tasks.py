"""Two tasks are shown and not judged: they may agree by chance on a method that varies from task to task."""

from __future__ import annotations

import numpy as np
import pytest
from made_results import make_results

from shrinkbench.report.result_tables import all_tables
from shrinkbench.report.statistics.claims import judge, judge_curves
from shrinkbench.report.statistics.compare import pairwise
from shrinkbench.report.statistics.curves import Curve
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.verdict import reach_verdict

NETWORKS = ("resnet110", "resnet18", "resnet20")
METHODS = ("global_gradient", "global_magnitude", "layerwise_gradient", "layerwise_magnitude")


def test_two_tasks_are_shown_and_not_judged():
    results = make_results(pairs=[("cifar10", n) for n in NETWORKS[:2]], methods=METHODS)
    claims = judge(observe(results))
    assert [claim.n for claim in claims.pairs_over_tasks] == [2] * 6
    assert claims.comparisons == sum(len(t.pairs) + len(t.levels) for t in claims.tasks)
    table = pairwise(observe(results))
    assert table[["low", "high", "p"]].isna().all(axis=None)
    assert not table["decided"].any()
    assert table["difference"].notna().all()
    assert "(with 2 tasks nothing is told apart: 3 are the fewest)" in reach_verdict(observe(results)).headline
    shown = next(table for table in all_tables(observe(results)) if table.name == "pairs-all-tasks")
    assert "two tasks are shown and not judged, as 3 are the fewest for that" in shown.caption
    three = make_results(pairs=[("cifar10", n) for n in NETWORKS[:3]], methods=METHODS)
    assert pairwise(observe(three))["p"].notna().all()


def stores_of_one_that_varies(*, tasks, stores, methods=12, seeds=3):
    """Nobody leads over tasks; one method differs by 3 points from task to task, and all others agree."""
    random = np.random.default_rng(0)
    x = np.array([1.0, 2, 4, 8, 16, 32])
    for _ in range(stores):
        found = []
        for task, method in np.ndindex(tasks, methods):
            effect = 0.03 * random.standard_normal() * (method == methods - 1)
            for seed in range(seeds):
                y = 0.9 + np.r_[0, np.full(5, effect)] + 0.003 * random.standard_normal(6)
                found.append(Curve(f"t{task}", f"m{method:02d}", seed, x, y))
        yield judge_curves(found, x[1:].tolist(), places={})


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_a_method_that_varies_from_task_to_task_is_told_apart_by_chance_in_one_store_of_twenty(tasks):
    stores, rate = 120, 0.05
    judged = stores_of_one_that_varies(tasks=tasks, stores=stores)
    wrong = sum(any(claim.decided for claim in found.pairs_over_tasks) for found in judged)
    assert wrong / stores <= rate + 3.1 * (rate * (1 - rate) / stores) ** 0.5
