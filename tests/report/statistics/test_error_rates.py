"""Errors, coverage and power of the answers on made stores whose truth is known (benchmarks/error_rates.py)."""

import importlib.util
import math
import sys

import pytest
from places import ROOT


@pytest.fixture(scope="module")
def made():
    path = ROOT / "benchmarks" / "error_rates.py"
    spec = importlib.util.spec_from_file_location("error_rates", path)
    module = sys.modules["error_rates"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ANSWERS = ("headline", "level", "pair", "any")
NULL = [(tasks, seeds) for tasks in (1, 3) for seeds in (3, 5, 10)]


def most(stores, rate=0.05):
    """Errors beyond this share have a probability of about 0.1 % if the true one is ``rate``."""
    return rate + 3.1 * math.sqrt(rate * (1 - rate) / stores)


def covers(rates, question):
    return 0.93 <= rates[f"cover {question}"] <= 0.97


def test_a_small_sample(made):
    nobody = made.simulate(made.Design(), stores=40)
    assert all(nobody[answer] <= most(40) for answer in ANSWERS)
    assert nobody["cover range"] > 0.9
    assert nobody["cover level"] > 0.9
    leader = made.simulate(made.Design(lead=3), stores=20)
    assert leader["headline"] >= 0.6
    assert leader["cells"] >= 0.25
    tasks = made.simulate(made.Design(tasks=3, task_effect=0.01, cell=0.004), stores=20)
    assert tasks["headline"] <= most(20)
    assert tasks["pair"] <= most(20)
    assert tasks["cover tasks"] > 0.85


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "seeds"), NULL)
def test_equal_methods_are_told_apart_in_one_store_of_twenty_at_most(made, tasks, seeds):
    rates = made.simulate(made.Design(tasks=tasks, seeds=seeds), stores=400)
    for answer in ANSWERS:
        assert rates[answer] <= most(400), answer
    assert covers(rates, "range")
    assert covers(rates, "level")
    if tasks > 1:
        assert covers(rates, "tasks")


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "seeds"), [(t, s) for t in (3, 6) for s in (3, 5, 10)])
def test_seeds_are_not_counted_as_tasks(made, tasks, seeds):
    rates = made.simulate(made.Design(tasks=tasks, seeds=seeds, task_effect=0.01, cell=0.004), stores=400)
    assert rates["headline"] <= most(400)
    assert rates["pair"] <= most(400)
    assert covers(rates, "tasks")


@pytest.mark.slow
@pytest.mark.parametrize("noise", [{"by_level": 3.0}, {"by_method": 3.0}, {"collapse": 0.2}])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_unequal_noise_breaks_no_promise(made, noise, seeds):
    rates = made.simulate(made.Design(seeds=seeds, **noise), stores=400)
    for answer in ANSWERS:
        assert rates[answer] <= most(400), answer


@pytest.mark.slow
def test_a_lead_of_three_deviations_is_seen_with_three_seeds(made):
    """Of levels, which share half of the 5 %, some two in five: degrees of freedom follow unequal noise."""
    rates = made.simulate(made.Design(lead=3), stores=400)
    assert rates["headline"] >= 0.8
    assert rates["cells"] >= 0.35
