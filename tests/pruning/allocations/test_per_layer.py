"""Counts of the papers: what a stated ratio leaves of each layer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.network.dataflow import projections
from shrinkbench.pruning import PruneContext, prunable_names
from shrinkbench.pruning.allocations.per_layer import counts_per_layer, keep_of_all
from shrinkbench.pruning.methods.network_slimming import slimming_masks
from shrinkbench.pruning.units import STRUCTURES, Units


def layers(*widths, least=0):
    return {str(n): Units(torch.arange(float(n)), least=least) for n in widths}


def filters_of(name, shape):
    module = build(name)
    ctx = PruneContext(module, prunable_names(module, input_shape=shape), input_shape=shape)
    units = STRUCTURES.get("filters").group(ctx, {n: w.abs() for n, w in ctx.weights.items()}).units
    return units, projections(module, shape)


@pytest.mark.parametrize(
    ("percent", "kept"),
    [(10, (15, 29, 58)), (20, (13, 26, 52)), (30, (12, 23, 45)), (40, (10, 20, 39))],
)
def test_soft_filter_pruning_removes_the_floor_on_cifar(percent, kept):
    """He et al. 2018: int(n p) filters are zeroed in every convolution, the first among them."""
    assert tuple(counts_per_layer(layers(16, 32, 64), percent / 100, "remove-floor").values()) == kept
    units, shortcuts = filters_of("resnet20", (3, 32, 32))
    counts = counts_per_layer(units, percent / 100, "remove-floor", skip=shortcuts)
    assert tuple(counts[f"layer{stage}.1.conv2.weight"] for stage in (1, 2, 3)) == kept
    assert set(counts.values()) == set(kept)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("torchvision/resnet34", {64: 45, 128: 90, 256: 180, 512: 359}),
        ("torchvision/resnet50", {64: 45, 128: 90, 256: 180, 512: 359, 1024: 717, 2048: 1434}),
    ],
)
def test_soft_filter_pruning_leaves_the_projections_of_imagenet_networks_whole(name, kept):
    """He et al. 2018: 30 % of the filters of every convolution but the projections of shortcuts."""
    units, shortcuts = filters_of(name, (3, 64, 64))
    counts = counts_per_layer(units, 0.3, "remove-floor", skip=shortcuts)
    assert shortcuts
    for layer, count in counts.items():
        width = units[layer].scores.numel()
        assert count == (width if "downsample" in layer else kept[width]), layer


def test_nine_tenths_of_resnet_56_leave_the_floor():
    """Liu et al. 2019, Table 14: of the inner filters 1, 3 and 6 stay."""
    assert list(counts_per_layer(layers(16, 32, 64), 0.9, "keep-floor").values()) == [1, 3, 6]


@pytest.mark.parametrize(
    ("width", "fraction", "kept"),
    # Li et al. 2017, Table 1: ResNet-56-A, -B, ResNet-110-B and ResNet-34-A, -B.
    [
        *((16, 0.1, 14), (32, 0.1, 28), (64, 0.1, 57), (16, 0.6, 6), (32, 0.3, 22), (32, 0.4, 19)),
        *((64, 0.3, 44), (256, 0.3, 179), (64, 0.5, 32), (128, 0.6, 51), (256, 0.4, 153)),
    ],
)
def test_l1_norms_keep_the_floor(width, fraction, kept):
    assert counts_per_layer(layers(width), fraction, "keep-floor") == {str(width): kept}


@given(st.integers(1, 5000), st.integers(0, 99))
def test_whole_percents_lose_nothing_to_binary_arithmetic(width, percent):
    """In integers: 1 - 0.3 is 0.7, and 10 x 0.7 is 7."""
    for fraction in (percent / 100, 1 - (100 - percent) / 100):
        removed = counts_per_layer(layers(width), fraction, "remove-floor")[str(width)]
        kept = counts_per_layer(layers(width), fraction, "keep-floor")[str(width)]
        nearest = counts_per_layer(layers(width), fraction, "nearest")[str(width)]
        assert removed == width - width * percent // 100
        assert kept == max(1, width * (100 - percent) // 100)
        assert nearest == max(1, (2 * width * (100 - percent) + 100) // 200)


def test_what_has_to_stay_stays():
    assert counts_per_layer(layers(4, least=3), 0.9, "keep-floor") == {"4": 3}
    assert counts_per_layer(layers(4, 8), 0.5, "keep-floor", skip=("8", "absent")) == {"4": 2, "8": 8}


@pytest.mark.parametrize("fraction", [1.0, -0.1])
def test_a_fraction_of_nothing_or_all_is_told(fraction):
    with pytest.raises(ShrinkbenchError, match="at least 0 and below 1"):
        counts_per_layer(layers(4), fraction, "nearest")
    with pytest.raises(ShrinkbenchError, match="at least 0 and below 1"):
        keep_of_all(layers(4), fraction)


def test_of_all_units_the_lowest_go_and_one_stays_in_each_layer():
    units = {"low": Units(torch.tensor([0.1, 0.3, 0.2])), "high": Units(torch.tensor([5.0, 4.0, 6.0, 7.0]))}
    keep = keep_of_all(units, 0.6)  # 4 of 7 go
    assert keep["low"].tolist() == [False, True, False]
    assert keep["high"].tolist() == [False, False, True, True]
    with pytest.raises(ShrinkbenchError, match=r"2 have to stay in their layers; name at most 0\.7142"):
        keep_of_all(units, 0.9)


def test_slimming_removes_the_fraction_of_all_channels_with_the_smallest_scales():
    module = build("preresnet56")
    generator = torch.Generator().manual_seed(0)
    scales = {}
    for path, layer in module.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data.copy_(torch.rand(layer.weight.shape, generator=generator))
            scales[f"{path}.weight"] = layer.weight.detach()
    masks = slimming_masks(module, (3, 32, 32), 0.7)
    ranked = torch.cat(list(scales.values())).sort(descending=True).values
    threshold = ranked[len(ranked) - len(ranked) * 7 // 10 - 1]
    assert min(float(scale.max()) for scale in scales.values()) > threshold  # no layer needs its last one
    for name, scale in scales.items():
        assert torch.equal(masks[name], scale >= threshold), name
