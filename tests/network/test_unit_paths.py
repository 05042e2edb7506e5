"""Which inputs read which outputs, by hand, and networks in which that cannot be said."""

import pytest
import torch
from sample_networks import Odd, ViT, seeded
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.network.unit_paths import read_paths


def pairs(link):
    """Unit -> units on the other side."""
    return [link.items[s : s + c].tolist() for s, c in zip(link.starts, link.counts, strict=True)]


def test_convolutions_are_flattened_joined_grouped_and_shuffled():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)
            self.norm = nn.BatchNorm2d(4)
            self.grouped = nn.Conv2d(4, 4, 1, groups=2)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            x = torch.relu(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
            x = self.grouped(x[:, [0, 2, 1, 3]])
            return self.head(x.flatten(1))

    module = Joined()
    with torch.no_grad():
        module.norm.weight.fill_(-1.0)  # would hide what passes the ReLU
    layers = read_paths(module, (1, 2, 2))
    left, right = layers["left.weight"].readers[0], layers["right.weight"].readers[0]
    assert pairs(left.reached) == [[0], [2]]
    assert pairs(right.reached) == [[1], [3]]
    assert pairs(left.made) == [[0], [], [1], []]
    head = layers["head.weight"].sources[0]
    assert pairs(head.reached) == [[4 * c, 4 * c + 1, 4 * c + 2, 4 * c + 3] for c in range(4)]
    assert layers["head.weight"].last
    assert not layers["left.weight"].sources
    assert "forward" not in module.left.__dict__


def test_shortcuts_of_a_residual_network_are_followed_through_padding():
    """ResNet-20 pads 8 channels to either side where it widens from 16 to 32."""
    layers = read_paths(build("resnet20", seed=0), (3, 32, 32))
    edges = {edge.reader: edge for edge in layers["layer1.2.conv2.weight"].readers}
    assert pairs(edges["layer2.0.conv1.weight"].reached) == [[c] for c in range(16)]
    assert pairs(edges["layer2.1.conv1.weight"].reached) == [[c + 8] for c in range(16)]
    assert "layer2.0.conv2.weight" not in edges


def test_a_layer_called_by_a_function_is_refused_and_nothing_is_left_behind():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return nn.functional.linear(self.first(x).relu(), self.second.weight)

    module = Bare().train()
    with pytest.raises(ShrinkbenchError, match=r"'second\.weight' is multiplied outside of its layer"):
        read_paths(module, (3,))
    assert module.training
    assert all("forward" not in child.__dict__ for child in module.modules())


@pytest.mark.parametrize(
    ("module", "shape", "reason"),
    [
        (seeded(ViT), (3, 8, 8), "attention"),
        (seeded(Odd), (3, 8, 8), "used several times"),
        (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)), (3,), "not made of one channel"),
        (nn.Sequential(nn.LSTM(3, 4)), (5, 3), "recurrent"),
    ],
)
def test_networks_without_paths_are_refused(module, shape, reason):
    with pytest.raises(ShrinkbenchError, match=reason) as found:
        read_paths(module, shape)
    assert "; choose " in str(found.value)
    assert len(str(found.value)) < 300
