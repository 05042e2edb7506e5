"""ThiNet and channel regression on networks: what they rebuild, and that redundancy costs nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from shrinkbench.models import build
from shrinkbench.pruning import prune
from shrinkbench.surgery.shrinking import shrink

SHAPE = (3, 12, 12)


def redundant(seed=0):
    """Every second channel of each hidden layer is the double of the one before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3),
            nn.ReLU(),
            nn.Conv2d(12, 6, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 5),
        ).eval()
    with torch.no_grad():
        for layer in (net[0], net[3]):
            layer.weight[1::2] = layer.weight[::2]
        net[3].bias[1::2] = net[3].bias[::2]
    return net


def images(count=3):
    generator = torch.Generator().manual_seed(5)
    labels = torch.zeros(8, dtype=torch.int64)
    return [(torch.randn(8, *SHAPE, generator=generator), labels) for _ in range(count)]


def relative_error(net, masks, batch):
    pruned = copy.deepcopy(net)
    masks.apply(pruned)
    with torch.no_grad():
        return float((net(batch) - pruned(batch)).norm() / net(batch).norm())


@pytest.mark.parametrize("method", ["thinet", "channel_regression"])
def test_duplicates_are_removed_without_loss(method):
    net = redundant()
    masks = prune(net, method, compression=1.95, batches=images(), one_shot=True)
    unseen = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(11))
    by_norm = prune(net, "channel_l1", compression=1.95, input_shape=SHAPE)  # keeps both of a strong pair
    assert relative_error(net, masks, unseen) < 0.5 * relative_error(net, by_norm, unseen)
    small = shrink(net, masks, SHAPE)
    assert (small[0].out_channels, small[3].out_channels) <= (5, 7)


def test_reconstruction_beats_the_norm_of_filters():
    net = build("lenet5-caffe").eval()
    batch = [(torch.randn(32, 1, 28, 28, generator=torch.Generator().manual_seed(1)), torch.zeros(32).long())]
    errors = {
        method: relative_error(
            net,
            prune(net, method, compression=1.5, batches=batch, input_shape=(1, 28, 28), one_shot=True),
            batch[0][0],
        )
        for method in ("channel_l1", "channel_regression")
    }
    assert errors["channel_regression"] < 0.8 * errors["channel_l1"]


def test_weights_that_stay_get_new_values_for_readers_alone():
    net = redundant()
    masks = prune(net, "thinet", compression=1.5, batches=images())
    assert set(masks.new_weights) <= {"3.weight", "5.weight"}
    assert all(torch.equal(v, v * masks[n]) for n, v in masks.new_weights.items())
