"""Small networks with every kind of layer that pruning meets."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.pruning.conformance import ConvNet, ViT, batches, largest_unit, seeded

__all__ = ["ConvNet", "Odd", "ViT", "as_drawn", "batches", "largest_unit", "seeded"]


def as_drawn(make):
    """A network with its initial weights of seed 0, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


class Odd(nn.Module):
    """A reused module, tied weights and a frozen parameter; 8 x 8 images, 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.tied = nn.Conv2d(8, 8, 3, padding=1)
        self.tied.weight = self.again.weight
        self.frozen = nn.Conv2d(8, 8, 1)
        self.frozen.weight.requires_grad_(False)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.relu(self.again(x))
        x = F.relu(self.again(x))
        x = F.relu(self.tied(x))
        return self.fc(F.relu(self.frozen(x)).mean((2, 3)))
