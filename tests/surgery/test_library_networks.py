"""The law on networks of torchvision and timm: cut right, or left whole and named, or refused in a sentence."""

from __future__ import annotations

import copy
import re
import warnings

import pytest
import torch

from shrinkbench.errors import CannotMeetTargetError, LeftWholeWarning, ShrinkbenchError
from shrinkbench.metrics import count_parameters, measure_size
from shrinkbench.models import build
from shrinkbench.network.coupling import couple
from shrinkbench.network.verification import OUTPUT
from shrinkbench.pruning import prune
from shrinkbench.surgery.checking import largest_difference
from shrinkbench.surgery.shrinking import shrink

pytestmark = pytest.mark.slow

TORCHVISION = (
    *("squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "regnet_x_400mf", "regnet_y_400mf"),
    *("resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "efficientnet_b0", "shufflenet_v2_x0_5"),
    *("googlenet", "convnext_tiny", "swin_t", "vgg11_bn"),
)
TIMM = (
    *("ghostnet_100", "skresnet18", "res2net50_26w_4s", "resnest14d", "convnextv2_atto", "edgenext_xx_small"),
    *("levit_128s", "mixer_s32_224", "repvgg_a0", "pvt_v2_b0", "resnetv2_50x1_bit", "eva02_tiny_patch14_224"),
    *("vit_tiny_patch16_224", "deit_tiny_patch16_224", "mobileone_s0", "hardcorenas_a"),
)
# Of these some channels have to stay, and are named; without a name they would be claimed and not reached.
NAMED = {
    *("timm/ghostnet_100", "timm/skresnet18", "timm/convnextv2_atto", "timm/levit_128s"),
    "torchvision/shufflenet_v2_x0_5",
}


def names():
    yield from (f"torchvision/{name}" for name in TORCHVISION)
    yield from (f"timm/{name}" for name in TIMM)


def assert_the_law(module, shape):
    """Prune to a half, or as far as possible, and cut; the sentences on what was left whole."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            masks = prune(module, "channel_l1", compression=2, input_shape=shape)
        except CannotMeetTargetError as error:
            largest = float(re.search(r"the largest possible target is ([\d.]+)$", str(error))[1])
            masks = prune(module, "channel_l1", compression=largest, input_shape=shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftWholeWarning)
        small = shrink(module, masks, shape)
    masked = copy.deepcopy(module)
    masks.apply(masked)
    assert largest_difference(masked, small, shape) < 1e-9
    assert count_parameters(small) == measure_size(module, shape, masks).parameters_kept
    small.train()(torch.randn(2, *shape))
    return [str(w.message) for w in caught if issubclass(w.category, LeftWholeWarning)]


@pytest.mark.parametrize("name", names())
def test_library_network(name):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    module = build(name).eval()
    size = 224 if name.endswith(("_224", "levit_128s")) else 64
    try:
        named = assert_the_law(module, (3, size, size))
    except ShrinkbenchError as error:
        pytest.skip(f"refused: {error}")
    assert bool(named) or name not in NAMED


def test_auxiliary_heads_of_training_are_named_and_still_train():
    import torchvision

    module = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=True).eval()
    named = assert_the_law(module, (3, 64, 64))
    assert any("a part that runs in training alone reads them" in sentence for sentence in named)


def test_every_map_of_a_feature_extractor_keeps_its_channels():
    timm = pytest.importorskip("timm")
    module = timm.create_model("resnet18", features_only=True).eval()
    assert_the_law(module, (3, 64, 64))
    groups = couple(module, (3, 64, 64)).groups
    assert sum(group.refused_because == OUTPUT for group in groups) >= 4
