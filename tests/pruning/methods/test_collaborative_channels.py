"""Channels that are chosen together: costs written out, and the choice of another solver."""

import numpy as np
import pytest
import torch
from sample_networks import as_drawn
from scipy.optimize import minimize
from torch import nn

from shrinkbench.pruning import prune
from shrinkbench.pruning.methods.collaborative_channels import relaxed_choice


def problem(seed, count=7):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(5, count, generator=generator).double()
    return torch.randn(count, generator=generator).double(), root.T @ root


@pytest.mark.parametrize("seed", range(2))
def test_the_relaxed_choice_is_that_of_another_solver(seed):
    slope, curvature = problem(seed)
    u, h = slope.numpy(), curvature.numpy()

    def cost(b):
        return u @ (b - 1) + (b - 1) @ h @ (b - 1) / 2

    found = relaxed_choice(slope, curvature, 3).numpy()
    other = minimize(
        cost,
        np.full(7, 3 / 7),
        jac=lambda b: u + h @ (b - 1),
        bounds=[(0, 1)] * 7,
        constraints={"type": "eq", "fun": lambda b: b.sum() - 3, "jac": lambda b: np.ones(7)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert abs(found.sum() - 3) < 1e-9
    assert found.min() >= 0
    assert found.max() <= 1
    assert cost(found) <= other.fun + 1e-8


def test_without_curvature_the_slope_decides():
    slope = torch.tensor([0.3, -2.0, 0.1, -0.4])
    assert relaxed_choice(slope, torch.zeros(4, 4), 2).round().tolist() == [0, 1, 0, 1]
    assert relaxed_choice(torch.zeros(3), torch.zeros(3, 3), 2).sum().item() == pytest.approx(2)


def hidden():
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).double()


def batches():
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(2, 8, 3, generator=generator).double()
    return [(x, torch.randint(0, 2, (8,), generator=generator)) for x in inputs]


def test_channels_that_cost_least_together_go():
    """Slopes and curvatures written out, the choice by trying all subsets' relaxations is that of SciPy."""
    module, data = as_drawn(hidden), batches()
    weight = module[0].weight
    slope, curvature, images = torch.zeros(6).double(), torch.zeros(6, 6).double(), 0
    for inputs, labels in data:
        for x, y in zip(inputs, labels, strict=True):
            logits = module(x[None])
            jacobian = torch.stack([torch.autograd.grad(z, weight, retain_graph=True)[0] for z in logits[0]])
            p = logits.softmax(1)[0].detach()
            along = (jacobian * weight.detach()).sum(2)  # (logits, channels): w_i times the gradient
            curvature += along.T @ (torch.diag(p) - torch.outer(p, p)) @ along
            slope += (p - nn.functional.one_hot(y, 2)) @ along
            images += 1
    slope, curvature = slope.detach() / images, curvature.detach() / images
    masks = prune(
        module, "collaborative_channel_pruning", compression=1.3, batches=data, input_shape=(3,), one_shot=True
    )
    kept = masks["0.weight"].any(1)
    keep = int(kept.sum())
    assert keep < 6
    u, h = slope.numpy(), curvature.numpy()
    other = minimize(
        lambda b: u @ (b - 1) + (b - 1) @ h @ (b - 1) / 2,
        np.full(6, keep / 6),
        jac=lambda b: u + h @ (b - 1),
        bounds=[(0, 1)] * 6,
        constraints={"type": "eq", "fun": lambda b: b.sum() - keep, "jac": lambda b: np.ones(6)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    assert set(kept.nonzero().flatten().tolist()) == set(np.argsort(-other.x, kind="stable")[:keep].tolist())


def test_channels_that_compute_the_same_do_not_both_go():
    """Each costs less than any other, but both together four times as much: pairs decide, not single scores."""
    along = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.2, 0.0], [0.0, 0.0, 0.0, 1.2]])
    curvature = along.T @ along
    kept = relaxed_choice(torch.zeros(4), curvature, 2).argsort(descending=True)[:2]
    assert sorted(kept.tolist()) == [0, 1]
    alone = curvature.diagonal().argsort(descending=True)[:2]
    assert sorted(alone.tolist()) == [2, 3]

    def cost(gone):
        return float(curvature[gone][:, gone].sum() / 2)

    assert cost([2, 3]) == pytest.approx(1.44)
    assert cost([0, 1]) == pytest.approx(2)
