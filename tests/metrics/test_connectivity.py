"""The line between two networks: by hand, and what it refuses."""

import numpy
import pytest
import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import linear_connectivity


def one(weight, statistics=0.0):
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    net[0].weight.data.fill_(weight)
    net[1].running_mean.fill_(statistics)
    return net


def test_errors_and_barrier_by_hand():
    seen = []

    def error(net):
        seen.append((net[0].weight.item(), net[1].running_mean.item()))
        return {0: 0.1, 1: 0.4, 2: 0.7, 3: 0.5, 4: 0.3}[len(seen) - 1]

    first, second = one(-2.0, 1.0), one(2.0, 3.0)
    found = linear_connectivity(first, second, error, points=5)
    assert seen == [(-2.0, 1.0), (-1.0, 1.5), (0.0, 2.0), (1.0, 2.5), (2.0, 3.0)]
    assert found.places == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert found.barrier == pytest.approx(0.7 - (0.1 + 0.3) / 2)
    assert first[0].weight.item() == -2.0
    assert second[0].weight.item() == 2.0


def test_a_network_is_connected_to_itself():
    net = one(1.0)
    assert linear_connectivity(net, net, lambda n: float(n[0].weight.abs())).barrier == 0


def test_other_architectures_are_refused():
    with pytest.raises(ShrinkbenchError, match="'weight' differs"):
        linear_connectivity(nn.Linear(2, 2), nn.Linear(3, 2), lambda n: 0.0)
    with pytest.raises(ShrinkbenchError, match="are not of one architecture"):
        linear_connectivity(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), lambda n: 0.0)
    with pytest.raises(ShrinkbenchError, match="at least 3"):
        linear_connectivity(one(1.0), one(2.0), lambda n: 0.0, points=2)


def test_errors_that_are_no_numbers_are_refused():
    with pytest.raises(ShrinkbenchError, match="not all finite"):
        linear_connectivity(one(1.0), one(2.0), lambda n: float("nan"))


def test_whole_numbers_stay():
    net = one(1.0)
    net[1].num_batches_tracked += 7
    found = []
    linear_connectivity(net, one(3.0), lambda n: found.append(n[1].num_batches_tracked.item()) or 0.0, points=3)
    assert found == [7, 7, 7]
    assert net[1].num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize("points", [3.5, 3.0, True, False, float("nan"), "5", None, [3]])
def test_points_are_a_whole_number(points):
    with pytest.raises(ShrinkbenchError, match="is no whole number; give how many networks") as raised:
        linear_connectivity(one(1.0), one(2.0), lambda n: 0.0, points=points)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("points", [0, 1, -3])
def test_a_line_without_inner_points_is_refused(points):
    with pytest.raises(ShrinkbenchError, match=f"^{points} points have none between"):
        linear_connectivity(one(1.0), one(2.0), lambda n: 0.0, points=points)


def test_whole_numbers_of_other_libraries_are_taken():
    found = linear_connectivity(one(1.0), one(2.0), lambda n: torch.tensor(0.5), points=numpy.int64(3))
    assert found.errors == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("value", [None, "x", torch.ones(2)])
def test_an_error_that_is_no_number_is_refused(value):
    with pytest.raises(ShrinkbenchError, match="which is no number; let it return one"):
        linear_connectivity(one(1.0), one(2.0), lambda n: value)


def test_what_is_no_network_is_refused():
    with pytest.raises(ShrinkbenchError, match="5 is no network"):
        linear_connectivity(one(1.0), 5, lambda n: 0.0)
