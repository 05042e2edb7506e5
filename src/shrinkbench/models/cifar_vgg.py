"""The networks that papers call VGG on CIFAR, told apart."""

from __future__ import annotations

from torch import Tensor, nn

from shrinkbench.models.card import MODELS, ModelCard

_STAGES_16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


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
        for stage, widths in enumerate(_STAGES_16):
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


MODELS.add(
    "cifar-vgg",
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
    ),
)
