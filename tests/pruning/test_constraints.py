"""Targets by multiply-adds, and bounds on every layer: met by every method, or refused with the reason."""

from __future__ import annotations

import warnings

import pytest
import torch
from sample_networks import ConvNet, seeded
from sampling import sampled
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, LeftWholeWarning, ShrinkbenchError
from shrinkbench.metrics import measure_size
from shrinkbench.models import build
from shrinkbench.network.coupling import couple
from shrinkbench.pruning import METHODS, Pruner, prune, training_hook
from shrinkbench.pruning.structures.channel_masks import units_without_filters
from shrinkbench.spec import Constraints
from shrinkbench.surgery.shrinking import shrink

SHAPE = (3, 16, 16)
STRUCTURED = sorted(
    name
    for name, method in METHODS.items()
    if method.structure.name == "channels"
    and method.amount is None
    and method.schedule.during is None
    and "allocation" not in method.decides
)


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, *SHAPE, generator=generator), torch.arange(4))]


def widths(module, masks):
    """Units of each group, and how many of them the masks leave."""
    coupling = couple(module, SHAPE)
    return {g.layer: (g.units, g.units - int(units_without_filters(g, masks).sum())) for g in coupling.free}


@pytest.fixture(scope="module")
def network():
    return build("resnet20")


def pruned(network, method, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prune(network, method, batches=batches(), input_shape=SHAPE, one_shot=True, **settings)


@pytest.mark.parametrize("method", sampled(STRUCTURED, every=2))
def test_every_method_keeps_multiples_and_meets_its_target(network, method):
    masks = pruned(network, method, compression=2, round_to=8, max_ratio=0.75, ignore=["layer2.1.conv1"])
    found = widths(network, masks)
    assert measure_size(network, SHAPE, masks).compression >= 2
    assert all(kept % 8 == 0 and kept >= max(8, units / 4) for units, kept in found.values())
    assert found["layer2.1.conv1"][0] == found["layer2.1.conv1"][1]


@pytest.mark.parametrize(
    "method", sampled(["channel_l1", "global_channel_l1", "global_magnitude", "global_filter_l1"], every=2)
)
def test_a_speedup_is_met_up_to_one_unit(network, method):
    masks = pruned(network, method, speedup=2)
    reached = measure_size(network, SHAPE, masks).theoretical_speedup
    assert 2 <= reached < (2.001 if method == "global_magnitude" else 2.1)


def test_what_is_counted_is_what_the_small_network_does(network):
    masks = pruned(network, "channel_l1", speedup=3, round_to=8)
    counted = measure_size(network, SHAPE, masks)
    small = measure_size(shrink(network, masks, SHAPE), SHAPE, {})
    assert counted.multiply_adds_kept == small.multiply_adds
    assert counted.theoretical_speedup >= 3


def test_a_target_out_of_reach_names_one_that_is_met(network):
    for how in ("speedup", "compression"):
        with pytest.raises(CannotMeetTargetError, match="largest possible target is") as error:
            pruned(network, "channel_l1", **{how: 100}, round_to=8, max_ratio=0.5)
        largest = error.value.largest
        size = measure_size(
            network, SHAPE, pruned(network, "channel_l1", **{how: largest}, round_to=8, max_ratio=0.5)
        )
        assert (size.theoretical_speedup if how == "speedup" else size.compression) >= largest


def test_single_weights_have_a_largest_ratio_and_layers_left_whole():
    module = seeded(ConvNet)
    whole = next(name for name in prune(module, "global_magnitude", compression=2, input_shape=(3, 8, 8)))
    masks = prune(
        module,
        "global_magnitude",
        compression=1.3,
        max_ratio=0.6,
        ignore=[whole.removesuffix(".weight")],
        input_shape=(3, 8, 8),
    )
    assert whole not in masks
    assert all(mask.float().mean() >= 0.4 for mask in masks.values())


def test_half_of_all_channels_goes_in_steps(network):
    found = widths(network, pruned(network, "global_channel_l1", channels=0.5, round_to=8)).values()
    total, kept = (sum(column) for column in zip(*found, strict=True))
    assert total / 2 - 8 < kept <= total / 2


@pytest.mark.parametrize(
    ("method", "settings", "sentence"),
    [
        ("global_magnitude", {"round_to": 8}, "counts channels"),
        ("thinet", {"round_to": 8}, "decides itself how much of every layer stays"),
        ("wanda", {"max_ratio": 0.5}, "decides itself how much of every layer stays"),
        ("branch_l1", {"max_ratio": 0.5}, "leaves no choice of one"),
        ("channel_l1", {"ignore": ["nowhere"]}, "matches no layer"),
        ("channel_l1", {"ignore": ["*"]}, "leaves nothing to prune"),
        ("channel_l1", {"max_ratio": 1.5}, "max_ratio"),
        ("channel_l1", {"round_to": 0}, "round_to"),
    ],
)
def test_what_cannot_be_kept_to_is_refused(network, method, settings, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence) as error:
        pruned(network, method, compression=2, **settings)
    assert len(str(error.value)) < 300


def test_contradictions_and_speedups_without_a_say_are_refused(network):
    with pytest.raises(ShrinkbenchError, match="more than max_ratio"):
        pruned(network, "channel_l1", fraction_per_layer=0.5, max_ratio=0.3)
    for method in ("thinet", "synflow", "li2017:resnet56-a"):
        with pytest.raises(ShrinkbenchError, match=r"decides itself|in several steps|has no say"):
            prune(network, method, speedup=2, input_shape=SHAPE)
    assert Constraints() == Constraints(round_to=None, ignore=(), max_ratio=None)


def test_layers_around_batch_norms_stay_whole_where_they_are_ignored():
    module = build("digits-cnn", seed=0)
    with torch.no_grad():
        module.features[4].weight.mul_(0.01)  # behind features.3: its channels would be the first to go
    masks = prune(
        module, "slimming_without_penalty", channels=0.5, ignore=["features.3"], input_shape=(1, 8, 8)
    )
    filters = masks["features.3.weight"].flatten(1).any(1)  # its inputs may leave with the filters before it
    assert bool(filters.all())
    assert masks.kept < masks.total
    everything = {"ignore": ["features"], "prune_classifier": True}
    with pytest.raises(ShrinkbenchError, match="no layer around a batch norm"):
        prune(module, "slimming_without_penalty", channels=0.5, input_shape=(1, 8, 8), **everything)


@pytest.mark.parametrize("groups", [4, 24])
@pytest.mark.parametrize("method", ["channel_l1", "group_norm"])
def test_filters_of_a_grouped_convolution_stay_where_it_is_ignored(groups, method):
    conv = {"kernel_size": 3, "padding": 1}
    module = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 24, **conv), nn.ReLU(), nn.Conv2d(24, 48, **conv, groups=groups), nn.ReLU(),
            nn.Conv2d(48, 12, **conv), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
        )
    )  # fmt: skip
    with pytest.warns(LeftWholeWarning, match=r"channels of '0'.*grouped convolution '2'"):
        masks = prune(module, method, compression=1.5, ignore=["2"], input_shape=SHAPE)
    assert "2.weight" not in masks or bool(masks["2.weight"].all())
    assert not bool(masks["4.weight"].flatten(1).any(1).all())  # others pay
    assert measure_size(module, SHAPE, masks).compression >= 1.5


def test_a_depthwise_convolution_between_batch_norms_stays_where_it_is_ignored():
    module = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=12), nn.ReLU(),
            nn.Conv2d(12, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        )
    )  # fmt: skip
    masks = pruned(module, "slimming_without_penalty", channels=0.4, ignore=["3"])
    assert "3.weight" not in masks or bool(masks["3.weight"].all())
    assert masks.kept < masks.total


def test_your_own_loop_keeps_to_bounds_and_reaches_a_speedup():
    module = seeded(ConvNet)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    pruner = Pruner(
        module,
        "filter_l1",
        speedup=1.5,
        ignore=["depth*"],
        max_ratio=0.75,
        input_shape=(3, 8, 8),
        total_steps=2,
    )
    pruner.attach(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        module(torch.ones(2, 3, 8, 8)).sum().backward()
        optimizer.step()
    masks = pruner.finish()
    assert measure_size(module, (3, 8, 8), masks).theoretical_speedup >= 1.5
    assert all(mask.float().mean() >= 0.25 for mask in masks.values())
    for name in masks:
        assert not name.startswith("depthwise")


def test_a_hook_keeps_to_bounds():
    module = seeded(ConvNet)
    hook = training_hook(
        module,
        "rigl",
        compression=1.5,
        max_ratio=0.6,
        epochs=1,
        steps_per_epoch=4,
        seed=0,
        input_shape=(3, 8, 8),
    )
    assert all(mask.float().mean() >= 0.4 for mask in hook.masks.values())
