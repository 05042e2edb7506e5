"""Selection of a layer's inputs: against plain code, brute force and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.linear_model import lasso_path

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.methods.gram_selection import greedy_removal, lasso_selection, least_squares_scales


def samples(channels=7, rows=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, channels, generator=generator, dtype=torch.float64)
    return mixed @ (torch.eye(channels) + 0.4 * torch.randn(channels, channels, generator=generator)).double()


def thinet_as_published(x, keep):
    """Greedily add to the removed set the channel that makes its joint contribution smallest."""
    removed = []
    while x.shape[1] - len(removed) > keep:
        costs = {
            c: float(x[:, [*removed, c]].sum(1).square().sum()) for c in range(x.shape[1]) if c not in removed
        }
        removed.append(min(costs, key=costs.get))
    return sorted(set(range(x.shape[1])) - set(removed))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("keep", [1, 3, 6, 7])
def test_greedy_removal_is_thinets(seed, keep):
    x = samples(seed=seed)
    assert greedy_removal(x.T @ x, keep).tolist() == thinet_as_published(x, keep)


def test_scales_are_the_least_squares_solution():
    x, kept = samples(), torch.tensor([1, 2, 5])
    y = x.sum(1)
    expected = np.linalg.lstsq(x[:, kept].numpy(), y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(least_squares_scales(x.T @ x, x.T @ y, kept).numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_lasso_selection_is_a_point_of_the_lasso_path(seed):
    x = samples(seed=seed)
    x = x / x.norm(dim=0)
    y = x @ torch.linspace(0.1, 1, 7, dtype=torch.float64)
    by_path = lasso_selection(x.T @ x, x.T @ y, 3).tolist()
    _, coefficients, _ = lasso_path(
        x.numpy(), y.numpy(), alphas=np.geomspace(1e-4, 0.1, 3000), max_iter=100_000
    )
    assert by_path in [np.nonzero(point)[0].tolist() for point in coefficients.T]


def test_lasso_selection_does_not_depend_on_the_kernels_scale():
    x = samples()
    y = x.sum(1)
    factors = torch.tensor([1, 10, 0.1, 3, 1, 0.01, 100], dtype=torch.float64)
    scaled = x * factors
    # The same contributions, split otherwise between a gate and a kernel, are other regressors of one target.
    assert lasso_selection(x.T @ x, x.T @ y, 4).equal(lasso_selection(scaled.T @ scaled, scaled.T @ y, 4))


def test_duplicates_and_silent_channels_are_left_out_first():
    x = samples(4)
    x = torch.cat([x, x[:, :1], torch.zeros(len(x), 1)], 1)
    y = x[:, :4].sum(1)
    kept = lasso_selection(x.T @ x, x.T @ y, 4).tolist()
    assert {c % 4 for c in kept} == {0, 1, 2, 3}
    assert 5 not in kept
    assert len(lasso_selection(x.T @ x, x.T @ y, 6)) == 6


def test_the_greedy_choice_is_near_the_best_one():
    x = samples(8, seed=9)
    best = min(
        float(x[:, list(removed)].sum(1).square().sum()) for removed in itertools.combinations(range(8), 4)
    )
    kept = greedy_removal(x.T @ x, 4).tolist()
    removed = [c for c in range(8) if c not in kept]
    assert float(x[:, removed].sum(1).square().sum()) <= 2 * best


@pytest.mark.parametrize("choose", [greedy_removal, lambda g, k: lasso_selection(g, g.sum(1), k)])
@pytest.mark.parametrize("keep", [0, 8])
def test_no_channel_or_too_many_are_refused(choose, keep):
    x = samples()
    with pytest.raises(ShrinkbenchError, match=f"cannot keep {keep} of 7 channels"):
        choose(x.T @ x, keep)
