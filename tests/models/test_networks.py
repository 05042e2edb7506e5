"""Networks compute what independent implementations of the same definition compute."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from shrinkbench.models import build, get_model
from shrinkbench.models.alexnet import AlexNet
from shrinkbench.models.imagenet_resnet import (
    DEPTHS,
    basic_resnet,
    bottleneck_resnet,
    full_basics,
    full_bottlenecks,
)
from shrinkbench.models.imagenet_vgg import ImageNetVGG
from shrinkbench.models.residual import ChannelSampler, SubsampleAndPad


def same_logits(ours: nn.Module, theirs: nn.Module, shape: tuple[int, int, int]) -> None:
    """Load the weights of one into the other and compare."""
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), theirs.eval()(image), rtol=1e-4, atol=1e-4)


def test_basic_blocks_are_torchvisions():
    ours = basic_resnet(full_basics(DEPTHS[18]), 10, shortcut="projection")
    same_logits(ours, torchvision.models.resnet18(num_classes=10), (3, 64, 64))


def test_bottlenecks_with_the_stride_in_the_3x3_are_torchvisions():
    ours = bottleneck_resnet(full_bottlenecks(DEPTHS[50]), 10, stride_in="3x3")
    theirs = torchvision.models.resnet50(num_classes=10)
    same_logits(ours, theirs, (3, 64, 64))
    original = bottleneck_resnet(full_bottlenecks(DEPTHS[50]), 10, stride_in="1x1")
    original.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(original.eval()(image), theirs(image), atol=1e-3)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg_has_torchvisions_names_and_shapes(batch_norm):
    widths = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    with torch.device("meta"):
        ours = ImageNetVGG(widths, 1000, batch_norm=batch_norm, head="dense").state_dict()
        theirs = (torchvision.models.vgg11_bn if batch_norm else torchvision.models.vgg11)().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_vision_transformer_is_timms():
    timm = pytest.importorskip("timm")
    theirs = timm.models.VisionTransformer(
        img_size=32,
        patch_size=4,
        embed_dim=192,
        depth=6,
        num_heads=3,
        num_classes=10,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),  # PyTorch's default; timm's is 1e-6
    )
    names = {"patches": "patch_embed.proj", "class_token": "cls_token", "positions": "pos_embed"}
    parts = {"attention": "attn", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    ours = build("vit-cifar")
    renamed = {}
    for key in ours.state_dict():
        head, _, rest = key.partition(".")
        pieces = [names.get(head, head), *(parts.get(p, p) for p in rest.split(".") if p)]
        renamed[key] = theirs.state_dict()[".".join(pieces)]
    ours.load_state_dict(renamed)
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), theirs.eval()(image), rtol=1e-4, atol=1e-4)


def test_option_a_shortcut_by_hand():
    image = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    out = SubsampleAndPad(2, 4)(image)
    assert out.shape == (1, 4, 2, 2)
    assert out[0, 0].eq(0).all()
    assert out[0, 3].eq(0).all()
    assert out[0, 1].tolist() == [[0.0, 2.0], [8.0, 10.0]]
    assert out[0, 2].tolist() == [[16.0, 18.0], [24.0, 26.0]]


def test_option_a_shortcut_carries_the_gradient():
    image = torch.randn(1, 2, 4, 4, requires_grad=True)
    SubsampleAndPad(2, 4)(image).sum().backward()
    assert image.grad is not None
    assert image.grad[0, 0].tolist() == [[1, 0, 1, 0], [0] * 4, [1, 0, 1, 0], [0] * 4]


def test_sampler_selects_the_channels_of_its_weights():
    sampler = ChannelSampler(2)
    sampler.load_state_dict({"index": torch.tensor([2, 0])})
    image = torch.arange(3.0).reshape(1, 3, 1, 1)
    assert sampler(image).flatten().tolist() == [2.0, 0.0]


def test_alexnet_and_caffenet_differ_in_order_alone():
    with torch.device("meta"):
        alexnet = [type(m) for m in AlexNet(10, order="norm-pool").features]
        caffenet = [type(m) for m in AlexNet(10, order="pool-norm").features]
    assert alexnet != caffenet
    assert sorted(map(str, alexnet)) == sorted(map(str, caffenet))
    assert alexnet[2:4] == [nn.LocalResponseNorm, nn.MaxPool2d]
    assert caffenet[2:4] == [nn.MaxPool2d, nn.LocalResponseNorm]


def test_local_response_normalisation_of_alexnet_is_the_papers():
    values = torch.rand(1, 96, 1, 1, generator=torch.Generator().manual_seed(0)) * 50
    with torch.device("meta"):
        norm = AlexNet(10, order="norm-pool").features[2]
    squares = F.pad(values.flatten() ** 2, (2, 2)).unfold(0, 5, 1).sum(1)
    expected = values.flatten() / (2 + 1e-4 * squares) ** 0.75
    torch.testing.assert_close(norm(values).flatten(), expected)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "digits-cnn",
            "lenet-300-100",
            "lenet5",
            "lenet5-caffe",
            "resnet20",
            "resnet20-projection",
            "cifar-vgg",
        ),
        *(
            "cifar-vgg16",
            "cifar-vgg16-l1",
            "preresnet56",
            "densenet40",
            "densenet-bc-100",
            "vit-cifar",
            "vgg16-a",
        ),
    ],
)
def test_a_fresh_network_trains_in_one_step(name):
    card = get_model(name)
    module = build(name, seed=0)
    image = torch.randn(4, *card.input_shape, generator=torch.Generator().manual_seed(0))
    logits = module(image)
    assert logits.shape == (4, card.num_classes)
    F.cross_entropy(logits, torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_kaiming_weights_have_the_stated_spread():
    weight = build("resnet56", seed=0).layer3[4].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    slim = build("cifar-vgg16", seed=0).features
    assert slim[0].weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    assert slim[1].weight.unique().tolist() == [0.5]


@pytest.mark.slow
def test_importing_the_models_does_not_import_torchvision():
    code = "import sys, shrinkbench.models; sys.exit('torchvision' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
