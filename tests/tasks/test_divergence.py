"""A network that has diverged is told in a sentence; its loss is never a number that cannot be stored."""

import pytest
import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.runner.outcomes import classify
from shrinkbench.tasks import Classification


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_a_failure_of_the_run(value):
    module = nn.Linear(2, 3)
    with torch.no_grad():
        module.weight.fill_(value)
    with pytest.raises(ShrinkbenchError, match="the network has diverged: its mean loss over 4 images") as told:
        Classification().evaluate(module, [(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64))])
    assert classify(told.value) == "scientific"
