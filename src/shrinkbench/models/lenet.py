"""The LeNets of MNIST: three networks that papers call by one name."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register


class LeNet300100(nn.Module):
    """784-300-100 with ReLU."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, num_classes)
        for layer in (self.fc1, self.fc2, self.fc3):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 1, 28, 28)."""
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


class LeNet5(nn.Module):
    """The modern reading of LeCun et al. 1998: ReLU, max pooling, full connections."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 1, 28, 28)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


class LeNet5Caffe(nn.Module):
    """Caffe's example network: 20 and 50 filters, a ReLU after the hidden linear layer alone."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.ip1 = nn.Linear(800, 500)
        self.ip2 = nn.Linear(500, num_classes)
        for layer in (self.conv1, self.conv2, self.ip1, self.ip2):
            # Caffe's "xavier" filler looks at the fan-in alone: variance 1 / fan-in, uniform.
            bound = (3.0 / layer.weight[0].numel()) ** 0.5
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 1, 28, 28)."""
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        logits: Tensor = self.ip2(F.relu(self.ip1(x.flatten(1))))
        return logits


register(
    ModelCard(
        name="lenet-300-100",
        family="lenet",
        definition="linear 784-300-100-classes with ReLU; Glorot-normal weights, zero biases",
        reference="lecun1998gradient",
        input_shape=(1, 28, 28),
        num_classes=10,
        parameters=266_610,
        multiply_adds=266_200,
        agrees_with="267K parameters (Han et al. 2015, Table 1)",
        build=LeNet300100,
        namesakes={"fc300-100": "the same network under another name"},
        weights_note=NO_PUBLIC_WEIGHTS,
    )
)
register(
    ModelCard(
        name="lenet5",
        family="lenet",
        definition=(
            "conv5x5 6 (padding 2), max pool 2, conv5x5 16, max pool 2, linear 400-120-84-classes, ReLU after "
            "every layer but the last; PyTorch's default initialisation"
        ),
        reference="lecun1998gradient",
        input_shape=(1, 28, 28),
        num_classes=10,
        parameters=61_706,
        multiply_adds=416_520,
        agrees_with="hand count: (25+1)6 + (150+1)16 + 401*120 + 121*84 + 85*10 parameters",
        build=LeNet5,
        namesakes={
            "LeNet-5 of LeCun et al. 1998": (
                "32x32 input, trainable subsampling, sparse C3, RBF output: 60,000 trainable parameters"
            ),
            "lenet5-caffe": "20 and 50 filters and one hidden layer of 500: 431,080 parameters",
            "ShrinkBench's LeNet": "3x3 kernels: 60,074 parameters",
        },
        weights_note=NO_PUBLIC_WEIGHTS,
    )
)
register(
    ModelCard(
        name="lenet5-caffe",
        family="lenet",
        definition=(
            "conv5x5 20, max pool 2, conv5x5 50, max pool 2, linear 800-500, ReLU, linear 500-classes; Caffe's "
            "xavier initialisation (uniform, variance 1 / fan-in), zero biases"
        ),
        reference="jia2014caffe",
        input_shape=(1, 28, 28),
        num_classes=10,
        parameters=431_080,
        multiply_adds=2_293_000,
        agrees_with="431K parameters (Han et al. 2015, Table 1, as LeNet-5)",
        build=LeNet5Caffe,
        namesakes={
            "lenet5": "6 and 16 filters, three linear layers: 61,706 parameters",
            "ShrinkBench's MnistNet": "the same shapes with a ReLU after both convolutions and a log-softmax",
            "a LeNet-5 with an '800-unit layer'": (
                "800 is the number of flattened features; a hidden layer of 800 would give 674,380 parameters"
            ),
        },
        weights_note=NO_PUBLIC_WEIGHTS,
    )
)
