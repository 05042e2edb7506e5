"""What the page stores of single runs: every value once, and curves that come back to four digits."""

import json
import math
import random

import pytest
from made_results import make_result, make_results, make_spec

from shrinkbench.report.page.origin import duration
from shrinkbench.report.page.runs import POINTS, code, describe_runs, thin
from shrinkbench.results.record import EpochRecord


def decode(coded):
    values, total = [], 0
    for step in coded[1:]:
        total += step
        values.append(total / 10 ** coded[0])
    return values


@pytest.mark.parametrize("scale", [1e-5, 0.3, 1.0, 17.0, 2e9])
def test_curves_come_back_to_four_digits(scale):
    rng = random.Random(0)
    values = [scale * rng.uniform(-1, 1) for _ in range(50)]
    largest = max(map(abs, values))
    assert decode(code(values)) == pytest.approx(values, abs=1e-3 * largest)
    assert decode(code([0.0, 0.0])) == [0, 0]
    assert code([0.1, None]) is None


def records(count):
    return [
        EpochRecord(epoch=e, learning_rate=0.1, train_loss=1 / e, validation={"top1": 0.5})
        for e in range(1, count + 1)
    ]


def test_a_long_curve_keeps_its_ends_and_the_measured_epoch():
    kept = [e.epoch for e in thin(records(160), POINTS, 97)]
    assert len(kept) <= POINTS + 1
    assert {1, 97, 160} <= set(kept)
    assert kept == sorted(set(kept))
    assert [e.epoch for e in thin(records(12), POINTS, 3)] == list(range(1, 13))


def test_every_run_points_to_its_own_control_and_settings():
    results = make_results(pairs=[("cifar10", "resnet20")], methods=["random", "global_magnitude"])
    told = describe_runs(results)
    ledger = told["ledger"]
    by_key = {r.key[:12]: r for r in results}
    for row, key in enumerate(ledger["key"]):
        run = by_key[key]
        control = ledger["control"][row]
        if run.spec.is_control:
            assert control is None
        else:
            found = by_key[ledger["key"][control]]
            assert found.spec.is_control
            assert found.spec.seed == run.spec.seed
        settings = {}
        for part in told["settings"]["sets"][ledger["settings"][row]]:
            settings |= told["settings"]["parts"][part]
        assert settings["method.base"] == run.spec.method.base
        assert float(settings["amount.ratio"]) == run.spec.target
        assert settings["recipe.learning_rate"] == json.dumps(run.spec.recipe.learning_rate)
        assert settings["machine.device"] == "cpu"


def test_settings_and_curves_that_runs_share_are_stored_once():
    few, many = (
        describe_runs(make_results(pairs=[("cifar10", "resnet20")], methods=["random"], seeds=range(n)))
        for n in (1, 8)
    )
    assert many["settings"] == few["settings"]
    assert len(many["ledger"]["key"]) == 8 * len(few["ledger"]["key"])
    coded = [tuple(curve) for curve in many["training"]["curves"]]
    assert len(coded) == len(set(coded))


def test_runs_without_epochs_or_results_have_no_curve():
    failed = make_result(make_spec(), failed="no memory")
    told = describe_runs([failed])
    assert told["training"]["runs"] == [None]
    assert told["ledger"]["control"] == [None]
    assert told["ledger"]["metrics"]["top1"] == [None]


@pytest.mark.slow
def test_thousands_of_runs_are_thinned_further():
    results = make_results(pairs=[("cifar10", "resnet20")], methods=["random"], seeds=range(2))
    one = results[0].model_copy(update={"epochs": tuple(records(200))})
    assert describe_runs([one])["training"]["points"] == POINTS
    assert describe_runs([one])["training"]["longest"] == 200
    crowd = describe_runs([one] * 20_000)["training"]
    assert crowd["points"] < POINTS
    assert len(crowd["runs"][0]) == 4


def test_a_time_has_the_unit_that_suits_it():
    assert duration(0) == "0.0 seconds"
    assert duration(7 * 60) == "7.0 minutes"
    for seconds in (1, 59, 61, 3599, 3601, 1e5, 1e7):
        number, unit = duration(seconds).split()
        size = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400}[unit]
        assert float(number) * size == pytest.approx(seconds, rel=0.06)
        assert math.isfinite(float(number))
