"""A target by wall time: met by what is cut out, or refused with the most that was measured."""

import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics.latency import Conditions
from shrinkbench.models import build
from shrinkbench.surgery.latency import prune_to_latency

SHAPE = (3, 32, 32)


@pytest.mark.slow
def test_the_largest_network_that_is_fast_enough_is_found():
    network = build("resnet20").eval()
    total = sum(p.numel() for p in network.parameters())

    def clock(masks):  # a machine whose time is what is kept
        return total / (total - masks.total + masks.kept)

    masks = prune_to_latency(network, "channel_l1", 1.5, input_shape=SHAPE, measure=clock)
    assert 1.5 <= clock(masks) < 1.5 * 1.03


@pytest.mark.slow
def test_wall_time_is_a_target():
    network = build("cifar-vgg").eval()
    masks = prune_to_latency(
        network, "channel_l1", 1.2, input_shape=SHAPE, conditions=Conditions(batch_size=4), round_to=64
    )
    assert masks.kept < masks.total


@pytest.mark.parametrize("speedup", [0.5, 1, float("nan"), float("inf")])
def test_a_speedup_is_a_number_above_one(speedup):
    with pytest.raises(ShrinkbenchError, match="not a finite number above 1"):
        prune_to_latency(build("resnet20"), "channel_l1", speedup, input_shape=SHAPE)


@pytest.mark.slow
def test_what_cannot_be_reached_names_the_most():
    network = build("resnet20").eval()
    with pytest.raises(ShrinkbenchError, match=r"the most that was measured is 1\.1;") as refused:
        prune_to_latency(network, "channel_l1", 50, input_shape=SHAPE, measure=lambda masks: 1.1)
    assert len(str(refused.value)) < 300
