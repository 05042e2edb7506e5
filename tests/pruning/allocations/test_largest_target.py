"""A refusal names the largest target: it is met, and one parameter less is refused."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.metrics import measure_size
from shrinkbench.pruning import LayerCollapseWarning, PruningMethod, prune
from shrinkbench.pruning.allocations.rules import ALLOCATIONS
from shrinkbench.pruning.units import STRUCTURES

ALLOWED = ("global", "layerwise", "rowwise", "uniform-plus", "erdos-renyi-kernel", "lamp", "alpha-hill")
STRUCTURED = ("weights", "filters", "kernels", "blocks-4x4", "2:4", "input-channels", "channels")
IMAGE = (3, 6, 6)


def magnitude(ctx):
    return {name: w.abs() for name, w in ctx.weights.items()}


def made_network(draw):
    torch.manual_seed(draw.randrange(10**6))
    a, b, c = (draw.randint(1, 13) for _ in range(3))
    if draw.random() < 0.4:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(108, a), nn.ReLU(), nn.Linear(a, b, bias=False), nn.ReLU(), nn.Linear(b, c)
        )
    return nn.Sequential(
        nn.Conv2d(3, a, 3),
        nn.BatchNorm2d(a),
        nn.ReLU(),
        nn.Conv2d(a, b, draw.choice([1, 3]), bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(b, c),
    )


def made_bounds(draw, structure):
    bounds = {}
    if draw.random() < 0.6 and structure != "2:4":
        bounds["max_ratio"] = draw.choice([0.1, 0.3, 0.5, 0.75, 0.9, 0.95])
    if draw.random() < 0.4 and structure in ("filters", "channels"):
        bounds["round_to"] = draw.choice([2, 4, 8])
    return {**bounds, "prune_classifier": draw.random() < 0.6, "prune_biases": draw.random() < 0.2}


def assert_the_largest_is_the_largest(allocation, structure, seed):
    draw = random.Random(seed)
    module, bounds = made_network(draw).eval(), made_bounds(draw, structure)
    method = PruningMethod(
        name="made",
        score=magnitude,
        structure=STRUCTURES.get(structure),
        allocation=ALLOCATIONS.get(allocation),
    )
    total = sum(p.numel() for p in module.parameters())

    def kept(left):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerCollapseWarning)
            masks = prune(module, method, compression=total / left, input_shape=IMAGE, one_shot=True, **bounds)
        return measure_size(module, IMAGE, masks).parameters_kept

    with pytest.raises(ShrinkbenchError) as refused:
        kept(1e-9 * total)
    if not isinstance(refused.value, CannotMeetTargetError):  # told at once, whatever the target
        with pytest.raises(ShrinkbenchError) as again:
            kept(total * 0.9)
        assert str(again.value) == str(refused.value)
        return
    largest = float(str(refused.value).rpartition(" ")[2])
    assert largest == refused.value.largest
    least = round(total / largest)
    assert kept(total / largest) <= least
    with pytest.raises(CannotMeetTargetError) as further:
        kept(least - 1 or 0.4)
    assert further.value.largest == largest
    between = draw.randint(least, total)
    assert kept(between) == between if structure in ("weights", "2:4") else kept(between) <= between


@pytest.mark.parametrize("allocation", ALLOWED)
def test_the_largest_target_that_is_named(allocation):
    for seed in range(3):
        assert_the_largest_is_the_largest(allocation, "weights", seed)
    assert_the_largest_is_the_largest(allocation, random.Random(allocation).choice(STRUCTURED), 3)


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURED)
@pytest.mark.parametrize("allocation", ALLOWED)
def test_the_largest_target_of_units(allocation, structure):
    for seed in range(4, 12):
        assert_the_largest_is_the_largest(allocation, structure, seed)


def test_bounds_of_a_layer_hold_within_an_allocation_that_has_its_own():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(108, 20), nn.ReLU(), nn.Linear(20, 30), nn.Linear(30, 7))
    total = sum(p.numel() for p in module.parameters())
    for allocation in ("uniform-plus", "lamp"):
        method = PruningMethod(name="made", score=magnitude, allocation=ALLOCATIONS.get(allocation))
        with pytest.raises(CannotMeetTargetError) as error:
            prune(module, method, compression=9, max_ratio=0.6, prune_classifier=True, input_shape=IMAGE)
        masks = prune(
            module,
            method,
            compression=error.value.largest,
            max_ratio=0.6,
            prune_classifier=True,
            input_shape=IMAGE,
        )
        assert measure_size(module, IMAGE, masks).parameters_kept == round(total / error.value.largest)
        assert all(mask.float().mean() >= 0.4 for mask in masks.values())


def test_the_last_layer_keeps_a_fifth_of_its_weights_in_whole_weights():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(108, 16), nn.ReLU(), nn.Linear(16, 2))  # a fifth of 32: 6.4
    masks = prune(module, "uniform_plus_magnitude", compression=12, prune_classifier=True, input_shape=IMAGE)
    assert int(masks["3.weight"].sum()) == 7


def test_every_digit_of_the_largest_target_is_written():
    error = CannotMeetTargetError.because("so", compression=200, total=10**8, least=989_938)
    assert str(error).endswith("target is 101.0164")
    assert round(10**8 / error.largest) >= 989_938
    error = CannotMeetTargetError.because("so", compression=9e9, total=10**9, least=1)
    assert str(error).endswith("target is 1000000000")
