"""Patterns per stage, and networks guided by them."""

from __future__ import annotations

import pytest
import torch

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import count_multiply_adds, count_parameters
from shrinkbench.metrics.patterns import (
    LayerWidth,
    kernel_pattern,
    layer_widths,
    mean_pattern,
    stage_pattern,
    weight_distribution,
)
from shrinkbench.models import build
from shrinkbench.network.coupling import couple
from shrinkbench.network.stages import stages_of
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.methods.guided import guided_counts, guided_sparsity, uniform_sparsity
from shrinkbench.pruning.methods.network_slimming import slimming_masks
from shrinkbench.pruning.methods.published_widths import keep_counts, uniform_counts
from shrinkbench.surgery.shrinking import shrink

SHAPE = (3, 32, 32)
# Liu et al. 2019, Table 21, 60 %: kept share of channels by stage of VGG-16 on CIFAR-10.
TABLE_21 = {1: 0.836, 2: 1.0, 3: 0.947, 4: 0.258, 5: 0.132}
# Table 7, 60 %: mean kept channels by layer of the same networks.
TABLE_7 = (39.0, 64, 127.8, 128, 255, 250.5, 226, 217.3, 120, 63, 47.8, 62, 88.8)
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
STAGES = (1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5)


def test_stages_are_layers_of_one_map_size():
    stages = stages_of(build("cifar-vgg16"), SHAPE)
    convolutions = [
        s for n, s in stages.items() if build("cifar-vgg16").get_submodule(n).__class__.__name__ == "Conv2d"
    ]
    assert convolutions == list(STAGES)
    assert set(stages_of(build("preresnet56"), SHAPE).values()) == {1, 2, 3}


def test_the_papers_layer_widths_give_the_papers_stage_pattern():
    # The fifth stage's shares are printed with three digits of a mean over seeds, layers with one of channels.
    layers = zip(STAGES, WIDTHS, TABLE_7, strict=True)
    pattern = stage_pattern(LayerWidth("", stage, 10 * all_, round(10 * kept)) for stage, all_, kept in layers)
    for stage, share in TABLE_21.items():
        assert pattern[stage] == pytest.approx(share, abs=0.035)


def test_guided_and_uniform_pruning_have_the_counted_sizes():
    """Same parameters, other computation: 2,339,516 and 177.6M against 2,360,974 and 50.6M (VGG-16, 60 %)."""
    module = build("cifar-vgg16")
    coupling = couple(module, SHAPE)
    weights = {n: p.detach().abs() for n, p in module.named_parameters()}
    guided = shrink(
        module, keep_counts(module, coupling, guided_counts(module, coupling, TABLE_21, SHAPE), weights), SHAPE
    )
    assert count_parameters(guided) == pytest.approx(2_339_516, rel=0.01)
    assert count_multiply_adds(guided, SHAPE) == pytest.approx(177.6e6, rel=0.01)
    uniform = shrink(module, keep_counts(module, coupling, uniform_counts(coupling, 0.4), weights), SHAPE)
    assert count_parameters(uniform) == pytest.approx(2_360_974, rel=0.01)
    assert count_multiply_adds(uniform, SHAPE) == pytest.approx(50.6e6, rel=0.01)


def test_a_pattern_is_transferred_to_a_deeper_network():
    """VGG-16's pattern on VGG-19 with 100 classes: 3,072,118 parameters and 214.0M multiply-adds."""
    module = build("cifar-vgg19", num_classes=100)
    coupling = couple(module, SHAPE)
    counts = guided_counts(module, coupling, TABLE_21, SHAPE)
    weights = {n: p.detach().abs() for n, p in module.named_parameters()}
    small = shrink(module, keep_counts(module, coupling, counts, weights), SHAPE)
    assert count_parameters(small) == pytest.approx(3_072_118, rel=0.01)
    assert count_multiply_adds(small, SHAPE) == pytest.approx(214.0e6, rel=0.01)


def test_a_pattern_of_other_stages_is_refused():
    module = build("resnet20")
    with pytest.raises(ShrinkbenchError, match="the pattern is of 5 stages, this network has 3"):
        guided_counts(module, couple(module, SHAPE), TABLE_21, SHAPE)
    with pytest.raises(ShrinkbenchError, match="different stages cannot be averaged"):
        mean_pattern([TABLE_21, {1: 0.5}])


def test_slimming_is_read_as_its_papers_do():
    module = build("cifar-vgg16")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.uniform_(0, 1, generator=generator)
    masks = slimming_masks(module, SHAPE, 0.6)
    widths = layer_widths(module, masks, SHAPE, of="scales")
    assert sum(w.channels for w in widths) == 4_224
    assert sum(w.kept for w in widths) == 4_224 - int(4_224 * 0.6)
    # In a plain network a scale and its filter are one.
    assert [w.kept for w in widths] == [w.kept for w in layer_widths(module, masks, SHAPE)]
    pattern = stage_pattern(widths)
    total = sum(pattern[w.stage] * w.channels for w in widths)
    assert total == pytest.approx(sum(w.kept for w in widths))


def test_kernel_positions_are_counted_and_drawn():
    module = build("preresnet56")
    share = {s: torch.full((3, 3), 0.1) for s in (1, 2, 3)}
    share[1][1, 1] = 0.9
    share[3][0, :] = 0.0
    masks = guided_sparsity(module, share, SHAPE, torch.Generator().manual_seed(0))
    found = kernel_pattern(module, masks, SHAPE)
    for stage, expected in share.items():
        torch.testing.assert_close(found[stage], expected, atol=0.02, rtol=0)
    one_by_one = masks["layer1.0.conv1.weight"].float().mean()
    assert float(one_by_one) == pytest.approx(float(share[1].mean()), abs=0.1)
    again = guided_sparsity(module, share, SHAPE, torch.Generator().manual_seed(0))
    assert masks.equal(again)


def test_the_mean_of_patterns_is_taken_stage_by_stage():
    assert mean_pattern([{1: 0.5, 2: 1.0}, {1: 0.7, 2: 0.0}]) == {1: pytest.approx(0.6), 2: 0.5}


def test_uniform_sparsity_keeps_every_weight_with_the_same_chance():
    module = build("resnet20")
    masks = uniform_sparsity(module, 0.3, torch.Generator().manual_seed(0))
    assert all(module.get_parameter(n).dim() == 4 for n in masks)
    assert masks.kept / masks.total == pytest.approx(0.3, abs=0.005)


def test_weight_distribution_counts_kept_weights_of_convolutions():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1, bias=False), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([-1.0, -0.4, 0.4, 1.0]).view(4, 1, 1, 1))
    edges, counts = weight_distribution(net, bins=4)
    assert edges.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert counts.tolist() == [1, 1, 1, 1]
    mask = Masks({"0.weight": torch.tensor([True, False, True, True]).view(4, 1, 1, 1)})
    assert weight_distribution(net, mask, bins=4)[1].tolist() == [1, 0, 1, 1]
    assert weight_distribution(net, mask, bins=2, limit=0.5)[1].tolist() == [1, 2]
