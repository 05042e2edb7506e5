"""The networks that papers call VGG on CIFAR, told apart by biases, pooling and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, WeightsEntry, register
from shrinkbench.models.chenyaofo import chenyaofo_weights
from shrinkbench.models.initialise import batch_norm_gain, kaiming_normal, normal_linear
from shrinkbench.spec import Normalisation

Widths = Sequence[Sequence[int]]

STAGES: dict[int, Widths] = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


class ConvBNReLU(nn.Module):
    """conv3x3 with bias, batch norm (eps 1e-3), ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        y: Tensor = self.relu(self.bn(self.conv(x)))
        return y


class TorchBlogVGG(nn.Module):
    """Zagoruyko's VGG with batch norm and dropout; parameter names are those of ShrinkBench's checkpoints."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage, widths in enumerate(STAGES[16]):
            for position, width in enumerate(widths):
                layers.append(ConvBNReLU(inputs, width))
                inputs = width
                if position < len(widths) - 1:
                    layers.append(nn.Dropout(0.3 if stage == 0 else 0.4))
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(512, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(512, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 3, 32, 32)."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class CifarVGG(nn.Module):
    """conv3x3-BN-ReLU stages, each followed by 2x2 pooling, and a head.

    ``head`` is ``linear`` (one layer), ``hidden`` (512, batch norm, ReLU, then linear) or ``two-hidden``
    (512-512 with ReLU and dropout, then linear). The last stage is pooled by the mean, and by the maximum
    before the two hidden layers.
    """

    def __init__(
        self,
        widths: Widths,
        num_classes: int,
        *,
        bias: bool,
        head: Literal["linear", "hidden", "two-hidden"],
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage in widths:
            for width in stage:
                layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=bias), nn.BatchNorm2d(width)]
                layers.append(nn.ReLU(inplace=True))
                inputs = width
            layers.append(nn.MaxPool2d(2))
        if head != "two-hidden":
            layers[-1] = nn.AvgPool2d(2)
        self.features = nn.Sequential(*layers)
        self.classifier = _head(head, inputs, num_classes)
        normal_linear(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 3, 32, 32)."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def _head(kind: Literal["linear", "hidden", "two-hidden"], inputs: int, num_classes: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(inputs, num_classes)
    if kind == "hidden":
        return nn.Sequential(
            nn.Linear(inputs, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(inplace=True),
            nn.Linear(512, num_classes),
        )
    return nn.Sequential(
        *(nn.Linear(inputs, 512), nn.ReLU(inplace=True), nn.Dropout()),
        *(nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Dropout()),
        nn.Linear(512, num_classes),
    )


def slimming_vgg(widths: Widths, num_classes: int, *, head: Literal["linear", "hidden"]) -> nn.Module:
    """Liu et al.'s networks without biases; batch-norm weights start at 0.5 as network slimming has it."""
    module = CifarVGG(widths, num_classes, bias=False, head=head)
    kaiming_normal(module)
    batch_norm_gain(module, 0.5)
    return module


def _biased_vgg(widths: Widths, num_classes: int) -> nn.Module:
    module = CifarVGG(widths, num_classes, bias=True, head="linear")
    kaiming_normal(module, mode="fan_in")
    return module


def _two_hidden_vgg(widths: Widths, num_classes: int) -> nn.Module:
    module = CifarVGG(widths, num_classes, bias=True, head="two-hidden")
    kaiming_normal(module)
    return module


def _card(
    name: str,
    variant: Literal["linear", "hidden", "bias", "two-hidden"],
    depth: int,
    figures: tuple[int, int],
    agrees_with: str,
    *,
    weights: tuple[WeightsEntry, ...] = (),
) -> ModelCard:
    def build(num_classes: int) -> nn.Module:
        widths = STAGES[depth]
        if variant == "bias":
            return _biased_vgg(widths, num_classes)
        if variant == "two-hidden":
            return _two_hidden_vgg(widths, num_classes)
        return slimming_vgg(widths, num_classes, head=variant)

    return ModelCard(
        name=name,
        family="cifar_vgg",
        definition=f"VGG-{depth} for CIFAR: {depth - 3} conv3x3, batch norm and ReLU, {_DEFINITIONS[variant]}",
        reference="liu2019rethinking" if variant != "two-hidden" else "chenyaofo2021cifar",
        input_shape=(3, 32, 32),
        num_classes=10,
        parameters=figures[0],
        multiply_adds=figures[1],
        agrees_with=agrees_with,
        build=build,
        namesakes={k: v for k, v in NAMESAKES.items() if k != _FAMILY_OF[variant]},
        weights=weights,
        weights_note="" if weights else NO_PUBLIC_WEIGHTS,
    )


_DEFINITIONS = {
    "linear": (
        "no convolution biases, four max pools and one mean pool, one linear layer; N(0, 2 / fan out) "
        "convolutions, batch-norm weights 0.5 (network slimming)"
    ),
    "hidden": (
        "no convolution biases, four max pools and one mean pool, linear 512-512, batch norm, ReLU, linear; "
        "N(0, 2 / fan out) convolutions, batch-norm weights 0.5"
    ),
    "bias": (
        "convolution biases, four max pools and one mean pool, one linear layer; N(0, 2 / fan in) "
        "convolutions, batch-norm weights 1"
    ),
    "two-hidden": (
        "convolution biases, five max pools, linear 512-512-512 with ReLU and dropout 0.5, linear; "
        "N(0, 2 / fan out) convolutions"
    ),
}
_FAMILY_OF = {
    "linear": "cifar-vgg16",
    "hidden": "cifar-vgg16-l1",
    "bias": "cifar-vgg16-bias",
    "two-hidden": "cifar-vgg16-3fc",
    "torch-blog": "cifar-vgg",
}
NAMESAKES = {
    "cifar-vgg": "Torch blog, as ShrinkBench: biases, dropout, one hidden layer of 512; 14,991,946 parameters",
    "cifar-vgg16": "one linear layer, no biases (network slimming, Liu et al.); 14,724,042 parameters",
    "cifar-vgg16-bias": "one linear layer, biases (weight pruning and lottery tickets); 14,728,266 parameters",
    "cifar-vgg16-l1": "one hidden layer of 512, no biases (L1-norm filter pruning); 14,987,722 parameters",
    "cifar-vgg16-3fc": "two hidden layers of 512 (chenyaofo's hub); 15,253,578 parameters",
    "torchvision/vgg16_bn": "the ImageNet network, 224x224, two hidden layers of 4096; 138,365,992 parameters",
}

register(
    ModelCard(
        name="cifar-vgg",
        family="cifar_vgg",
        definition=(
            "Torch-blog VGG: 13 conv3x3 with bias, batch norm (eps 1e-3) and ReLU at 64x2, 128x2, 256x3, "
            "512x3, 512x3, five 2x2 max pools, dropout 0.3 and 0.4 between convolutions, then dropout 0.5, "
            "linear 512-512, batch norm, ReLU, dropout 0.5, linear; PyTorch's default initialisation"
        ),
        reference="zagoruyko2015torchblog",
        input_shape=(3, 32, 32),
        num_classes=10,
        parameters=14_991_946,
        multiply_adds=313_463_808,
        agrees_with="3.13e8 FLOP of Li et al. 2017 (Table 1), whose network differs in biases and dropout",
        build=TorchBlogVGG,
        namesakes={k: v for k, v in NAMESAKES.items() if k != "cifar-vgg"},
        weights=(
            WeightsEntry(
                name="vgg_bn_drop",
                dataset="cifar10",
                source="https://github.com/JJGO/shrinkbench-models",
                licence="none stated",
                normalisation=Normalisation(mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262)),
                git_blob="8f00bd8c980da3aec33974e4abf010716601865e",
                url="https://github.com/JJGO/shrinkbench-models/raw/master/cifar10/vgg_bn_drop.th",
                note=(
                    "the weights of Blalock et al. 2020; how they were trained, and their accuracy, is not "
                    "published; the normalisation is the one that ShrinkBench's code gives CIFAR-10"
                ),
            ),
        ),
    )
)
_UNPUBLISHED = "no published count; built from the same definition as the published depths"
register(_card("cifar-vgg11", "linear", 11, (9_228_362, 152_769_536), _UNPUBLISHED))
register(_card("cifar-vgg13", "linear", 13, (9_413_066, 228_267_008), _UNPUBLISHED))
register(
    _card(
        "cifar-vgg16",
        "linear",
        16,
        (14_724_042, 313_201_664),
        "4,224 batch-norm channels (Liu et al. 2019, Table 7)",
    )
)
register(
    _card(
        "cifar-vgg19",
        "linear",
        19,
        (20_035_018, 398_136_320),
        "20.04M parameters and 7.97e8 FLOP at two per multiply-add (Liu et al. 2017, Table 1)",
    )
)
register(
    _card(
        "cifar-vgg16-l1",
        "hidden",
        16,
        (14_987_722, 313_463_808),
        "1.5e7 parameters and 3.13e8 FLOP (Li et al. 2017, Table 1)",
    )
)
register(_card("cifar-vgg16-bias", "bias", 16, (14_728_266, 313_201_664), _UNPUBLISHED))
register(
    _card(
        "cifar-vgg19-bias",
        "bias",
        19,
        (20_040_522, 398_136_320),
        "20.04M parameters (bearpaw/pytorch-classification, vgg19_bn)",
    )
)
for _depth, _figures, _published in (
    (11, (9_756_426, 153_293_824), "9.76M parameters and 153.29M multiply-adds (the hub's table)"),
    (13, (9_941_322, 228_791_296), "9.94M parameters and 228.79M multiply-adds (the hub's table)"),
    (16, (15_253_578, 313_725_952), "15.25M parameters and 313.73M multiply-adds (the hub's table)"),
    (19, (20_565_834, 398_660_608), "20.57M parameters and 398.66M multiply-adds (the hub's table)"),
):
    register(
        _card(
            f"cifar-vgg{_depth}-3fc",
            "two-hidden",
            _depth,
            _figures,
            _published,
            weights=chenyaofo_weights(f"vgg{_depth}_bn"),
        )
    )
