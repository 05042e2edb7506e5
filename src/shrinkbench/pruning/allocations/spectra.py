"""Allocations that read how well a layer is trained from the spectrum of its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from shrinkbench.pruning.allocations.rules import by_layer, fill, limits_of, weight_of
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.units import Units

_SPREAD = 0.3  # tau of the paper: sparsities of layers lie within 1 - tau and 1 + tau times their mean


def hill_exponent(matrix: Tensor) -> float:
    """Exponent of the tail of the eigenvalues of ``W W^T``, by Hill's estimator over the larger half of them.

    ``1 + k / sum over i <= k of ln(lambda_(n - i + 1) / lambda_(n - k))``, k = floor(n / 2) of n eigenvalues in
    rising order; infinite where the tail is flat or there is none.

    >>> round(hill_exponent(torch.diag(torch.tensor([1.0, 1.0, math.e, math.e]))), 6)
    1.5
    """
    values = torch.linalg.svdvals(matrix.double()).square().flip(0)
    count = len(values) // 2
    if count == 0 or values[-count - 1] <= 0:
        return math.inf
    tail = (values[-count:] / values[-count - 1]).log().sum().item()
    return 1 + count / tail if tail > 0 else math.inf


@by_layer("alpha-hill", by_values=True)
def alpha_hill(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Mapping[str, float]:
    """Sparsity of a layer linear in the exponent of its spectrum's tail (AlphaPruning, Lu et al. 2024).

    The least heavy tail (the largest exponent) gets 1.3 times the mean sparsity, the heaviest 0.7 times; layers
    whose exponent is infinite count as the largest that is finite. Convolutions are taken as matrices
    (outputs, inputs x kernel); the paper treats the linear layers of transformers, and gives those of a block
    one sparsity, which is not done here.
    """
    exponents = {name: hill_exponent(_matrix(name, ctx)) for name in units}
    finite = [value for value in exponents.values() if math.isfinite(value)] or [1.0]
    low, high = min(finite), max(finite)
    sparsity = {}
    for name, value in exponents.items():
        place = (min(value, high) - low) / (high - low) if high > low else 0.5
        sparsity[name] = 1 + _SPREAD * (2 * place - 1)
    totals = {name: float(u.total) for name, u in units.items()}
    gone = sum(totals.values()) - budget
    scale = gone / sum(totals[name] * sparsity[name] for name in units)
    kept = {name: max(totals[name] * (1 - scale * sparsity[name]), 1e-6) for name in units}
    return fill(kept, limits_of(units), budget)


def _matrix(name: str, ctx: PruneContext) -> Tensor:
    rows = ctx.geometry(name).rows(weight_of(name, ctx, "alpha-hill"))
    return rows.reshape(len(rows), -1)
