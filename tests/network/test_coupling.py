"""Groups of coupled channels: known networks by hand, and what cannot be followed."""

from __future__ import annotations

import pytest
import torch
from surgery_networks import make
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.models.densenet import CifarDenseNet
from shrinkbench.network.coupling import LeftWholeWarning, couple


def slices(group, role):
    return {(s.tensor, s.dim) for s in group.slices if s.role == role}


def test_residual_sum_couples_all_its_branches():
    coupling = couple(build("torchvision/resnet18"), (3, 64, 64))
    stream = coupling.group_of("layer2.0.conv2")
    assert stream is coupling.group_of("layer2.0.downsample.0")
    assert slices(stream, "produces") == {
        (f"layer2.{layer}.weight", 0) for layer in ("0.conv2", "0.downsample.0", "1.conv2")
    }
    assert slices(stream, "consumes") == {
        (f"{layer}.weight", 1) for layer in ("layer2.1.conv1", "layer3.0.conv1", "layer3.0.downsample.0")
    }
    assert (stream.units, stream.refused_because) == (128, None)


def test_option_a_shortcut_keeps_the_stream_whole_and_inner_channels_free():
    coupling = couple(build("resnet20"), (3, 32, 32))
    assert {g.layer for g in coupling.free} == {f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in (0, 1, 2)}
    assert "layer2.0.downsample" in (coupling.group_of("conv1").refused_because or "")


def test_the_layer_of_the_logits_is_whole():
    group = couple(build("resnet20"), (3, 32, 32)).group_of("linear")
    assert group.refused_because == "they reach the output"


def test_concatenation_gives_each_producer_its_part_of_a_consumer():
    coupling = couple(CifarDenseNet(3, 10, stem=24, bottleneck=False), (3, 16, 16))
    second = coupling.group_of("dense1.1.conv1")
    reader = next(s for s in second.slices if s.tensor == "dense1.2.conv1.weight")
    # Stem 24, first layer 12, then the second layer's 12 channels.
    assert (reader.unit >= 0).nonzero().flatten().tolist() == list(range(36, 48))
    assert reader.unit[36:48].tolist() == list(range(12))


def test_flattening_gives_a_channel_all_its_pixels():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 2))
    reader = next(s for s in couple(net, (1, 4, 4)).free[0].slices if s.role == "consumes")
    assert reader.unit.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_grouped_convolution_loses_whole_blocks_inputs_with_outputs():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, groups=4), nn.BatchNorm2d(12), nn.Conv2d(12, 2, 1), nn.Flatten()
    )
    group = couple(net, (3, 3, 3)).free[0]
    by_tensor = {(s.tensor, s.dim): s.unit.tolist() for s in group.slices}
    assert group.units == 4
    assert by_tensor["0.weight", 0] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert by_tensor["1.weight", 0] == by_tensor["3.weight", 1] == [u for u in range(4) for _ in range(3)]
    assert ("1.weight", 1) not in by_tensor


class BlockOfInput(nn.Module):
    def __init__(self, filters):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, filters, 1), nn.Conv2d(3 + filters, 3 + filters, 3, groups=2)
        self.fc = nn.Linear(3 + filters, 2)

    def forward(self, x):
        return self.fc(self.b(torch.cat([x, self.a(x)], 1)).mean((2, 3)))


def test_a_block_that_reads_the_networks_input_stays_and_the_others_can_leave():
    group = couple(BlockOfInput(7), (3, 4, 4)).group_of("a")
    by_tensor = {(s.tensor, s.dim): s.unit.tolist() for s in group.slices}
    assert (group.units, group.refused_because) == (1, None)
    assert by_tensor["a.weight", 0] == [-1, -1, 0, 0, 0, 0, 0]
    assert by_tensor["b.weight", 0] == by_tensor["fc.weight", 1] == [-1] * 5 + [0] * 5
    alone = couple(BlockOfInput(3), (3, 4, 4)).group_of("a")
    assert alone.units == 1
    assert alone.refused_because is None


def test_depthwise_convolution_carries_channels():
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 2, 1), nn.Flatten())
    group = couple(net, (3, 3, 3)).free[0]
    assert slices(group, "carries") == {("1.weight", 0), ("1.bias", 0)}
    assert group.units == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "heads"),
    [
        pytest.param("torchvision/vit_b_16", 12, marks=pytest.mark.slow),
        ("torchvision/swin_t", 3),
    ],
)
def test_heads_are_units_of_their_own(name, heads):
    module, shape = make(name)
    group = next(g for g in couple(module, shape).groups if g.kind == "heads")
    assert (group.units, group.refused_because) == (heads, None)


def test_layer_norm_keeps_its_channels_whole():
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LayerNorm([4, 4, 4]), nn.ReLU(), nn.Conv2d(4, 2, 3))
    assert "LayerNorm" in (couple(module, (1, 6, 6)).group_of("0").refused_because or "")


class AddsItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc((x + self.conv(x)).mean((2, 3)))


def test_channels_summed_with_the_input_are_whole():
    group = couple(AddsItsInput(), (3, 8, 8)).group_of("conv")
    assert group.refused_because == "they are summed with the network's input"


def test_a_shared_weight_keeps_its_channels_whole():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    net[2].weight = net[0].weight
    assert all("shared" in (g.refused_because or "") for g in couple(net, (4,)).groups if g.layer in ("0", "2"))


class Branching(nn.Module):
    """Goes another way for dark images."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        y = self.conv(x)
        if bool(x.mean() < 0):
            y = -y
        return self.fc(y.mean((2, 3)))


def test_a_network_that_depends_on_values_is_refused_in_one_sentence():
    with pytest.raises(ShrinkbenchError, match="cannot be followed without data"):
        couple(Branching(), (3, 8, 8))


def test_a_wrong_input_shape_is_told():
    with pytest.raises(ShrinkbenchError, match="does not run on one input of shape 1x8x8"):
        couple(build("resnet20"), (1, 8, 8))


def test_the_network_is_left_untouched():
    module = build("resnet20").train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    frozen = next(module.parameters()).requires_grad_(False)
    couple(module, (3, 32, 32))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert module.training
    assert not frozen.requires_grad
    assert all(p.device.type == "cpu" for p in module.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_has_no_say(mode):
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with mode():
        inside = couple(net, (4,))
    assert inside.group_of("0").refused_because is None
    assert inside is couple(net, (4,))


def test_a_layer_that_is_exchanged_is_looked_at_anew():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    assert couple(net, (4,)).group_of("0").refused_because is None
    net[1] = nn.Softmax(1)
    with pytest.warns(LeftWholeWarning, match="channels of '0' are left whole"):
        assert couple(net, (4,)).group_of("0").refused_because is not None


def test_weights_have_no_say():
    net = nn.Sequential(nn.Linear(4, 6), nn.Softmax(1), nn.Linear(6, 2))
    nn.init.zeros_(net[2].weight)
    with pytest.warns(LeftWholeWarning, match="removing some changes the outputs"):
        couple(net, (4,))
