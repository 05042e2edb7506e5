"""The CIFAR residual networks of He et al. (2016): depth 6n + 2, widths 16, 32, 64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.models.card import MODELS, ModelCard, WeightsEntry
from shrinkbench.models.initialise import kaiming_normal
from shrinkbench.spec import IMAGENET_NORMALISATION

WIDTHS = (16, 32, 64)


class SubsampleAndPad(nn.Module):
    """Shortcut of option A: every second pixel, zero channels on both sides; no parameters."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, outputs, H / 2, W / 2)."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN plus the shortcut, then ReLU; ``inner`` channels between the two."""

    def __init__(
        self, inputs: int, inner: int, outputs: int, stride: int, shortcut: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class CifarResNet(nn.Module):
    """Stem of 16, three stages of basic blocks, global average pool, linear.

    ``inner[s][b]`` is the number of channels between the two convolutions of block ``b`` in stage ``s``: the
    stage's width in the full network, fewer after filter pruning. Shortcut ``A`` subsamples and pads with
    zero channels; ``B`` is a 1 x 1 convolution with batch norm at the two changes of width. Parameter names
    are those of the public checkpoints of either kind.
    """

    def __init__(
        self, inner: Sequence[Sequence[int]], num_classes: int, *, shortcut: Literal["A", "B"]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], inner[0], shortcut)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], inner[1], shortcut)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], inner[2], shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        # The public checkpoints of the two kinds name this layer differently.
        self.classifier_name = "linear" if shortcut == "A" else "fc"
        self.add_module(self.classifier_name, nn.Linear(WIDTHS[2], num_classes))
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
        changes = position == 0 and inputs != outputs
        shortcut = _shortcut(inputs, outputs, option) if changes else None
        blocks.append(BasicBlock(inputs if position == 0 else outputs, width, outputs, 1 + changes, shortcut))
    return nn.Sequential(*blocks)


def _shortcut(inputs: int, outputs: int, option: Literal["A", "B"]) -> nn.Module:
    if option == "A":
        return SubsampleAndPad(inputs, outputs)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))


def full_widths(depth: int) -> tuple[tuple[int, ...], ...]:
    """Inner widths of the unpruned network of ``depth`` = 6n + 2 layers.

    >>> full_widths(20)
    ((16, 16, 16), (32, 32, 32), (64, 64, 64))
    """
    blocks = (depth - 2) // 6
    return tuple((width,) * blocks for width in WIDTHS)


# File name: (SHA-256 as far as it is published or was computed, published top-1, measured top-1).
_IDELBAYEV = {
    20: ("resnet20-12fca82f.th", "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8", 0.9173),
    32: ("resnet32-d509ac18.th", "d509ac18", 0.9263),
    44: ("resnet44-014dd654.th", "014dd654", 0.9310),
    56: ("resnet56-4bfd9763.th", "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367", 0.9339),
    110: ("resnet110-1d1ed7c2.th", "1d1ed7c2", 0.9368),
}


def _idelbayev_weights(depth: int) -> WeightsEntry:
    file, sha256, top1 = _IDELBAYEV[depth]
    return WeightsEntry(
        name=file.removesuffix(".th"),
        dataset="cifar10",
        source="https://github.com/akamaster/pytorch_resnet_cifar10",
        licence="BSD-2-Clause",
        normalisation=IMAGENET_NORMALISATION,
        sha256=sha256,
        url=f"https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/{file}",
        published_top1=top1,
        note=(
            "trained with ImageNet's mean and standard deviation, best epoch chosen on the test split; "
            "ShrinkBench's files are the same byte by byte, but it evaluates with CIFAR-10's normalisation"
        ),
    )


def _register(depth: int, parameters: int, multiply_adds: int, agrees_with: str) -> None:
    def build(num_classes: int) -> nn.Module:
        return CifarResNet(full_widths(depth), num_classes, shortcut="A")

    MODELS.add(
        f"resnet{depth}",
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
            weights=(_idelbayev_weights(depth),),
        ),
    )


_register(20, 269_722, 40_551_040, "0.27M parameters (He et al. 2016, Table 6)")
_register(32, 464_154, 68_862_592, "0.46M parameters (He et al. 2016, Table 6)")
_register(44, 658_586, 97_174_144, "0.66M parameters (He et al. 2016, Table 6)")
_register(56, 853_018, 125_485_696, "8.5e5 parameters and 1.25e8 FLOP (Li et al. 2017, Table 1)")
_register(110, 1_727_962, 252_887_680, "1.72e6 parameters and 2.53e8 FLOP (Li et al. 2017, Table 1)")
