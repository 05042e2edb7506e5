"""Small networks with every kind of layer that pruning meets."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.pruning import PruneContext, prunable_names


class ConvNet(nn.Module):
    """Dense, grouped and depthwise convolutions, batch norm, a residual sum; 8 x 8 images, 4 classes."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.grouped = nn.Conv2d(width, width, 3, padding=1, groups=4)
        self.norm2 = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.norm4 = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.stem(x)))
        y = F.relu(self.norm2(self.grouped(x)))
        y = F.relu(self.norm3(self.depthwise(y)))
        x = F.relu(self.norm4(self.pointwise(y)) + x)
        return self.fc(self.drop(x.mean((2, 3))))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]  # a tuple output
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Two encoder blocks on 4 tokens; 8 x 8 images, 4 classes."""

    def __init__(self, width: int = 16, heads: int = 4, hidden: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 4, width))
        self.blocks = nn.Sequential(Block(width, heads, hidden), Block(width, heads, hidden))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


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


def seeded(make, seed: int = 0) -> nn.Module:
    """A network with weights from ``seed`` and batch-norm statistics that are not the initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.3, 0.3)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
                nn.init.uniform_(layer.weight, 0.2, 1.2)
                nn.init.uniform_(layer.bias, -0.2, 0.4)
    return module


def largest_unit(method, module: nn.Module, shape: tuple[int, ...] = (3, 8, 8)) -> int:
    """Weights in the largest unit of the method's structure (1 for single weights)."""
    ctx = PruneContext(module, prunable_names(module, input_shape=shape), input_shape=shape)
    groups = method.structure.group(ctx, ctx.weights).units.values()
    return max(int(u.size.max()) if isinstance(u.size, Tensor) else u.size for u in groups)


def batches(count: int = 2, size: int = 8, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 3, 8, 8, generator=generator),
            torch.randint(0, 4, (size,), generator=generator),
        )
        for _ in range(count)
    ]
