"""A metric of one's own that gives no number, or one beyond its bounds, is refused in a sentence."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import shrinkbench
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.tasks import Metric, Supervised

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
