"""Wide residual networks for CIFAR (Zagoruyko and Komodakis 2016): depth 6n + 4, widths 16k, 32k, 64k."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register
from shrinkbench.models.initialise import kaiming_normal
from shrinkbench.models.preresnet import PreActivationResNet


class WideBlock(nn.Module):
    """BN-ReLU-conv3x3 twice plus the shortcut; where the width changes, both see the activated input."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        out: Tensor = y + (x if self.downsample is None else self.downsample(active))
        return out


def wide_resnet(depth: int, widening: int, num_classes: int) -> nn.Module:
    """WRN-depth-widening without dropout."""
    blocks = (depth - 4) // 6
    stages: list[nn.Module] = []
    inputs = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        outputs = width * widening
        first = WideBlock(inputs, outputs, stride=stride)
        stages.append(nn.Sequential(first, *(WideBlock(outputs, outputs) for _ in range(blocks - 1))))
        inputs = outputs
    stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    module = PreActivationResNet(stem, stages, inputs, num_classes)
    kaiming_normal(module, mode="fan_in")
    nn.init.zeros_(module.fc.bias)
    return module


def _wrn_28_10(num_classes: int) -> nn.Module:
    return wide_resnet(28, 10, num_classes)


register(
    ModelCard(
        name="wrn-28-10",
        family="wide_resnet",
        definition=(
            "conv3x3 16, three stages of four pre-activation basic blocks with 160, 320, 640 channels, 1x1 "
            "projection of the activated input at the head of every stage, no dropout, BN-ReLU, global "
            "average pool, linear; Kaiming-normal convolutions (fan in)"
        ),
        reference="zagoruyko2016wide",
        input_shape=(3, 32, 32),
        num_classes=10,
        parameters=36_479_194,
        multiply_adds=5_243_328_768,
        agrees_with="36.5M parameters (Zagoruyko and Komodakis 2016, Table 4)",
        build=_wrn_28_10,
        namesakes={
            "with dropout": "dropout 0.3 between the two convolutions of a block: the same counts",
            "torchvision/wide_resnet50_2": "an ImageNet ResNet-50 with 3x3 convolutions twice as wide",
        },
        weights_note=NO_PUBLIC_WEIGHTS,
    ),
    aliases=("wideresnet-28-10",),
)
