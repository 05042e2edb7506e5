"""PHEW: which weights walks pass and in which order, by hand; connected paths."""

import torch
from sample_networks import ConvNet, seeded
from torch import nn

from shrinkbench.pruning import prune
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import SCORES
from shrinkbench.pruning.methods.random_walks import _Draw


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
