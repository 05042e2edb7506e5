"""Which input channels a layer can do without, from samples of what each contributes to its output.

Pure functions of Gram matrices: ``gram[i, j]`` is the inner product of what channels i and j contribute to
sampled outputs of the layer, so that nothing but C x C numbers is kept of the samples.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError


def greedy_removal(gram: Tensor, keep: int) -> Tensor:
    """Channels that stay when those are removed, one after another, whose joint contribution is smallest.

    ThiNet's selection (Luo et al. 2017): with T removed already, the next is the c that minimises
    ``|| sum of x_j over T + x_c ||^2``. ``gram`` (C, C); returns the kept channels, rising.

    >>> greedy_removal(torch.tensor([[4.0, -4.0, 0.0], [-4.0, 4.0, 0.0], [0.0, 0.0, 9.0]]), 1)
    tensor([2])
    """
    channels = len(gram)
    _check(gram, keep)
    gram = gram.double()
    removed = torch.zeros(channels, dtype=torch.bool, device=gram.device)
    with_removed = torch.zeros(channels, dtype=torch.float64, device=gram.device)
    own = gram.diagonal()
    for _ in range(channels - keep):
        cost = (own + 2 * with_removed).masked_fill(removed, torch.inf)
        chosen = int(cost.argmin())
        removed[chosen] = True
        with_removed += gram[chosen]
    return (~removed).nonzero().flatten()


def least_squares_scales(gram: Tensor, with_target: Tensor, kept: Tensor) -> Tensor:
    """Factors of the kept channels that rebuild the target best: ``(X'X)^-1 X'y`` over their columns.

    ``with_target`` (C) holds the inner product of each channel with the target. Channels that contribute
    nothing, or what others contribute already, are settled by the smallest solution.

    >>> least_squares_scales(torch.eye(2), torch.tensor([1.0, 3.0]), torch.tensor([1]))
    tensor([3.])
    """
    normal = gram.double()[kept][:, kept]
    solution = torch.linalg.lstsq(normal.cpu(), with_target.double()[kept].cpu(), driver="gelsd").solution
    scales: Tensor = solution.to(gram.dtype)
    return scales


def lasso_selection(gram: Tensor, with_target: Tensor, keep: int) -> Tensor:
    """Channels whose gates are not zero where exactly ``keep`` are left on the LASSO's path.

    Minimises ``1 / 2 || y - sum_i b_i z_i ||^2 + l || b ||_1`` over gates b (He et al. 2017). Where the
    original searches the penalty l by bisection, the path is followed exactly (least-angle regression). If
    correlated channels leave the path before ``keep`` are in it, those that explain most of what is left
    are added.

    >>> lasso_selection(torch.eye(3), torch.tensor([1.0, 0.2, 0.5]), 2)
    tensor([0, 2])
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lars_path_gram

    _check(gram, keep)
    # Channels of unit contribution: a gate then does not profit from a large kernel (||W_i|| goes into b).
    norms = gram.double().diagonal().clamp_min(1e-30).sqrt()
    scaled = (gram.double() / norms / norms[:, None]).cpu()
    target = (with_target.double() / norms).cpu()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, _, path = lars_path_gram(
            Xy=target.numpy().copy(), Gram=scaled.numpy().copy(), n_samples=1, method="lasso", copy_X=True
        )
    gates = torch.from_numpy(path)
    counts = (gates != 0).sum(0)
    reached = (counts >= keep).nonzero().flatten()
    at = int(reached[0]) if len(reached) else int(counts.argmax())
    chosen = gates[:, at].abs()
    left = (target - scaled @ gates[:, at]).abs()
    # Whoever is in goes first, by gate; the others follow by what they would explain.
    rank = torch.where(
        chosen > 0, 1 + chosen / chosen.max().clamp_min(1e-30), left / left.max().clamp_min(1e-30)
    )
    return rank.argsort(descending=True, stable=True)[:keep].sort().values.to(gram.device)


def _check(gram: Tensor, keep: int) -> None:
    channels = len(gram)
    if not bool(gram.isfinite().all()):
        raise ShrinkbenchError(
            "what the channels of a layer contribute is not finite; the network's weights or activations have "
            "diverged"
        )
    if not 1 <= keep <= channels:
        raise ShrinkbenchError(f"cannot keep {keep} of {channels} channels; keep at least one and at most all")
