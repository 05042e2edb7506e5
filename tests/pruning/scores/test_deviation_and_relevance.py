"""Layer deviation, relevance, the spectrum's exponent, and scores turned round: hand-computed cases."""

import math

import pytest
import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, prune
from shrinkbench.pruning.allocations.spectra import hill_exponent
from shrinkbench.pruning.context import PruneContext


def two_layers(first, second):
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor(first))
        module[1].weight.copy_(torch.tensor(second))
    return module


def test_one_threshold_in_deviations_serves_all_layers():
    """sigma of (1, -1, 3, -3) is sqrt(5), of (10, -10, 30, -30) ten times that: the same two of each go."""
    module = two_layers([[1.0, -1.0], [3.0, -3.0]], [[10.0, -10.0], [30.0, -30.0]])
    ctx = PruneContext(module, ("0.weight", "1.weight"), input_shape=(2,))
    scores = METHODS.get("layer_deviation").score(ctx)
    expected = torch.tensor([[1.0, 1.0], [3.0, 3.0]]) / math.sqrt(5)
    for found in scores.values():
        torch.testing.assert_close(found, expected)
    masks = prune(module, "layer_deviation", compression=2, input_shape=(2,), prune_classifier=True)
    assert all(m.tolist() == [[False, False], [True, True]] for m in masks.values())
    by_size = prune(module, "global_magnitude", compression=2, input_shape=(2,), prune_classifier=True)
    assert not by_size["0.weight"].any()


def test_relevance_is_the_loss_of_a_gate_with_its_sign():
    """Loss sum(outputs): dL/dw = x for every row, so that relevance is minus the row's output."""
    module = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1))
    inputs = torch.full((1, 1, 1, 1), 3.0)
    ctx = PruneContext(
        module,
        ("0.weight",),
        input_shape=(1, 1, 1),
        batches=[(inputs, torch.zeros(1, dtype=torch.long))],
        batch_count=1,
        loss=lambda outputs, labels: outputs.sum(),
        structure=METHODS.get("skeletonization").structure,
    )
    found = METHODS.get("skeletonization").score(ctx)
    assert found.scores["0.weight"].flatten().tolist() == [-6.0, 3.0]


def test_the_exponent_of_a_spectrum():
    """Eigenvalues 1, 1, 4, 16: k = 2, 1 + 2 / (ln 4 + ln 16)."""
    matrix = torch.diag(torch.tensor([1.0, 1.0, 2.0, 4.0]))
    assert hill_exponent(matrix) == pytest.approx(1 + 2 / (math.log(4) + math.log(16)))
    assert hill_exponent(torch.eye(4)) == math.inf
    assert hill_exponent(torch.ones(1, 5)) == math.inf


def test_the_heavier_the_tail_the_more_is_kept():
    heavy, flat = (
        torch.diag(torch.tensor([1.0, 1.0, 8.0, 64.0])),
        torch.diag(torch.tensor([1.0, 1.0, 1.1, 1.2])),
    )
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(heavy)
        module[1].weight.copy_(flat)
    masks = prune(module, "alpha_pruning", compression=2, input_shape=(4,), prune_classifier=True)
    kept = {name: int(m.sum()) for name, m in masks.items()}
    # Sparsities 0.7 and 1.3 times 0.5: 10.4 and 5.6 of 16 weights.
    assert kept == {"0.weight": 10, "1.weight": 6}


@pytest.mark.parametrize("method", ["global_magnitude", "layerwise_magnitude", "filter_l1", "lamp"])
def test_scores_turned_round_keep_as_many_of_every_layer_and_the_worst(method):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 3)
        )
    options = {"compression": 1.6, "input_shape": (1, 6, 6)}
    kept, worst = (prune(module, name, **options) for name in (method, f"inverted@{method}"))
    assert kept.keys() == worst.keys()
    for name, mask in kept.items():
        assert int(mask.sum()) == int(worst[name].sum())
        weight = dict(module.named_parameters())[name].detach().abs()
        if METHODS.get(method).structure.name == "weights" and 0 < int(mask.sum()) < mask.numel():
            assert weight[worst[name]].max() <= weight[~worst[name]].min()
    assert METHODS.get(f"inverted@{method}").spec.allocation.like == METHODS.get(method).spec
    assert METHODS.get(f"inverted@{method}").spec.score.name != METHODS.get(method).spec.score.name


@pytest.mark.parametrize("method", ["sparsegpt", "thinet", "magnitude_2_4[structure=weights]@x"])
def test_what_decides_by_more_than_scores_is_not_turned_round(method):
    with pytest.raises(ShrinkbenchError):
        METHODS.get(f"inverted@{method}")
