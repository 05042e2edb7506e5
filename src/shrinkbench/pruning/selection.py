"""Keep exactly the k highest scores over many tensors, without sorting or joining them.

A strided sample brackets the threshold; one comparison with each end of the bracket settles all scores but the
few inside, and those are gathered and ranked exactly. A bracket that misses (the sample is no promise) is
widened to everything, so the outcome never depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError

_STRIDE = 61  # prime, so that a sample does not walk along rows of the usual sizes


def keep_highest(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Boolean tensors that keep exactly the ``k`` highest scores; equal ones by position, first come.

    >>> keep_highest({"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([5.0, 5.0])}, 2)
    {'a': tensor([False,  True]), 'b': tensor([ True, False])}
    """
    # Flat in logical order: positions do not depend on the memory layout (channels last).
    flat = {name: tensor.detach().reshape(-1) for name, tensor in scores.items()}
    for name, tensor in flat.items():
        # The sum is NaN if any score is (or if infinities of both signs meet): a cheap test before the exact.
        if bool(tensor.sum().isnan()) and bool(tensor.isnan().any()):
            raise ShrinkbenchError(
                f"the scores of '{name}' contain NaN; the weights or gradients behind them have diverged"
            )
    if len({tensor.dtype for tensor in flat.values()}) > 1:
        flat = {name: tensor.double() for name, tensor in flat.items()}  # one threshold, one precision
    total = sum(tensor.numel() for tensor in flat.values())
    if k <= 0 or k >= total:
        return {name: torch.full_like(t, k > 0, dtype=torch.bool) for name, t in scores.items()}
    keep = _settle(flat, k, total)
    return {name: keep[name].view(tensor.shape) for name, tensor in scores.items()}


def _settle(flat: Mapping[str, Tensor], k: int, total: int) -> dict[str, Tensor]:
    for low, high in (_bracket(flat, k, total), (-math.inf, math.inf)):
        keep = {name: tensor > high for name, tensor in flat.items()}
        above = sum(_count(mask) for mask in keep.values())
        if above >= k:
            continue
        inside = {name: _positions((tensor >= low) ^ keep[name]) for name, tensor in flat.items()}
        if k <= above + sum(len(positions) for positions in inside.values()):
            break
    values = torch.cat([flat[name][positions].cpu() for name, positions in inside.items()])
    chosen = _highest(values, k - above)
    for (name, positions), part in zip(
        inside.items(), chosen.split([len(p) for p in inside.values()]), strict=True
    ):
        keep[name][positions[part.to(positions.device)]] = True
    return keep


def _bracket(flat: Mapping[str, Tensor], k: int, total: int) -> tuple[float, float]:
    """Two scores between which the k-th highest lies, four standard deviations of a sample's rank apart."""
    sample = torch.cat([tensor[::_STRIDE].cpu() for tensor in flat.values()]).double().sort(descending=True)[0]
    expected = k / total * len(sample)
    slack = 4 * math.sqrt(expected * (1 - k / total)) + 8
    first, last = math.floor(expected - slack), math.ceil(expected + slack)
    return (
        float(sample[last]) if last < len(sample) else -math.inf,
        float(sample[first]) if first >= 0 else math.inf,
    )


def _highest(values: Tensor, k: int) -> Tensor:
    """Which of a few ``values`` are the ``k`` highest, equal ones by position."""
    limit = values.double().kthvalue(values.numel() - k + 1).values
    chosen = values > limit
    chosen[(values == limit).nonzero().squeeze(1)[: k - int(chosen.sum())]] = True
    return chosen


def _count(mask: Tensor) -> int:
    # numpy counts and finds booleans many times as fast as torch does on a CPU.
    return int(np.count_nonzero(mask.numpy())) if mask.device.type == "cpu" else int(mask.sum())


def _positions(mask: Tensor) -> Tensor:
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().squeeze(1)
