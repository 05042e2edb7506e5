"""PHEW: which weights walks pass and in which order, by hand; connected paths; networks without paths."""

import pytest
import torch
from sample_networks import ConvNet, Odd, ViT, seeded
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.unit_paths import read_paths
from shrinkbench.pruning import prune
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import SCORES
from shrinkbench.pruning.methods.random_walks import _Draw


def pairs(link):
    """Unit -> units on the other side."""
    return [link.items[s : s + c].tolist() for s, c in zip(link.starts, link.counts, strict=True)]


def test_steps_are_as_probable_as_weights_are_large():
    draw = _Draw.of(torch.tensor([[1.0, 2.0, 0.0, 5.0], [0.0, 0.0, 0.0, 0.0]]), torch.tensor([[True] * 4] * 2))
    chance = (torch.arange(8) + 0.5) / 8
    entries, found = draw(torch.zeros(8, dtype=torch.long), chance.double())
    assert entries.tolist() == [0, 1, 1, 3, 3, 3, 3, 3]
    entries, _ = draw(torch.ones(8, dtype=torch.long), chance.double())
    assert entries.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]  # all zero: equal, as in the authors' code
    assert bool(found.all())


def test_walks_that_have_no_choice_pass_weights_in_this_order():
    """From input 0 to output 1 over the first hidden unit, back from output 0 over the second; zeros last."""
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[0.5, 0.0], [0.0, 2.0]]))
        module[2].weight.copy_(torch.tensor([[0.0, 0.3], [-1.0, 0.0]]))
    ctx = PruneContext(module, ["0.weight", "2.weight"], input_shape=(2,))
    found = SCORES.get("first_passed").function(ctx)
    assert found["0.weight"][0, 0] == 0
    assert found["2.weight"][1, 0] == -1
    assert found["2.weight"][0, 1] == -2
    assert found["0.weight"][1, 1] == -3
    assert bool((found["0.weight"][~torch.eye(2).bool()] < -3).all())


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


def test_what_stays_lies_on_whole_paths():
    """Every hidden channel with a weight in front has one behind it and conversely, but for the last walk's."""
    module = seeded(ConvNet)
    masks = prune(module, "phew", compression=3.0, input_shape=(3, 8, 8), one_shot=True)
    total = sum(p.numel() for p in module.parameters())
    assert abs(total - (masks.total - masks.kept) - total / 3) <= 0.5
    grouped = masks["grouped.weight"]
    behind = masks["depthwise.weight"].flatten(1).any(1)
    assert int((grouped.flatten(1).any(1) != behind).sum()) <= 1
    read = grouped.reshape(4, 4, 4, 9).any(3).any(1).flatten()  # what the blocks read of each of 16 channels
    assert int((read & ~masks["stem.weight"].flatten(1).any(1)).sum()) <= 1
    shallow = prune(module, "phew", compression=2.2, input_shape=(3, 8, 8), one_shot=True)
    assert masks.within(shallow)  # the same walks, of which more are taken
    by_chance = prune(module, "random", compression=3.0, input_shape=(3, 8, 8), one_shot=True)
    assert not masks.equal(by_chance)


def test_biases_are_passed_with_their_units():
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    found = SCORES.get("first_passed").function(PruneContext(module, names, budget=4, input_shape=(3,)))
    torch.testing.assert_close(found["0.bias"], found["0.weight"].amax(1))


def test_nothing_comes_back_and_a_masked_network_is_walked_where_it_is():
    module = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False))
    options = {"input_shape": (4,), "prune_classifier": True, "one_shot": True}
    first = prune(module, "phew", compression=2.0, **options)
    second = prune(module, "phew", compression=3.0, masks=first, **options)
    assert second.within(first)


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
