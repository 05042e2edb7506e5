"""Bounds on what leaves a layer: held by every one, the target met by the others or refused."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.metrics import measure_size
from shrinkbench.models import build
from shrinkbench.network.coupling import couple
from shrinkbench.pruning import prune
from shrinkbench.pruning.bounds import Bounds
from shrinkbench.surgery.shrinking import shrink

SHAPE = (3, 16, 16)


def plain(widths=(16, 24, 32)):
    torch.manual_seed(0)
    layers, inputs = [], 3
    for width in widths:
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10)).eval()


def widths_of(network):
    return [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]


def alive(masks, layer):
    return int(masks[f"{layer}.weight"].flatten(1).any(1).sum())


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.sampled_from([1, 2, 3, 8]),
    st.sampled_from([1.0, 0.75, 0.4]),
    st.sampled_from(["channel_l1", "channel_l1[allocation=layerwise]", "filter_l1"]),
    st.floats(1, 6),
)
def test_every_layer_keeps_to_its_bounds_and_the_target_is_met(
    widths, round_to, max_ratio, method, compression
):
    network = plain(widths)
    bounds = {"round_to": round_to, "max_ratio": max_ratio, "input_shape": SHAPE}
    try:
        masks = prune(network, method, compression=compression, **bounds)
    except CannotMeetTargetError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.largest < compression
        prune(network, method, compression=refused.largest, **bounds)  # what it names can be met
        return
    size = measure_size(network, SHAPE, masks)
    assert size.parameters_kept <= round(size.parameters / compression) + (round_to == 1)
    for layer, width in zip((0, 3, 6, 9), widths, strict=False):
        kept = alive(masks, layer)
        assert kept == width or kept % round_to == 0
        assert kept >= Bounds(round_to=round_to, max_ratio=max_ratio).least(width, 1)


def test_one_more_multiple_would_miss_the_target():
    network = plain((64, 64, 64))
    masks = prune(network, "channel_l1", compression=3, round_to=8, input_shape=SHAPE)
    size = measure_size(network, SHAPE, masks)
    step = 8 * (64 * 9 + 64 * 9 + 4)  # the most that eight channels between two layers hold
    assert size.parameters / 3 - step < size.parameters_kept <= size.parameters / 3


@pytest.mark.parametrize("name", ["resnet20", "cifar-vgg"])
def test_what_is_cut_has_multiples_of_eight(name):
    network = build(name).eval()
    shape = (3, 32, 32)
    small = shrink(network, prune(network, "channel_l1", compression=3, round_to=8, input_shape=shape), shape)
    assert widths_of(small) != widths_of(network)
    assert all(width % 8 == 0 for width in widths_of(small))


def test_ignored_layers_stay_whole_with_all_that_share_their_channels():
    network = build("resnet20").eval()
    shape = (3, 32, 32)
    stream = couple(network, shape).group_of("conv1")
    masks = prune(network, "channel_l1", compression=1.2, ignore=["conv1", "layer3.0.conv1"], input_shape=shape)
    for layer in (*stream.layers("produces"), "layer3.0.conv1"):
        assert alive(masks, layer) == masks[f"{layer}.weight"].shape[0]
    assert alive(masks, "layer3.1.conv1") < 64
    assert measure_size(network, shape, masks).compression >= 1.2


def test_ignored_weights_stay_whole_in_unstructured_methods():
    network = plain()
    masks = prune(network, "global_magnitude", compression=2, ignore=["3"], input_shape=SHAPE)
    assert bool(masks["3.weight"].all())
    assert measure_size(network, SHAPE, masks).compression == pytest.approx(2, rel=1e-3)


def test_rounds_keep_to_the_bounds_too():
    network = plain((32, 32))
    batches = [(torch.randn(4, *SHAPE), torch.zeros(4, dtype=torch.long))]
    masks = prune(
        network, "synflow", compression=3, max_ratio=0.8, ignore=["0"], batches=batches, input_shape=SHAPE
    )
    assert bool(masks["0.weight"].all())
    assert float(masks["3.weight"].float().mean()) >= 0.2 - 1e-6


@pytest.mark.parametrize(
    ("method", "bounds", "reason"),
    [
        ("global_magnitude", {"round_to": 8}, "rounds channels"),
        ("channel_l1", {"ignore": ["nothing.like.it"]}, "no layer of the network is called"),
        ("channel_l1", {"max_ratio": 0.0}, "not a fraction"),
        ("channel_l1", {"round_to": 0}, "not a whole number"),
        ("channel_l1", {"ignore": ["*"]}, "largest"),
    ],
)
def test_bounds_that_cannot_hold_are_refused(method, bounds, reason):
    with pytest.raises(ShrinkbenchError, match=reason) as refused:
        prune(plain(), method, compression=2, input_shape=SHAPE, **bounds)
    assert len(str(refused.value)) < 300


def test_without_bounds_nothing_changes():
    network = plain()
    same = prune(copy.deepcopy(network), "channel_l1", compression=2, round_to=1, input_shape=SHAPE)
    masks = prune(network, "channel_l1", compression=2, input_shape=SHAPE)
    assert all(torch.equal(mask, same[name]) for name, mask in masks.items())
