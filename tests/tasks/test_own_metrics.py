"""A metric of one's own that gives no number, or one beyond its bounds, is refused in a sentence."""

import math
import re

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

import shrinkbench
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.runner.execution import sentence_of
from shrinkbench.spec import MetricSpec
from shrinkbench.spec.measures import Quality
from shrinkbench.spec.value import of_own_parts
from shrinkbench.tasks import Metric, Supervised
from shrinkbench.training.recipe import RECIPES

BATCH = (torch.randn(4, 3), torch.randn(4, 1))


@pytest.mark.parametrize(
    ("value", "bounds", "told"),
    [
        (float("nan"), {}, "error = nan is not a finite number"),
        (float("inf"), {}, "error = inf is not a finite number"),
        (-1.0, {"lower": 0}, "error = -1 is below 0"),
        (2.0, {"upper": 1}, "error = 2 is above 1"),
    ],
)
def test_a_metric_that_is_none_is_refused(value, bounds, told):
    metric = Metric(lambda outputs, targets: torch.full((len(targets),), value), "lower", **bounds)
    with pytest.raises(ShrinkbenchError, match=told) as refused:
        shrinkbench.evaluate(nn.Linear(3, 1), [BATCH], task=Supervised(F.mse_loss, {"error": metric}))
    assert len(str(refused.value)) < 300


def distances(outputs, targets):
    return (outputs - targets).abs().flatten()


NO_METRICS = {
    "a value of type float": lambda outputs, targets: 1.0,
    "a value of type NoneType": lambda outputs, targets: None,
    "a value of type str": lambda outputs, targets: "abc",
    "a value of type list": lambda outputs, targets: [0.0] * len(targets),
    "a value of type ndarray": lambda outputs, targets: distances(outputs, targets).detach().numpy(),
    "complex values of shape \\(4,\\)": lambda outputs, targets: torch.complex(
        *[distances(outputs, targets)] * 2
    ),
    "values of shape \\(4, 1\\)": lambda outputs, targets: outputs - targets,
}


@pytest.mark.parametrize("found", NO_METRICS)
def test_what_a_metric_gives_in_place_of_values_is_told_with_its_name(found):
    task = Supervised(F.mse_loss, {"error": Metric(NO_METRICS[found], "lower")})
    with pytest.raises(ShrinkbenchError, match=f"metric 'error' gives {found} for 4 examples"):
        shrinkbench.evaluate(nn.Linear(3, 1), [BATCH], task=task)


@pytest.mark.parametrize("found", NO_METRICS)
def test_what_a_criterion_gives_in_place_of_a_mean_is_told(found):
    task = Supervised(NO_METRICS[found], {"error": Metric(distances, "lower")}, name="mine")
    with pytest.raises(ShrinkbenchError, match=f"the criterion of task 'mine' gives {found}; return the mean"):
        shrinkbench.evaluate(nn.Linear(3, 1), [BATCH], task=task)
    with pytest.raises(ShrinkbenchError, match=f"the criterion of task 'mine' gives {found}; return the mean"):
        task.loss(nn.Linear(3, 1), BATCH, RECIPES.get("digits-finetune"))


def test_a_metric_beyond_float32_is_told_in_plain_words():
    def huge(outputs, targets):
        return distances(outputs, targets).double() * 0 + 1e300

    with pytest.raises(ShrinkbenchError, match=r"error = 1e\+300 is beyond float32"):
        shrinkbench.evaluate(
            nn.Linear(3, 1), [BATCH], task=Supervised(F.mse_loss, {"error": Metric(huge, "lower")})
        )


def test_a_stored_cause_has_no_web_address():
    with pytest.raises(ValidationError) as error:
        Quality(metrics={"error": 1e300}, examples=4)
    told = sentence_of(error.value)
    assert told.startswith("a value of Quality cannot be: metrics.error = 1e+300: input should be less than")
    assert "http" not in told


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"m": Metric(distances, "sideways")}, "task 'mine', metric 'm': direction = 'sideways': input should"),
        (
            {"m": Metric(distances, "lower", lower=math.nan)},
            "metric 'm': lower = nan: input should be a",
        ),
        ({"m": Metric(distances, "lower", lower=5, upper=1)}, "metric 'm': the lower bound 5 is above the up"),
        ({"m": Metric(distances, "lower", unit=3)}, "metric 'm': unit = 3: input should be a valid string"),
        ({"m": distances}, "metric 'm' is a function; give Metric"),
        ({"m" * 5000: Metric(distances, "lower")}, "a metric is called 'mmm"),
        ({"m\x1b[31m": Metric(distances, "lower")}, r"a metric is called 'm\x1b[31m'"),
        ({"=m": Metric(distances, "lower")}, "a metric is called '=m'"),
        ({"a\n": Metric(distances, "lower")}, "a metric is called 'a'"),
        ({3: Metric(distances, "lower")}, "a metric is called '3'"),
    ],
)
def test_a_metric_that_no_plan_can_hold_is_refused_with_its_name(metrics, told):
    with pytest.raises(ShrinkbenchError, match=re.escape(told)):
        _ = Supervised(F.mse_loss, metrics, name="mine").objective


def test_infinite_bounds_are_none():
    free = Supervised(F.mse_loss, {"m": Metric(distances, "lower", lower=-math.inf, upper=math.inf)})
    assert free.objective == Supervised(F.mse_loss, {"m": Metric(distances, "lower")}).objective


def test_an_objective_of_somebodys_class_is_refused_in_a_sentence():
    with (
        pytest.raises(ShrinkbenchError, match="here: MetricSpec: direction = 'sideways': input should be"),
        of_own_parts("here"),
    ):
        MetricSpec(name="m", direction="sideways", unit="")


@pytest.mark.parametrize("inner", [Tensor.detach, lambda outputs: outputs.argmax(1, keepdim=True).float()])
def test_a_loss_that_no_weight_moves_is_told(inner):
    task = Supervised(
        lambda y, t: F.mse_loss(inner(y), t), {"error": Metric(lambda y, t: (y - t).abs().sum(1), "lower")}
    )
    module = nn.Linear(3, 1)
    with pytest.raises(ShrinkbenchError, match="does not depend on the network's outputs"):
        task.loss(module, BATCH, RECIPES.get("digits-train"))
    with torch.no_grad():
        assert task.loss(module, BATCH, RECIPES.get("digits-train"))[0] >= 0
