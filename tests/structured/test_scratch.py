"""Fresh weights for pruned architectures."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from shrinkbench.models import build
from shrinkbench.pruning.structured.scratch import initialised_anew


def test_convolutions_have_the_deviation_of_their_own_fan_out():
    fresh = initialised_anew(build("vgg16-a"), seed=0)
    for layer in fresh.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 30_000:
            expected = math.sqrt(2 / (9 * layer.out_channels))
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.02)
    assert float(fresh.classifier[-1].weight.detach().std()) == pytest.approx(0.01, rel=0.1)


def test_under_a_mask_survivors_carry_the_variance():
    net = nn.Sequential(nn.Conv2d(32, 64, 3))
    mask = torch.rand(64, 32, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.25
    fresh = initialised_anew(net, seed=1, masks={"0.weight": mask})
    weight = fresh[0].weight.detach()
    assert not weight[~mask].any()
    assert float(weight[mask].std()) == pytest.approx(math.sqrt(2 / (int(mask.sum()) / 32)), rel=0.03)


def test_grouped_convolutions_count_the_filters_that_read_an_input():
    fresh = initialised_anew(nn.Sequential(nn.Conv2d(64, 128, 3, groups=4)), seed=0)
    assert float(fresh[0].weight.detach().std()) == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.03)


def test_norms_and_biases_start_anew_and_the_original_is_untouched():
    module = build("cifar-vgg")
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.fill_(3)
                layer.running_mean.fill_(2)
    before = {n: t.clone() for n, t in module.state_dict().items()}
    state = torch.get_rng_state()
    fresh = initialised_anew(module, seed=0, gain=0.5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())
    norms = [m for m in fresh.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(bool((m.weight == 0.5).all()) and not m.running_mean.any() for m in norms)
    assert not any(m.bias.any() for m in fresh.modules() if isinstance(m, nn.Conv2d))


def test_the_seed_decides():
    module = build("resnet20")
    first, again, other = (initialised_anew(module, seed=s).conv1.weight for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
