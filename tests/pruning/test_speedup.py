"""Pruning to a speedup: met, by the largest network that meets it, or refused with the largest."""

import pytest
import torch

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import measure_size
from shrinkbench.metrics.latency import Conditions, Timing
from shrinkbench.models import build
from shrinkbench.pruning import prune
from shrinkbench.pruning.speedup import prune_to_speedup
from shrinkbench.surgery.latency import measure_cut

SHAPE = (3, 32, 32)


@pytest.mark.parametrize("method", ["channel_l1", "global_magnitude", "random"])
def test_the_speedup_is_met_and_one_parameter_more_misses_it(method):
    network = build("resnet20").eval()
    masks = prune_to_speedup(network, method, 2.5, input_shape=SHAPE)
    size = measure_size(network, SHAPE, masks)
    assert size.theoretical_speedup >= 2.5
    more = prune(
        network,
        method,
        compression=size.parameters / (size.parameters_kept + 1.5 * _unit(method)),
        input_shape=SHAPE,
    )
    assert measure_size(network, SHAPE, more).theoretical_speedup < 2.5


def _unit(method):
    """Parameters of the largest unit: the channels of the last stage of ResNet-20."""
    return 64 * 9 * 8 if method == "channel_l1" else 1


def test_what_cannot_be_reached_names_the_most():
    network = build("resnet20").eval()
    with pytest.raises(ShrinkbenchError, match="times as fast: the most that was reached is") as refused:
        prune_to_speedup(network, "channel_l1", 10_000, input_shape=SHAPE)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("speedup", [0.5, float("nan"), "2"])
def test_a_speedup_is_a_number(speedup):
    with pytest.raises(ShrinkbenchError, match="not a finite number of at least 1"):
        prune_to_speedup(build("resnet20"), "channel_l1", speedup, input_shape=SHAPE)


def test_any_measure_is_met():
    network = build("resnet20").eval()
    masks = prune_to_speedup(network, "channel_l1", 1.5, input_shape=SHAPE, measure=lambda m: m.total / m.kept)
    assert masks.total / masks.kept >= 1.5


def test_wall_time_is_a_measure():
    network = build("cifar-vgg").eval()
    measure = measure_cut(network, SHAPE, Conditions(batch_size=4), rounds=3, seconds_per_round=0.02)
    masks = prune(network, "channel_l1", compression=8, round_to=8, input_shape=SHAPE)
    assert measure(masks) > 1.2


def test_quartiles_of_rounds():
    timing = Timing.of([1.0, 1.0, 1.0, 2.0])
    assert (timing.seconds, timing.low, timing.high) == (1.0, 1.0, 1.25)
    assert timing.spread == 0.25
    assert Timing.of([3.0]).spread == 0


def test_all_networks_are_timed_in_the_format_of_the_first():
    from shrinkbench.metrics.latency import time_forward

    formats = {}
    networks = {
        "last": torch.nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last),
        "other": torch.nn.Conv2d(4, 8, 3),
    }
    for name, network in networks.items():
        network.register_forward_hook(
            lambda m, i, _o, name=name: formats.update(
                {name: [t.is_contiguous(memory_format=torch.channels_last) for t in (i[0], m.weight)]}
            )
        )
    time_forward(networks, (4, 8, 8), Conditions(), rounds=1, seconds_per_round=0.001)
    assert formats == {"last": [True, True], "other": [True, True]}
