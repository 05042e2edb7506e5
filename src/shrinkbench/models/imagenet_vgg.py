"""VGG networks for ImageNet that torchvision does not have, and the builder of the pruned ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register
from shrinkbench.models.initialise import batch_norm_gain, kaiming_normal, normal_linear

Widths = Sequence[Sequence[int]]


class ImageNetVGG(nn.Module):
    """conv3x3 stages with biases and 2x2 max pools, and a head.

    ``head`` is ``dense`` (25088-4096-4096 with ReLU and dropout; torchvision's names), ``batch-norm`` (the
    same with batch norm and no dropout) or ``pooled`` (no fifth max pool, mean over the map, one linear layer).
    """

    def __init__(
        self,
        widths: Widths,
        num_classes: int,
        *,
        batch_norm: bool,
        head: Literal["dense", "batch-norm", "pooled"],
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage in widths:
            for width in stage:
                layers.append(nn.Conv2d(inputs, width, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU(inplace=True))
                inputs = width
            layers.append(nn.MaxPool2d(2))
        if head == "pooled":
            layers[-1] = nn.AdaptiveAvgPool2d(1)
        self.features = nn.Sequential(*layers)
        self.classifier = _head(head, inputs, num_classes)
        kaiming_normal(self)
        normal_linear(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 3, 224, 224)."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def _head(kind: Literal["dense", "batch-norm", "pooled"], inputs: int, num_classes: int) -> nn.Module:
    if kind == "pooled":
        return nn.Sequential(nn.Linear(inputs, num_classes))
    if kind == "dense":
        return nn.Sequential(
            *(nn.Linear(inputs * 49, 4096), nn.ReLU(inplace=True), nn.Dropout()),
            *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout()),
            nn.Linear(4096, num_classes),
        )
    return nn.Sequential(
        *(nn.Linear(inputs * 49, 4096), nn.BatchNorm1d(4096), nn.ReLU(inplace=True)),
        *(nn.Linear(4096, 4096), nn.BatchNorm1d(4096), nn.ReLU(inplace=True)),
        nn.Linear(4096, num_classes),
    )


def _pooled_vgg16(num_classes: int) -> nn.Module:
    widths = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    return ImageNetVGG(widths, num_classes, batch_norm=False, head="pooled")


register(
    ModelCard(
        name="vgg16-gap",
        family="imagenet_vgg",
        definition=(
            "VGG-16 without batch norm, its fifth max pool and its hidden linear layers: mean over the 14x14 "
            "map, linear 512-classes; what ThiNet's VGG-GAP and VGG-Tiny are cut from"
        ),
        reference="luo2017thinet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        parameters=15_227_688,
        multiply_adds=15_347_142_656,
        agrees_with=(
            "torchvision's VGG-16: its 14,714,688 parameters of convolutions, and 513,000 of the head; "
            "no count is printed"
        ),
        build=_pooled_vgg16,
        namesakes={"torchvision/vgg16": "the same convolutions, five max pools, three linear layers"},
        weights_note="loads the convolutions of torchvision's VGG-16; the linear layer stays as drawn",
        features_of=("torchvision/vgg16", "features."),
    ),
    aliases=("vgg-16-gap",),
)


def _slimming_vgg11(num_classes: int) -> nn.Module:
    widths = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    module = ImageNetVGG(widths, num_classes, batch_norm=True, head="batch-norm")
    batch_norm_gain(module, 0.5)
    return module


register(
    ModelCard(
        name="vgg11-slimming",
        family="imagenet_vgg",
        definition=(
            "VGG-A+BN without dropout: conv3x3 with bias, batch norm and ReLU at 64, 128, 256x2, 512x2, 512x2, "
            "five max pools, linear 25088-4096-4096-classes with batch norm and ReLU; N(0, 2 / fan out) "
            "convolutions, N(0, 0.01^2) linear layers, batch-norm weights 0.5"
        ),
        reference="liu2017learning",
        input_shape=(3, 224, 224),
        num_classes=1000,
        parameters=132_885_224,
        multiply_adds=7_609_090_048,
        agrees_with=(
            "132.9M parameters (Liu et al. 2017, Table 2); its 4.57e10 FLOP are six per multiply-add, an "
            "undivided batch of three"
        ),
        build=_slimming_vgg11,
        namesakes={
            "torchvision/vgg11_bn": "dropout instead of batch norm in the head: 132,868,840 parameters",
            "torchvision/vgg11": "no batch norm: 132,863,336 parameters",
        },
        weights_note=NO_PUBLIC_WEIGHTS + "; torchvision's VGG-11 weights do not fit this head",
    ),
    aliases=("vgg11-bn-nodrop",),
)
