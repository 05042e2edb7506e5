"""Which weights lie on shortcuts, by how data flows."""

import pytest
from sample_networks import ConvNet, ViT, seeded
from torch import nn

from shrinkbench.models import build
from shrinkbench.network.dataflow import projections


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("torchvision/resnet18", (2, 3, 4)),
        ("torchvision/resnet34", (2, 3, 4)),
        ("torchvision/resnet50", (1, 2, 3, 4)),
    ],
)
def test_of_torchvision_resnets_they_are_downsample(name, stages):
    found = projections(build(name), (3, 64, 64))
    assert found == {f"layer{stage}.0.downsample.0.weight" for stage in stages}


@pytest.mark.parametrize("name", ["resnet20-projection", "preresnet56", "wrn-28-10"])
def test_of_cifar_networks_they_are_the_convolutions_of_one_pixel_beside_a_branch(name):
    module = build(name)
    found = projections(module, (3, 32, 32))
    ones = {
        f"{path}.weight": layer
        for path, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
    }
    wider = {path for path, layer in ones.items() if layer.stride == (2, 2)}
    assert found <= ones.keys()
    assert wider <= found
    # One at the entrance of each of the three stages, where the width or the size changes.
    assert len(found) == (2 if name == "resnet20-projection" else 3)


@pytest.mark.parametrize("name", ["resnet20", "densenet40", "cifar-vgg16"])
def test_shortcuts_without_weights_have_none(name):
    assert projections(build(name), (3, 32, 32)) == set()


@pytest.mark.parametrize("make", [ConvNet, ViT])
def test_identities_have_none(make):
    assert projections(seeded(make), (3, 8, 8)) == set()
