"""The blocks of residual networks, shared by the CIFAR and the ImageNet families."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SubsampleAndPad(nn.Module):
    """Shortcut of option A: every second pixel, zero channels on both sides; no parameters."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, outputs, H / 2, W / 2)."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class ChannelSampler(nn.Module):
    """Select ``kept`` channels; which ones is part of the weights (at first the leading ones)."""

    index: Tensor

    def __init__(self, kept: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(kept))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, kept, H, W)."""
        return x.index_select(1, self.index)


def projection(inputs: int, outputs: int, stride: int, *, bias: bool = False) -> nn.Sequential:
    """Shortcut of option B: 1 x 1 convolution and batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=bias),
        nn.BatchNorm2d(outputs),
    )


class BasicBlock(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN plus the shortcut, then ReLU; ``inner`` channels between the two."""

    def __init__(
        self, inputs: int, inner: int, outputs: int, *, stride: int = 1, shortcut: nn.Module | None = None
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


class Bottleneck(nn.Module):
    """conv1x1-BN-ReLU-conv3x3-BN-ReLU-conv1x1-BN plus the shortcut, then ReLU.

    ``inner`` is the output of the first and of the second convolution. ``stride_in`` names the convolution
    that carries the stride: ``1x1`` in the original network, ``3x3`` in torchvision's (v1.5). With
    ``sampled``, the branch sees that many channels of its input.
    """

    def __init__(
        self,
        inputs: int,
        inner: tuple[int, int],
        outputs: int,
        *,
        stride: int = 1,
        stride_in: Literal["1x1", "3x3"] = "3x3",
        shortcut: nn.Module | None = None,
        sampled: int | None = None,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.sampler = None if sampled is None else ChannelSampler(sampled)
        self.conv1 = nn.Conv2d(sampled or inputs, inner[0], 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(inner[0])
        self.conv2 = nn.Conv2d(inner[0], inner[1], 3, stride=second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner[1])
        self.conv3 = nn.Conv2d(inner[1], outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = x if self.sampler is None else self.sampler(x)
        y = F.relu(self.bn1(self.conv1(y)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))
