"""NPB: the linear program against all whole solutions, paths by hand, and what it is for."""

import itertools

import pytest
import torch
from sample_networks import ConvNet, ViT, seeded
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import prune
from shrinkbench.pruning.methods.node_path_balancing import balance


def objective(kernels, paths, most, count):
    """Written out: units on a path, paths, kernels with a weight."""
    p = [float(x) / float(paths.max()) for x in paths]
    inputs = sum(any(row) for row, q in zip(kernels, p, strict=True) if q > 0)
    outputs = sum(any(v for v, q in zip(col, p, strict=True) if q > 0) for col in zip(*kernels, strict=True))
    room, best = count, 0.0
    for q, row in sorted(zip(p, most.tolist(), strict=True), reverse=True):
        best += q * min(sum(row), room)
        room -= min(sum(row), room)
    led = sum(q * sum(row) for q, row in zip(p, kernels, strict=True))
    size = len(p) + len(kernels[0])
    some = sum(v > 0 for row in kernels for v in row)
    return 0.7 * (inputs + outputs) / size + 0.3 * led / best + 0.001 * some / count


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("paths", [[1.0, 3.0], [0.0, 2.0], [5.0, 5.0]])
def test_no_whole_solution_is_better(paths, count):
    paths, most = torch.tensor(paths), torch.tensor([[2, 1, 2], [2, 2, 0]])
    found = balance(paths, most, count)
    assert int(found.sum()) == count
    assert bool((found <= most).all())
    ranges = [range(int(m) + 1) for m in most.flatten()]
    every = (v for v in itertools.product(*ranges) if sum(v) == count)
    best = max(objective([v[:3], v[3:]], paths, most, count) for v in every)
    assert objective(found.tolist(), paths, most, count) == pytest.approx(best, abs=1e-9)


def test_paths_are_counted_through_what_stays():
    """A hidden unit that fewer paths lead to than to others has one weight behind it, which puts it on one."""
    module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 6, bias=False))
    options = {"input_shape": (2,), "prune_classifier": True, "one_shot": True}
    masks = prune(module, "npb", compression=24 / 13, **options)
    first, second = masks["0.weight"], masks["2.weight"]
    assert int(first.sum() + second.sum()) == 13
    assert bool(second.any(0).all())  # every unit is on a path
    assert bool(second.any(1).all())
    few = first.sum(1) < first.sum(1).max()
    assert bool(few.any())
    assert second.sum(0)[few].tolist() == [1] * int(few.sum())


def test_more_units_are_on_paths_than_by_chance():
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 16, 4, bias=False),
    )
    options = {"compression": 30.0, "input_shape": (3, 8, 8), "one_shot": True, "prune_classifier": True}
    ours, chance = prune(module, "npb", **options), prune(module, "erk_random_at_initialisation", **options)

    def dead(masks):
        return sum(int((~m.flatten(1).any(1)).sum()) for m in masks.values())

    assert dead(ours) < dead(chance)
    assert {n: int(m.sum()) for n, m in ours.items()} == {n: int(m.sum()) for n, m in chance.items()}


def test_other_structures_and_networks_without_paths_are_refused():
    with pytest.raises(ShrinkbenchError, match="choose the structure weights"):
        prune(seeded(ConvNet), "npb[structure=filters]", compression=1.5, input_shape=(3, 8, 8), one_shot=True)
    with pytest.raises(ShrinkbenchError, match="attention"):
        prune(seeded(ViT), "npb", compression=2, input_shape=(3, 8, 8), one_shot=True)
