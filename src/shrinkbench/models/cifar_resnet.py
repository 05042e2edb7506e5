"""The CIFAR residual networks of He et al. (2016): depth 6n + 2, widths 16, 32, 64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, WeightsEntry, register
from shrinkbench.models.chenyaofo import chenyaofo_weights
from shrinkbench.models.initialise import kaiming_normal
from shrinkbench.models.residual import BasicBlock, SubsampleAndPad, projection
from shrinkbench.spec import IMAGENET_NORMALISATION

WIDTHS = (16, 32, 64)

Widths = Sequence[Sequence[int]]


class CifarResNet(nn.Module):
    """Stem of 16, three stages of basic blocks, global average pool, linear.

    ``inner[s][b]`` is the number of channels between the two convolutions of block ``b`` in stage ``s``: the
    stage's width in the full network, fewer after filter pruning. Shortcut ``A`` subsamples and pads with
    zero channels; ``B`` is a 1 x 1 convolution with batch norm at the two changes of width. ``widths`` are
    those of the stages. Parameter names are those of the public checkpoints of either kind.
    """

    def __init__(
        self,
        inner: Widths,
        num_classes: int,
        *,
        shortcut: Literal["A", "B"],
        widths: Sequence[int] = WIDTHS,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0], inner[0], shortcut)
        self.layer2 = _stage(widths[0], widths[1], inner[1], shortcut)
        self.layer3 = _stage(widths[1], widths[2], inner[2], shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        # The public checkpoints of the two kinds name this layer differently.
        self.classifier_name = "linear" if shortcut == "A" else "fc"
        self.add_module(self.classifier_name, nn.Linear(widths[2], num_classes))
        kaiming_normal(self, mode="fan_in" if shortcut == "A" else "fan_out", linear=shortcut == "A")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 3, 32, 32)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.get_submodule(self.classifier_name)(self.pool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, inner: Sequence[int], option: Literal["A", "B"]) -> nn.Sequential:
    """One stage; it halves the image where it widens."""
    blocks: list[nn.Module] = []
    for position, width in enumerate(inner):
        if position or inputs == outputs:
            blocks.append(BasicBlock(outputs, width, outputs))
            continue
        shortcut: nn.Module
        shortcut = SubsampleAndPad(inputs, outputs) if option == "A" else projection(inputs, outputs, 2)
        blocks.append(BasicBlock(inputs, width, outputs, stride=2, shortcut=shortcut))
    return nn.Sequential(*blocks)


def full_widths(depth: int, widths: Sequence[int] = WIDTHS) -> tuple[tuple[int, ...], ...]:
    """Inner widths of the unpruned network of ``depth`` = 6n + 2 layers.

    >>> full_widths(20)
    ((16, 16, 16), (32, 32, 32), (64, 64, 64))
    """
    blocks = (depth - 2) // 6
    return tuple((width,) * blocks for width in widths)


# File, SHA-256 as far as it was computed or its name tells, published top-1, top-1 measured on JPEG copies.
_IDELBAYEV: dict[int, tuple[str, str, float, float | None]] = {
    20: (
        "resnet20-12fca82f.th",
        "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        0.9173,
        0.8103,
    ),
    32: ("resnet32-d509ac18.th", "d509ac18", 0.9263, None),
    44: ("resnet44-014dd654.th", "014dd654", 0.9310, None),
    56: (
        "resnet56-4bfd9763.th",
        "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        0.9339,
        0.8320,
    ),
    110: ("resnet110-1d1ed7c2.th", "1d1ed7c2", 0.9368, None),
    1202: ("resnet1202-f3b1deed.th", "f3b1deed", 0.9382, None),
}
JPEG_COPY = "cifar10 test split, 10,000 images recompressed as JPEG"


def _idelbayev_weights(depth: int) -> WeightsEntry:
    file, sha256, top1, measured = _IDELBAYEV[depth]
    return WeightsEntry(
        name=file.removesuffix(".th"),
        dataset="cifar10",
        source="https://github.com/akamaster/pytorch_resnet_cifar10",
        licence="BSD-2-Clause",
        normalisation=IMAGENET_NORMALISATION,
        sha256=sha256,
        url=f"https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/{file}",
        published_top1=top1,
        measured_top1={} if measured is None else {JPEG_COPY: measured},
        note=(
            "trained with ImageNet's mean and standard deviation, best epoch chosen on the test split; "
            "ShrinkBench's files are the same byte by byte, but it evaluates with CIFAR-10's normalisation; "
            "the published accuracy is on the original images, a JPEG copy of them costs about ten points"
        ),
    )


def _register_option_a(depth: int, parameters: int, multiply_adds: int, agrees_with: str) -> None:
    def build(num_classes: int) -> nn.Module:
        return CifarResNet(full_widths(depth), num_classes, shortcut="A")

    projected = f"resnet{depth}-projection" if depth in _OPTION_B else f"the option-B ResNet-{depth}"
    register(
        ModelCard(
            name=f"resnet{depth}",
            family="cifar_resnet",
            definition=(
                f"CIFAR ResNet-{depth}: conv3x3 16, three stages of {(depth - 2) // 6} basic blocks with "
                "16, 32, 64 channels, option-A shortcuts (subsample, zero channels on both sides), global "
                "average pool, linear; Kaiming-normal weights (fan in)"
            ),
            reference="he2016deep",
            input_shape=(3, 32, 32),
            num_classes=10,
            parameters=parameters,
            multiply_adds=multiply_adds,
            agrees_with=agrees_with,
            build=build,
            namesakes={
                projected: "1x1 projections with batch norm (option B): 2,752 parameters more",
                "Liu et al.'s and He et al.'s (SFP) code": (
                    "the zero channels are all appended at the end, after average pooling: the same counts, "
                    "other results, and the former passes no gradient through those shortcuts"
                ),
            },
            weights=(_idelbayev_weights(depth),),
        )
    )


# Depth: parameters, multiply-adds.
_OPTION_B = {
    20: (272_474, 40_813_184),
    32: (466_906, 69_124_736),
    44: (661_338, 97_436_288),
    56: (855_770, 125_747_840),
    110: (1_730_714, 253_149_824),
}


def _option_b_card(name: str, depth: int, figures: tuple[int, int], agrees_with: str) -> ModelCard:
    def build(num_classes: int) -> nn.Module:
        return CifarResNet(full_widths(depth), num_classes, shortcut="B")

    weights = chenyaofo_weights(f"resnet{depth}")
    return ModelCard(
        name=name,
        family="cifar_resnet",
        definition=(
            f"CIFAR ResNet-{depth} with option-B shortcuts: conv3x3 16, three stages of {(depth - 2) // 6} "
            "basic blocks with 16, 32, 64 channels, 1x1 convolution and batch norm where the width changes, "
            "global average pool, linear; Kaiming-normal convolutions (fan out)"
        ),
        reference="he2016deep",
        input_shape=(3, 32, 32),
        num_classes=10,
        parameters=figures[0],
        multiply_adds=figures[1],
        agrees_with=agrees_with,
        build=build,
        namesakes={f"resnet{depth}": "shortcuts without parameters (option A): 2,752 parameters fewer"},
        weights=weights,
        weights_note="" if weights else NO_PUBLIC_WEIGHTS,
    )


_register_option_a(20, 269_722, 40_551_040, "0.27M parameters (He et al. 2016, Table 6)")
_register_option_a(32, 464_154, 68_862_592, "0.46M parameters (He et al. 2016, Table 6)")
_register_option_a(44, 658_586, 97_174_144, "0.66M parameters (He et al. 2016, Table 6)")
_register_option_a(56, 853_018, 125_485_696, "8.5e5 parameters and 1.25e8 FLOP (Li et al. 2017, Table 1)")
_register_option_a(110, 1_727_962, 252_887_680, "1.72e6 parameters and 2.53e8 FLOP (Li et al. 2017, Table 1)")
_register_option_a(1202, 19_421_274, 2_829_238_912, "19.4M parameters (He et al. 2016, Table 6)")
for _depth, _figures in _OPTION_B.items():
    _published = (
        "the hub's table: parameters to 0.01M and 40.81, 69.12, 97.44, 125.75M multiply-adds"
        if _depth <= 56
        else "no published figure: the sum of the option-A count and of the two projections"
    )
    register(_option_b_card(f"resnet{_depth}-projection", _depth, _figures, _published))
register(
    _option_b_card(
        "cifar-resnet50",
        50,
        (758_554, 111_592_064),
        "the network behind 'ResNet-50' in Tables 8-9 of Liu et al. 2019 by its code; the text gives no count",
    )
)
