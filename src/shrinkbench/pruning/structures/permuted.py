"""N:M patterns over input channels in an order that keeps more (Pool and Yu 2021)."""

from __future__ import annotations

import itertools
import math
import re

import torch
from torch import Tensor

from shrinkbench.network.dataflow import Geometry
from shrinkbench.network.view import NetworkView
from shrinkbench.pruning.units import STRUCTURES, Grouping, Scores, Structure, Units

_SWEEPS = 8  # over all pairs of runs, at most


@STRUCTURES.add_resolver
def _from_name(name: str) -> Structure | None:
    """``permuted-N:M`` for any numbers."""
    match = re.fullmatch(r"permuted-([1-9][0-9]{0,8}):([1-9][0-9]{0,8})", name)
    return permuted(int(match[1]), int(match[2])) if match and int(match[1]) < int(match[2]) else None


def permuted(n: int, m: int) -> Structure:
    """At most ``n`` of every ``m`` weights along the input channels stay, channels in an order of their own.

    The order is found for every layer, so that the scores which the pattern keeps are high.
    """

    def group(ctx: NetworkView, scores: Scores) -> Grouping:
        units = {
            name: Units(scores[name], first=_first(scores[name], ctx.geometry(name), n, m))
            for name in ctx.weights
        }
        return Grouping(units, dict)

    description = (
        f"at most {n} of every {m} weights along input channels, which are put in the best order found"
    )
    return Structure(f"permuted-{n}:{m}", description, group, unit="weight")


def _first(score: Tensor, geometry: Geometry, n: int, m: int) -> Tensor:
    """The weights that the pattern keeps."""
    rows = geometry.rows(score)
    if rows.ndim < 2 or rows.shape[1] % m:
        return score > -math.inf
    outputs, inputs, *kernel = rows.shape
    matrix = rows.movedim(1, -1).reshape(-1, inputs)
    order = best_order(matrix, n, m)
    runs = matrix[:, order].reshape(len(matrix), -1, m)
    best = runs.argsort(dim=2, descending=True, stable=True)[..., :n]
    kept = torch.zeros_like(runs, dtype=torch.bool).scatter_(2, best, value=True).reshape(matrix.shape)
    placed = torch.empty_like(kept)
    placed[:, order] = kept
    found = placed.reshape(outputs, *kernel, inputs).movedim(-1, 1)
    return geometry.restore(found).contiguous() & (score > -math.inf)


def best_order(matrix: Tensor, n: int, m: int) -> Tensor:
    """An order of the columns of ``matrix`` in whose runs of ``m`` the ``n`` highest of each row sum to much.

    Columns of two runs change places as long as that raises the sum, the best pair first, over all pairs of
    runs until none does, or eight times. Grouped convolutions are treated as one matrix.

    >>> best_order(torch.tensor([[4.0, 3.0, 0.0, 0.0]]), 1, 2).tolist()
    [2, 1, 0, 3]
    """
    values = matrix.detach().masked_fill(matrix == -math.inf, 0).double()
    order = torch.arange(matrix.shape[1], device=matrix.device)
    swaps = list(itertools.product(range(m), range(m, 2 * m)))
    trials = torch.arange(2 * m, device=matrix.device).repeat(len(swaps) + 1, 1)
    for number, (a, b) in enumerate(swaps, start=1):  # the first changes nothing
        trials[number, a], trials[number, b] = b, a
    runs = matrix.shape[1] // m
    for _ in range(_SWEEPS):
        improved = False
        for first, second in itertools.combinations(range(runs), 2):
            places = torch.cat([torch.arange(r * m, r * m + m, device=order.device) for r in (first, second)])
            pair = values[:, order[places]][:, trials].reshape(len(values), len(trials), 2, m)
            sums = pair.topk(n, dim=-1).values.sum((0, 2, 3))
            best = int(sums.argmax())
            if float(sums[best] - sums[0]) > 1e-9 * max(abs(float(sums[0])), 1e-30):
                order[places] = order[places][trials[best]]
                improved = True
        if not improved:
            break
    return order


permuted_two_of_four = STRUCTURES.add("permuted-2:4", permuted(2, 4))
