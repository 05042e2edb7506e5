"""The pre-activation ResNet-50 of Sparse Structure Selection and what is left of it after pruning."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register
from shrinkbench.models.initialise import kaiming_normal
from shrinkbench.models.preresnet import PreActivationResNet

WIDTHS = (64, 128, 256, 512)


class ActivatedBottleneck(nn.Module):
    """Pre-activation bottleneck whose projection, where there is one, sees the activated input."""

    def __init__(self, inputs: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        outputs = 4 * width
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, 4 * width, H / stride, W / stride)."""
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        y = self.conv3(F.relu(self.bn3(y)))
        out: Tensor = y + (x if self.downsample is None else self.downsample(active))
        return out


class ProjectionOnly(nn.Module):
    """What is left of a stage's first block without its branch: BN-ReLU and the 1 x 1 projection."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out: Tensor = self.downsample(F.relu(self.bn1(x)))
        return out


def sss_resnet(branches: Sequence[tuple[int, bool]], num_classes: int) -> nn.Module:
    """Network with, by stage, (number of residual branches left, whether the first block keeps its own)."""
    stages: list[nn.Module] = []
    inputs = 64
    for stage, (width, (left, first_kept)) in enumerate(zip(WIDTHS, branches, strict=True)):
        stride = 2 if stage else 1
        head: nn.Module = (
            ActivatedBottleneck(inputs, width, stride=stride)
            if first_kept
            else ProjectionOnly(inputs, 4 * width, stride=stride)
        )
        inputs = 4 * width
        rest = (ActivatedBottleneck(inputs, width) for _ in range(left - first_kept))
        stages.append(nn.Sequential(head, *rest))
    stem = nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
    module = PreActivationResNet(stem, stages, inputs, num_classes)
    kaiming_normal(module, mode="fan_in")
    return module


FULL = ((3, True), (4, True), (6, True), (3, True))
PRUNED = {
    41: ((0, False), (4, True), (6, True), (3, True)),
    32: ((1, False), (4, True), (4, True), (1, True)),
    26: ((0, False), (2, False), (5, False), (1, True)),
}


def _register(
    name: str,
    branches: Sequence[tuple[int, bool]],
    figures: tuple[int, int],
    agrees_with: str,
    namesakes: dict[str, str],
    pruned_from: str | None,
) -> None:
    def build(num_classes: int) -> nn.Module:
        return sss_resnet(branches, num_classes)

    cut = "" if pruned_from is None else f", residual branches left {[n for n, _ in branches]}"
    register(
        ModelCard(
            name=name,
            family="sss",
            definition=(
                "pre-activation ResNet-50 with batch norm and ReLU after the 7x7/2 stem, stride in the 3x3 "
                f"convolution, 1x1 projections of the activated input{cut}; N(0, 2 / fan in) convolutions"
            ),
            reference="huang2018data",
            input_shape=(3, 224, 224),
            num_classes=1000,
            parameters=figures[0],
            multiply_adds=figures[1],
            agrees_with=agrees_with,
            build=build,
            namesakes=namesakes,
            weights_note=NO_PUBLIC_WEIGHTS,
            pruned_from=pruned_from,
        )
    )


_register(
    "sss-resnet-50",
    FULL,
    (25_549_480, 4_089_184_256),
    "the unpruned network behind Liu et al. 2019, Table 5: the Scratch-B epochs follow from its multiply-adds",
    {
        "torchvision/resnet50": "post-activation: 25,557,032 parameters",
        "timm/resnetv2_50": "no batch norm after the stem: 25,549,352 parameters",
    },
    None,
)
for _depth, _figures in (
    (41, (25_351_080, 3_472_621_568)),
    (32, (14_261_928, 2_817_523_712)),
    (26, (14_915_496, 2_278_031_360)),
):
    _register(
        f"sss-resnet-{_depth}",
        PRUNED[_depth],
        _figures,
        "Scratch-B of 117, 145, 179 epochs for 41, 32, 26 (Liu et al. 2019), the ratios of multiply-adds",
        {"ResNet-32 on CIFAR": "resnet32: 464,154 parameters"} if _depth == 32 else {},
        "sss-resnet-50",
    )
