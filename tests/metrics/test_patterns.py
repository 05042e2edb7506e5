"""Patterns per stage, and what networks guided by them cost."""

from __future__ import annotations

import pytest
import torch

from shrinkbench.metrics import count_multiply_adds, count_parameters
from shrinkbench.metrics.patterns import (
    LayerWidth,
    kernel_pattern,
    layer_widths,
    stage_pattern,
)
from shrinkbench.models import build
from shrinkbench.network.stages import stages_of
from shrinkbench.pruning import prune
from shrinkbench.pruning.methods.network_slimming import slimming_masks
from shrinkbench.surgery.shrinking import shrink

SHAPE = (3, 32, 32)
# Liu et al. 2019, Table 21, 60 %: kept share of channels by stage of VGG-16 on CIFAR-10.
TABLE_21 = {1: 0.836, 2: 1.0, 3: 0.947, 4: 0.258, 5: 0.132}
# Table 7, 60 %: mean kept channels by layer of the same networks.
TABLE_7 = (39.0, 64, 127.8, 128, 255, 250.5, 226, 217.3, 120, 63, 47.8, 62, 88.8)
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
STAGES = (1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5)


@pytest.mark.slow
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


def cost(module, method, parameters):
    """Multiply-adds of the network with about so many parameters that ``method`` leaves."""
    compression = count_parameters(module) / parameters
    small = shrink(module, prune(module, method, compression=compression, input_shape=SHAPE), SHAPE)
    assert count_parameters(small) == pytest.approx(parameters, rel=0.01)
    return count_multiply_adds(small, SHAPE)


@pytest.mark.slow
def test_guided_and_uniform_pruning_have_the_counted_costs():
    """Same parameters, other computation: VGG-16 at 60 %, and its pattern on VGG-19 with 100 classes."""
    guided = "uniform_channels[allocation=pattern:liu2019-vgg16]"
    assert cost(build("cifar-vgg16"), guided, 2_339_516) == pytest.approx(177.6e6, rel=0.02)
    assert cost(build("cifar-vgg16"), "uniform_channels", 2_360_974) == pytest.approx(50.6e6, rel=0.02)
    assert cost(build("cifar-vgg19", num_classes=100), guided, 3_072_118) == pytest.approx(214.0e6, rel=0.02)


@pytest.mark.slow
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
    generator = torch.Generator().manual_seed(0)
    masks = {
        f"{path}.weight": torch.rand(layer.weight.shape, generator=generator) < share[stage]
        for path, stage in stages_of(module, SHAPE).items()
        if getattr(layer := module.get_submodule(path), "kernel_size", None) == (3, 3)
    }
    found = kernel_pattern(module, masks, SHAPE)
    for stage, expected in share.items():
        torch.testing.assert_close(found[stage], expected, atol=0.02, rtol=0)
