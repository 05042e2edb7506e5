"""A small convolutional network for scikit-learn's 8 x 8 digits."""

from __future__ import annotations

from torch import Tensor, nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register
from shrinkbench.models.initialise import kaiming_normal


class DigitsCNN(nn.Module):
    """Two stages of two 3 x 3 convolutions (32 and 64 channels), global average pool, linear."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(1, 32), *_conv(32, 32), nn.MaxPool2d(2), *_conv(32, 64), *_conv(64, 64)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, num_classes)
        kaiming_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 1, 8, 8)."""
        logits: Tensor = self.linear(self.pool(self.features(x)).flatten(1))
        return logits


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


register(
    ModelCard(
        name="digits-cnn",
        family="digits",
        definition=(
            "conv3x3 32, conv3x3 32, max pool 2, conv3x3 64, conv3x3 64 (each without bias, then batch norm "
            "and ReLU), global average pool, linear; Kaiming-normal convolutions (fan out)"
        ),
        reference="shrinkbench",
        input_shape=(1, 8, 8),
        num_classes=10,
        parameters=65_834,
        multiply_adds=1_493_632,
        agrees_with="no publication: this network belongs to this library; counted by hand in docs/models.md",
        build=DigitsCNN,
        weights_note=NO_PUBLIC_WEIGHTS,
    )
)
