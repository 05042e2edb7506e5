"""Pre-activation residual networks with bottlenecks for CIFAR: depth 9n + 2 (He et al. 2016b)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register
from shrinkbench.models.initialise import batch_norm_gain, kaiming_normal


class PreActivationBottleneck(nn.Module):
    """BN-ReLU-conv1x1, BN-ReLU-conv3x3, BN-ReLU-conv1x1 plus the shortcut.

    ``inner`` is the output of the first and of the second convolution; the 3 x 3 carries the stride. Where
    the shape changes, a 1 x 1 convolution without batch norm projects the raw input.
    """

    def __init__(self, inputs: int, inner: tuple[int, int], outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inner[0], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner[0])
        self.conv2 = nn.Conv2d(inner[0], inner[1], 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner[1])
        self.conv3 = nn.Conv2d(inner[1], outputs, 1, bias=False)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y)))
        y = self.conv3(F.relu(self.bn3(y)))
        out: Tensor = y + (x if self.downsample is None else self.downsample(x))
        return out


class PreActivationResNet(nn.Module):
    """A stem, stages of pre-activation blocks, BN-ReLU, global average pool, linear."""

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], width: int, num_classes: int) -> None:
        super().__init__()
        self.stem = stem
        for number, stage in enumerate(stages, start=1):
            self.add_module(f"layer{number}", stage)
        self.stages = len(stages)
        self.bn = nn.BatchNorm2d(width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 3, H, W)."""
        x = self.stem(x)
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        logits: Tensor = self.fc(self.pool(F.relu(self.bn(x))).flatten(1))
        return logits


def cifar_preresnet(depth: int, num_classes: int, *, gain: float) -> nn.Module:
    """Stem of 16 without batch norm and three stages of (depth - 2) / 9 bottlenecks, four times as wide."""
    blocks = (depth - 2) // 9
    stages: list[nn.Module] = []
    inputs = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        stage: list[nn.Module] = []
        for position in range(blocks):
            stage.append(
                PreActivationBottleneck(inputs, (width, width), 4 * width, stride=1 if position else stride)
            )
            inputs = 4 * width
        stages.append(nn.Sequential(*stage))
    stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    module = PreActivationResNet(stem, stages, inputs, num_classes)
    kaiming_normal(module)
    batch_norm_gain(module, gain)
    return module


def _register(
    depth: int, figures: tuple[int, int], agrees_with: str, *, gain: float, namesakes: dict[str, str]
) -> None:
    def build(num_classes: int) -> nn.Module:
        return cifar_preresnet(depth, num_classes, gain=gain)

    register(
        ModelCard(
            name=f"preresnet{depth}",
            family="preresnet",
            definition=(
                f"CIFAR PreResNet-{depth}: conv3x3 16 without batch norm, three stages of {(depth - 2) // 9} "
                "pre-activation bottlenecks (inner 16, 32, 64; outer four times that), 1x1 projection of the "
                "raw input without batch norm at the head of every stage, BN-ReLU, global average pool, "
                f"linear; N(0, 2 / fan out) convolutions, batch-norm weights {gain:g}"
            ),
            reference="he2016identity",
            input_shape=(3, 32, 32),
            num_classes=10,
            parameters=figures[0],
            multiply_adds=figures[1],
            agrees_with=agrees_with,
            build=build,
            namesakes=namesakes,
            weights_note=NO_PUBLIC_WEIGHTS,
        )
    )


_SELECTION = (
    "the same network with an index vector after each first batch norm, stored as a parameter and so counted: "
)
_register(
    56,
    (590_426, 87_214_592),
    "no published count; 4,048 batch-norm channels by the same definition as PreResNet-164",
    gain=0.5,
    namesakes={"with channel selection": _SELECTION + "593,130 parameters"},
)
_register(
    110,
    (1_146_842, 167_430_656),
    "no published count; the same definition as PreResNet-164",
    gain=1.0,
    namesakes={
        "PreResNet-110 of bearpaw/pytorch-classification": (
            "basic blocks, depth 6n + 2: 1,730,522 parameters, published as 1.70M"
        )
    },
)
_register(
    164,
    (1_703_258, 247_646_720),
    "1.70M parameters and 4.99e8 FLOP at two per multiply-add (Liu et al. 2017, Table 1)",
    gain=0.5,
    namesakes={"with channel selection": _SELECTION + "1,711,338 parameters, reported as 1.71M"},
)
