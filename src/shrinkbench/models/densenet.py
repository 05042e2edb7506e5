"""Densely connected networks for CIFAR (Huang et al. 2017), growth 12."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register
from shrinkbench.models.initialise import batch_norm_gain, kaiming_normal

GROWTH = 12


class DenseLayer(nn.Module):
    """BN-ReLU-conv3x3, its output appended to its input."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, inputs + 12, H, W)."""
        return torch.cat((x, self.conv1(F.relu(self.bn1(x)))), 1)


class BottleneckLayer(nn.Module):
    """BN-ReLU-conv1x1 to four times the growth, BN-ReLU-conv3x3, appended to the input."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * GROWTH, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, inputs + 12, H, W)."""
        y = self.conv1(F.relu(self.bn1(x)))
        return torch.cat((x, self.conv2(F.relu(self.bn2(y)))), 1)


class Transition(nn.Module):
    """BN-ReLU-conv1x1, then a 2 x 2 mean."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / 2, W / 2)."""
        return F.avg_pool2d(self.conv1(F.relu(self.bn1(x))), 2)


class CifarDenseNet(nn.Module):
    """Stem, three dense blocks of ``layers`` layers, two transitions, BN-ReLU, global average pool, linear.

    A transition keeps the share ``compression`` of its channels.
    """

    def __init__(
        self, layers: int, num_classes: int, *, stem: int, bottleneck: bool, compression: float = 1.0
    ) -> None:
        super().__init__()
        layer = BottleneckLayer if bottleneck else DenseLayer
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        parts: list[nn.Module] = []
        width = stem
        for block in range(3):
            parts.append(nn.Sequential(*(layer(width + GROWTH * n) for n in range(layers))))
            width += GROWTH * layers
            if block < 2:
                kept = int(width * compression)
                parts.append(Transition(width, kept))
                width = kept
        self.dense1, self.trans1, self.dense2, self.trans2, self.dense3 = parts
        self.bn = nn.BatchNorm2d(width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 3, 32, 32)."""
        x = self.trans1(self.dense1(self.conv1(x)))
        x = self.dense3(self.trans2(self.dense2(x)))
        logits: Tensor = self.fc(self.pool(F.relu(self.bn(x))).flatten(1))
        return logits


def _initialise(module: nn.Module, gain: float) -> nn.Module:
    kaiming_normal(module)
    batch_norm_gain(module, gain)
    return module


def _densenet40(num_classes: int) -> nn.Module:
    return _initialise(CifarDenseNet(12, num_classes, stem=24, bottleneck=False), 0.5)


def _densenet40_paper(num_classes: int) -> nn.Module:
    return _initialise(CifarDenseNet(12, num_classes, stem=16, bottleneck=False), 0.5)


def _densenet_bc_100(num_classes: int) -> nn.Module:
    return _initialise(CifarDenseNet(16, num_classes, stem=24, bottleneck=True, compression=0.5), 1.0)


def _densenet_c_100(num_classes: int) -> nn.Module:
    return _initialise(CifarDenseNet(32, num_classes, stem=24, bottleneck=False, compression=0.5), 1.0)


_FORTY = (
    "three dense blocks of 12 layers BN-ReLU-conv3x3 (growth 12), two transitions BN-ReLU-conv1x1 that keep "
    "every channel and halve the image by the mean, BN-ReLU, global average pool, linear; N(0, 2 / fan out) "
    "convolutions, batch-norm weights 0.5"
)
register(
    ModelCard(
        name="densenet40",
        family="densenet",
        definition=f"conv3x3 24, {_FORTY}",
        reference="liu2017learning",
        input_shape=(3, 32, 32),
        num_classes=10,
        parameters=1_059_298,
        multiply_adds=282_917_328,
        agrees_with="9,360 batch-norm channels of the released PyTorch code of Liu et al. 2017 and 2019",
        build=_densenet40,
        namesakes={
            "densenet40-paper": "a stem of 16: the counts that the papers print (1.02M)",
            "with channel selection": "9,360 indices stored as parameters: 1,068,658",
        },
        weights_note=NO_PUBLIC_WEIGHTS,
    )
)
register(
    ModelCard(
        name="densenet40-paper",
        family="densenet",
        definition=f"conv3x3 16, {_FORTY}",
        reference="huang2017densely",
        input_shape=(3, 32, 32),
        num_classes=10,
        parameters=1_019_722,
        multiply_adds=264_812_928,
        agrees_with="1.02M parameters and 5.33e8 FLOP at two per multiply-add (Liu et al. 2017, Table 1)",
        build=_densenet40_paper,
        namesakes={"densenet40": "a stem of 24, as the released code builds it: 1,059,298 parameters"},
        weights_note=NO_PUBLIC_WEIGHTS,
    )
)
register(
    ModelCard(
        name="densenet-bc-100",
        family="densenet",
        definition=(
            "conv3x3 24, three dense blocks of 16 bottleneck layers (1x1 to 48, 3x3 to 12), two transitions "
            "that keep half of the channels, BN-ReLU, global average pool, linear; N(0, 2 / fan out) "
            "convolutions, batch-norm weights 1"
        ),
        reference="huang2017densely",
        input_shape=(3, 32, 32),
        num_classes=10,
        parameters=769_162,
        multiply_adds=287_929_692,
        agrees_with="0.8M parameters (Huang et al. 2017, Table 2); 0.77M (bearpaw/pytorch-classification)",
        build=_densenet_bc_100,
        namesakes={
            "densenet-c-100": (
                "what Liu et al.'s command for 'DenseNet-BC-100' builds: layers without bottleneck, "
                "4,068,490 parameters"
            )
        },
        weights_note=NO_PUBLIC_WEIGHTS,
    )
)
register(
    ModelCard(
        name="densenet-c-100",
        family="densenet",
        definition=(
            "conv3x3 24, three dense blocks of 32 layers BN-ReLU-conv3x3 (growth 12), two transitions that "
            "keep half of the channels, BN-ReLU, global average pool, linear; N(0, 2 / fan out) "
            "convolutions, batch-norm weights 1"
        ),
        reference="liu2019rethinking",
        input_shape=(3, 32, 32),
        num_classes=10,
        parameters=4_068_490,
        multiply_adds=1_324_548_732,
        agrees_with="the network that the released command of Liu et al. 2019 builds; no count is published",
        build=_densenet_c_100,
        namesakes={"densenet-bc-100": "bottleneck layers: 769,162 parameters"},
        weights_note=NO_PUBLIC_WEIGHTS,
    )
)
