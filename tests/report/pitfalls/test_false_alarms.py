"""Of equal methods no pitfall of order or spread is found in more than one store of twenty."""

import math

import pytest
from made_observations import make_observations
from sampling import sampled

from shrinkbench.report.pitfalls.noise import wide_seed_spread
from shrinkbench.report.pitfalls.orders import (
    initial_model_confounds,
    metrics_not_interchangeable,
    order_varies_with_amount,
    order_varies_with_task,
)
from shrinkbench.report.pitfalls.practice import low_controls

PITFALLS = {
    "amount": order_varies_with_amount,
    "metric": metrics_not_interchangeable,
    "task": order_varies_with_task,
    "weights": initial_model_confounds,
    "spread": wide_seed_spread,
    "control": low_controls,
}


def rates(stores, *, first=0, **null):
    """Share of stores that show each pitfall."""
    counts = dict.fromkeys(PITFALLS, 0)
    for store in range(first, first + stores):
        observations = make_observations(store, **null)
        for name, find in PITFALLS.items():
            counts[name] += any(True for _ in find(observations))
    return {name: count / stores for name, count in counts.items()}


def most(stores):
    """5 %, and two standard errors of a simulation of so many stores."""
    return 0.05 + 2 * math.sqrt(0.05 * 0.95 / stores)


def by_level(method, level):
    """Noise that grows with compression, up to 1.6 points."""
    return 0.004 * math.log2(max(level, 1.5)) * 0.8


def by_method(method, level):
    """One method is four times as noisy as the others."""
    return 0.016 if method == 0 else 0.004


def flat_at_first(task, method, level):
    """Twofold pruning costs nothing, so that half of all controls are below their methods."""
    return 0.01 * math.log2(level) if level <= 2 else 0.0


NULLS = {
    "a single seed": {"seeds": 1, "methods": 7, "tasks": 3},
    "two seeds": {"seeds": 2, "methods": 7},
    "three seeds, three tasks": {"seeds": 3, "methods": 7, "tasks": 3},
    "noise by level": {"seeds": 3, "noise": by_level},
    "noise by method": {"seeds": 3, "noise": by_method},
    "other speeds": {"seeds": 5, "tilt": 0.05},
    "two initial weights": {"seeds": 3, "weights": 2},
    "pruning least costs nothing, one seed": {"seeds": 1, "methods": 3, "tasks": 3, "lead": flat_at_first},
    "pruning least costs nothing, two seeds": {"seeds": 2, "methods": 3, "tasks": 3, "lead": flat_at_first},
    "just below the threshold": {"seeds": 3, "noise": 0.0199},
}


@pytest.mark.parametrize("name", sampled(list(NULLS), every=2))
def test_equal_methods_seldom_show_a_pitfall(name):
    found = rates(12, **NULLS[name])
    assert all(rate <= most(12) for rate in found.values()), found


def test_controls_that_are_low_by_chance_are_no_pitfall():
    stores = [
        make_observations(store, seeds=seeds, methods=3, tasks=3, lead=flat_at_first)
        for seeds in (1, 2)
        for store in range(30)
    ]
    assert sum(any(True for _ in low_controls(made)) for made in stores) <= most(60) * 60


def test_a_single_seed_never_shows_an_order():
    found = rates(8, seeds=1, methods=5, tasks=2, weights=2, noise=0.05, tilt=0.05)
    assert set(found.values()) == {0.0}


@pytest.mark.slow
@pytest.mark.parametrize("methods", [5, 7])
@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_equal_methods_seldom_show_a_pitfall_in_many_stores(seeds, tasks, methods):
    found = rates(200, first=1000, seeds=seeds, tasks=tasks, methods=methods)
    assert all(rate <= most(200) for rate in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("name", NULLS)
def test_the_same_of_unequal_noise_speeds_and_weights(name):
    found = rates(200, first=2000, **NULLS[name])
    assert all(rate <= most(200) for rate in found.values()), found


def crossing(task, method, level):
    """The first method is ahead up to 8 times, and behind beyond."""
    return 0.0 if method else (0.04 if level <= 8 else -0.04)


def turning(task, method, level):
    """The first method is ahead on one network, and behind on another."""
    return 0.0 if method else (0.03 if "net0" in task else -0.03)


def test_planted_orders_are_found_under_noise():
    stores = 15
    amount = [make_observations(store, methods=7, lead=crossing) for store in range(stores)]
    found = [list(order_varies_with_amount(o)) for o in amount]
    assert sum(len(p) == 1 and p[0].finding.startswith("method0") for p in found) >= 0.9 * stores
    tasks = [make_observations(store, tasks=2, lead=turning) for store in range(stores)]
    assert sum(any(True for _ in order_varies_with_task(o)) for o in tasks) >= 0.9 * stores


def test_a_cell_that_varies_is_found_and_what_all_cells_of_a_seed_share_is_not():
    def wild(method, level):
        return 0.15 if (method, level) == (1, 16.0) else 0.008

    found = [list(wide_seed_spread(make_observations(s, seeds=4, noise=wild))) for s in range(15)]
    assert sum(bool(p) and p[0].finding.startswith("method1 at 16×") for p in found) >= 13
    shared = [make_observations(s, seeds=5, seed_effect=0.2) for s in range(15)]
    assert not any(list(wide_seed_spread(o)) for o in shared)
