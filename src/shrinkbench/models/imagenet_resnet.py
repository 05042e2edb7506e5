"""ImageNet residual networks that torchvision does not have: original strides, option A, CIFAR stems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register
from shrinkbench.models.initialise import kaiming_normal
from shrinkbench.models.residual import BasicBlock, Bottleneck, SubsampleAndPad, projection

WIDTHS = (64, 128, 256, 512)
StrideIn = Literal["1x1", "3x3"]


class ImageNetResNet(nn.Module):
    """Stem, four stages, global average pool, linear; parameter names are torchvision's.

    Stem ``7x7`` is the ImageNet one (stride 2, then max pool); ``3x3`` keeps the size of a CIFAR image.
    """

    def __init__(
        self, stages: Sequence[nn.Module], width: int, num_classes: int, *, stem: Literal["7x7", "3x3"]
    ) -> None:
        super().__init__()
        large = stem == "7x7"
        self.conv1 = nn.Conv2d(
            3, 64, 7 if large else 3, stride=2 if large else 1, padding=3 if large else 1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)
        kaiming_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 3, H, W)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def basic_resnet(
    inner: Sequence[Sequence[int]],
    num_classes: int,
    *,
    shortcut: Literal["A", "projection"],
    stem: Literal["7x7", "3x3"] = "7x7",
) -> nn.Module:
    """Network of basic blocks; ``inner[s][b]`` is the width between the two convolutions of a block."""
    stages: list[nn.Module] = []
    inputs = WIDTHS[0]
    for stage, (width, widths) in enumerate(zip(WIDTHS, inner, strict=True)):
        blocks: list[nn.Module] = []
        for position, middle in enumerate(widths):
            if stage and not position:
                change: nn.Module
                change = SubsampleAndPad(inputs, width) if shortcut == "A" else projection(inputs, width, 2)
                blocks.append(BasicBlock(inputs, middle, width, stride=2, shortcut=change))
            else:
                blocks.append(BasicBlock(width, middle, width))
        stages.append(nn.Sequential(*blocks))
        inputs = width
    return ImageNetResNet(stages, inputs, num_classes, stem=stem)


def bottleneck_resnet(
    inner: Sequence[Sequence[tuple[int, int]]],
    num_classes: int,
    *,
    stride_in: StrideIn,
    sampled: Sequence[Sequence[int | None]] | None = None,
    projection_bias: bool = False,
    stem: Literal["7x7", "3x3"] = "7x7",
) -> nn.Module:
    """Network of bottlenecks; ``inner[s][b]`` holds the outputs of the first two convolutions of a block.

    ``sampled[s][b]`` is the number of input channels that the branch sees (``None``: all);
    ``projection_bias`` adds biases to the projections, as some released code does.
    """
    stages: list[nn.Module] = []
    inputs = WIDTHS[0]
    for stage, (width, widths) in enumerate(zip(WIDTHS, inner, strict=True)):
        outputs = 4 * width
        blocks: list[nn.Module] = []
        for position, middle in enumerate(widths):
            stride = 2 if stage and not position else 1
            change = None if position else projection(inputs, outputs, stride, bias=projection_bias)
            seen = None if sampled is None else sampled[stage][position]
            blocks.append(
                Bottleneck(
                    *(inputs, middle, outputs),
                    stride=stride,
                    stride_in=stride_in,
                    shortcut=change,
                    sampled=seen,
                )
            )
            inputs = outputs
        stages.append(nn.Sequential(*blocks))
    return ImageNetResNet(stages, inputs, num_classes, stem=stem)


def full_bottlenecks(blocks: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Inner widths of an unpruned network with ``blocks`` bottlenecks by stage."""
    return [[(width, width)] * count for width, count in zip(WIDTHS, blocks, strict=True)]


def full_basics(blocks: Sequence[int]) -> list[list[int]]:
    """Inner widths of an unpruned network with ``blocks`` basic blocks by stage."""
    return [[width] * count for width, count in zip(WIDTHS, blocks, strict=True)]


DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def _register(
    name: str,
    definition: str,
    build: Callable[[int], nn.Module],
    figures: tuple[int, int],
    agrees_with: str,
    namesakes: dict[str, str],
    *,
    cifar: bool = False,
    weights_note: str = NO_PUBLIC_WEIGHTS,
) -> None:
    register(
        ModelCard(
            name=name,
            family="imagenet_resnet",
            definition=definition,
            reference="he2016deep",
            input_shape=(3, 32, 32) if cifar else (3, 224, 224),
            num_classes=10 if cifar else 1000,
            parameters=figures[0],
            multiply_adds=figures[1],
            agrees_with=agrees_with,
            build=build,
            namesakes=namesakes,
            weights_note=weights_note,
        )
    )


def _v1(depth: int) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        return bottleneck_resnet(full_bottlenecks(DEPTHS[depth]), num_classes, stride_in="1x1")

    return build


def _option_a(depth: int) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        return basic_resnet(full_basics(DEPTHS[depth]), num_classes, shortcut="A")

    return build


def _cifar_resnet18(num_classes: int) -> nn.Module:
    return basic_resnet(full_basics(DEPTHS[18]), num_classes, shortcut="projection", stem="3x3")


def _cifar_resnet50_wide(num_classes: int) -> nn.Module:
    return bottleneck_resnet(full_bottlenecks(DEPTHS[50]), num_classes, stride_in="3x3", stem="3x3")


_V1 = (
    "ResNet-{0} v1: 7x7/2 stem of 64, max pool, {1} bottlenecks at 64, 128, 256, 512 (times 4), stride 2 in "
    "the first 1x1 convolution and in the projection of stages 2 to 4, global average pool, linear; "
    "N(0, 2 / fan out) convolutions"
)
_V1_WEIGHTS = "Caffe and Keras publish weights in their own formats; torchvision's are for the v1.5 strides"
_register(
    "resnet50-v1",
    _V1.format(50, "3-4-6-3"),
    _v1(50),
    (25_557_032, 3_857_973_248),
    "3.8e9 FLOP (He et al. 2016, Table 1); 7.72e9 at two per multiply-add (Luo et al. 2017)",
    {
        "torchvision/resnet50": "stride in the 3x3 convolution (v1.5): 4,089,184,256 multiply-adds",
        "sss-resnet-50": "pre-activation: 25,549,480 parameters",
        "cifar-resnet50": "a CIFAR network of depth 6n + 2: 758,554 parameters",
    },
    weights_note=_V1_WEIGHTS,
)
_register(
    "resnet101-v1",
    _V1.format(101, "3-4-23-3"),
    _v1(101),
    (44_549_160, 7_570_194_432),
    "7.6e9 FLOP (He et al. 2016, Table 1)",
    {"torchvision/resnet101": "stride in the 3x3 convolution (v1.5): 7,801,405,440 multiply-adds"},
    weights_note=_V1_WEIGHTS,
)
_OPTION_A = (
    "ResNet-{0} with option-A shortcuts: 7x7/2 stem of 64, max pool, {1} basic blocks at 64, 128, 256, 512, "
    "shortcuts that subsample and pad with zero channels, global average pool, linear; N(0, 2 / fan out) "
    "convolutions"
)
_register(
    "resnet18-option-a",
    _OPTION_A.format(18, "2-2-2-2"),
    _option_a(18),
    (11_515_688, 1_794_805_760),
    "1.8e9 FLOP (He et al. 2016, Table 1)",
    {"torchvision/resnet18": "1x1 projections with batch norm: 11,689,512 parameters"},
)
_register(
    "resnet34-option-a",
    _OPTION_A.format(34, "3-4-6-3"),
    _option_a(34),
    (21_623_848, 3_644_493_824),
    "2.16e7 parameters and 3.64e9 FLOP (Li et al. 2017, Table 1)",
    {"torchvision/resnet34": "1x1 projections with batch norm: 21,797,672 parameters"},
)
_register(
    "cifar-resnet18",
    "ResNet-18 for CIFAR (kuangliu/pytorch-cifar): 3x3 stem of 64 without max pool, 2-2-2-2 basic blocks at "
    "64, 128, 256, 512, 1x1 projections with batch norm, global average pool, linear; N(0, 2 / fan out) "
    "convolutions",
    _cifar_resnet18,
    (11_173_962, 555_422_720),
    "no published count; kuangliu/pytorch-cifar builds the same shapes",
    {
        "torchvision/resnet18": "ImageNet stem (7x7, stride 2, max pool): 11,181,642 parameters at 10 classes",
        "Resnet-18 of Frankle and Carbin 2019": "the size of resnet20: 271K parameters",
        "resnet20": "the CIFAR network of He et al. 2016: 269,722 parameters",
    },
    cifar=True,
)
_register(
    "cifar-resnet50-wide",
    "ResNet-50 for CIFAR (kuangliu/pytorch-cifar): 3x3 stem of 64 without max pool, 3-4-6-3 bottlenecks at 64, "
    "128, 256, 512 (times 4), stride in the 3x3 convolution, 1x1 projections with batch norm, global average "
    "pool, linear; N(0, 2 / fan out) convolutions",
    _cifar_resnet50_wide,
    (23_520_842, 1_297_829_888),
    "no published count; kuangliu/pytorch-cifar builds the same shapes",
    {
        "cifar-resnet50": "depth 6n + 2, widths 16, 32, 64 (Liu et al. 2019, Tables 8-9): 758,554 parameters",
        "torchvision/resnet50": "the ImageNet network",
    },
    cifar=True,
)
