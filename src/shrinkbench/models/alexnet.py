"""AlexNet and CaffeNet: four networks that papers merge under one name."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from shrinkbench.models.card import ModelCard, register


class AlexNet(nn.Module):
    """Five convolutions and three linear layers with local response normalisation.

    ``order`` says what follows the ReLU of the first two convolutions: ``norm-pool`` as Krizhevsky et al.
    2012 have it, ``pool-norm`` as CaffeNet. With ``groups`` = 2, the second, fourth and fifth convolution see
    half of their input each, as on the two cards of the original.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        order: Literal["norm-pool", "pool-norm"],
        groups: int = 2,
        offset: float = 2.0,
    ) -> None:
        super().__init__()
        # The paper's alpha is per element of the sum; PyTorch and Caffe divide theirs by the window.
        alpha = 5 * 1e-4 if order == "norm-pool" else 1e-4

        def shrink() -> tuple[nn.Module, nn.Module]:
            norm = nn.LocalResponseNorm(5, alpha=alpha, beta=0.75, k=offset)
            pool = nn.MaxPool2d(3, stride=2)
            return (norm, pool) if order == "norm-pool" else (pool, norm)

        self.features = nn.Sequential(
            *(nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(inplace=True), *shrink()),
            *(nn.Conv2d(96, 256, 5, padding=2, groups=groups), nn.ReLU(inplace=True), *shrink()),
            *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(384, 384, 3, padding=1, groups=groups), nn.ReLU(inplace=True)),
            *(nn.Conv2d(384, 256, 3, padding=1, groups=groups), nn.ReLU(inplace=True)),
            nn.MaxPool2d(3, stride=2),
        )
        self.classifier = nn.Sequential(
            *(nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
            *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
            nn.Linear(4096, num_classes),
        )
        self._initialise(hidden_std=0.01 if order == "norm-pool" else 0.005)

    def _initialise(self, *, hidden_std: float) -> None:
        layers = [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for number, layer in enumerate(layers, start=1):
            nn.init.normal_(layer.weight, 0.0, hidden_std if number in (6, 7) else 0.01)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 1.0 if number in (2, 4, 5, 6, 7) else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 3, 227, 227)."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def _alexnet_2012(num_classes: int) -> nn.Module:
    return AlexNet(num_classes, order="norm-pool")


def _alexnet_ungrouped(num_classes: int) -> nn.Module:
    return AlexNet(num_classes, order="norm-pool", groups=1)


def _caffenet(num_classes: int) -> nn.Module:
    return AlexNet(num_classes, order="pool-norm", offset=1.0)


_NAMESAKES = {
    "alexnet-2012": "two groups, normalisation before pooling; 60,965,224 parameters",
    "caffenet": "two groups, pooling before normalisation; 60,965,224 parameters",
    "alexnet-ungrouped": "no groups; 62,378,344 parameters",
    "torchvision/alexnet": (
        "64-192-384-256-256 filters, no groups, no normalisation ('one weird trick'); 61,100,840 parameters"
    ),
}
_CAFFE_ONLY = (
    "public weights exist as Caffe models alone ({}), which this library does not read: "
    "convert them to a state dict and pass the file, or train"
)
_BODY = (
    "max pool 3/2, conv5x5 256{0} (padding 2), ReLU, {1}, conv3x3 384, conv3x3 384{0}, conv3x3 256{0}, ReLU "
    "after each, max pool 3/2, linear 9216-4096-4096-classes with ReLU and dropout 0.5"
)


def _others(name: str) -> dict[str, str]:
    return {k: v for k, v in _NAMESAKES.items() if k != name}


register(
    ModelCard(
        name="alexnet-2012",
        family="alexnet",
        definition=(
            "227x227 input, conv11x11 96 stride 4, ReLU, local response normalisation (n 5, k 2, alpha 1e-4, "
            "beta 0.75), "
            + _BODY.format(" in 2 groups", "normalisation, max pool 3/2")
            + "; N(0, 0.01^2) weights, biases 1 in layers 2, 4, 5, 6, 7 and 0 elsewhere"
        ),
        reference="krizhevsky2012imagenet",
        input_shape=(3, 227, 227),
        num_classes=1000,
        parameters=60_965_224,
        multiply_adds=724_406_816,
        agrees_with="60M parameters (Krizhevsky et al. 2012); the 724M that later papers print",
        build=_alexnet_2012,
        namesakes=_others("alexnet-2012"),
        weights_note=_CAFFE_ONLY.format("bvlc_alexnet"),
    )
)
register(
    ModelCard(
        name="caffenet",
        family="alexnet",
        definition=(
            "227x227 input, conv11x11 96 stride 4, ReLU, max pool 3/2, local response normalisation (n 5, k 1, "
            "alpha 1e-4 / 5, beta 0.75), "
            + _BODY.format(" in 2 groups", "max pool 3/2, normalisation").removeprefix("max pool 3/2, ")
            + "; N(0, 0.01^2) weights (0.005 in the hidden linear layers), biases 1 in layers 2, 4, 5, 6, 7"
        ),
        reference="jia2014caffe",
        input_shape=(3, 227, 227),
        num_classes=1000,
        parameters=60_965_224,
        multiply_adds=724_406_816,
        agrees_with="the counts of AlexNet 2012, whose shapes it has",
        build=_caffenet,
        namesakes=_others("caffenet"),
        weights_note=_CAFFE_ONLY.format("bvlc_reference_caffenet"),
    )
)
register(
    ModelCard(
        name="alexnet-ungrouped",
        family="alexnet",
        definition=(
            "alexnet-2012 without groups: 227x227 input, conv11x11 96 stride 4, ReLU, local response "
            "normalisation, " + _BODY.format("", "normalisation, max pool 3/2")
        ),
        reference="krizhevsky2012imagenet",
        input_shape=(3, 227, 227),
        num_classes=1000,
        parameters=62_378_344,
        multiply_adds=1_135_256_096,
        agrees_with="the 62.4M parameters that papers without groups print",
        build=_alexnet_ungrouped,
        namesakes=_others("alexnet-ungrouped"),
        weights_note="no public weights are known: train them or pass a file",
    )
)
