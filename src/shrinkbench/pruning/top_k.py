"""Keep exactly the k highest scores over many tensors, without sorting or joining them.

A strided sample brackets the threshold; one comparison with each end of the bracket settles all scores but the
few inside, and those are gathered and ranked exactly. A bracket that misses (the sample is no promise) is
widened to everything, so the outcome never depends on it. Memory is a boolean per score and little more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError

Array = np.ndarray[Any, np.dtype[Any]]
Values = Array | Tensor
_STRIDE = 61  # prime, so that a sample does not walk along rows of the usual sizes


def keep_highest(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Boolean tensors that keep exactly the ``k`` highest scores; equal ones by position, first come.

    >>> keep_highest({"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([5.0, 5.0])}, 2)
    {'a': tensor([False,  True]), 'b': tensor([ True, False])}
    """
    flat = {name: _flat(tensor) for name, tensor in scores.items()}
    for name, values in flat.items():
        require_numbers(name, values)
    if len({values.dtype for values in flat.values()}) > 1:  # one threshold, one precision
        flat = {name: _flat(tensor.double()) for name, tensor in scores.items()}
    total = sum(len(values) for values in flat.values())
    if k <= 0 or k >= total:
        return {name: torch.full_like(t, k > 0, dtype=torch.bool) for name, t in scores.items()}
    keep = _settle(flat, k, total)
    return {name: torch.as_tensor(keep[name]).view(tensor.shape) for name, tensor in scores.items()}


def require_numbers(name: str, scores: Values) -> None:
    """Refuse scores that are not numbers: whatever ranks scores asks this first."""
    size = scores.numel() if isinstance(scores, Tensor) else scores.size
    if size and math.isnan(scores.max()):  # the maximum is NaN if any score is
        raise ShrinkbenchError(
            f"the scores of '{name}' contain NaN; the weights, gradients or activations behind them have "
            "diverged"
        )


def _flat(tensor: Tensor) -> Values:
    """Scores in logical order, so that positions do not depend on the memory layout (channels last).

    On a CPU they are seen as a numpy array: comparing, counting and finding run several times as fast as in
    torch, whose threads wait for one another.
    """
    flat = tensor.detach().reshape(-1)
    if flat.device.type != "cpu":
        return flat
    return (flat if flat.dtype in (torch.float32, torch.float64) else flat.float()).numpy()


def _settle(flat: Mapping[str, Values], k: int, total: int) -> dict[str, Values]:
    threshold = _threshold(flat, k, *_bracket(flat, k, total))
    keep = {name: values >= threshold for name, values in flat.items()}
    surplus = sum(map(_count, keep.values())) - k
    for name in reversed(keep):  # of equal scores the last ones go
        if not surplus:
            break
        dropped = _positions(flat[name] == threshold)[-surplus:]
        keep[name][dropped] = False
        surplus -= len(dropped)
    return keep


def _threshold(flat: Mapping[str, Values], k: int, low: float = -math.inf, high: float = math.inf) -> float:
    """The k-th highest score.

    Only scores strictly within the bracket are gathered: however many are equal, they take no memory.
    """
    reached = {name: values >= high for name, values in flat.items()}
    above = sum(map(_count, reached.values()))
    if above >= k:
        if sum(_count(values > high) for values in flat.values()) < k:
            return high
        return _threshold(flat, k)
    if low < high:
        inside = np.concatenate(
            [_on_host(v[_positions((v > low) ^ reached[name])]) for name, v in flat.items()]
        )
        if k <= above + len(inside):
            place = len(inside) - (k - above)
            return float(np.partition(inside, place)[place])
    if k <= sum(_count(values >= low) for values in flat.values()):
        return low
    return _threshold(flat, k)


def _bracket(flat: Mapping[str, Values], k: int, total: int) -> tuple[float, float]:
    """Two scores between which the k-th highest lies, four standard deviations of a sample's rank apart."""
    sample = np.sort(np.concatenate([_on_host(values[::_STRIDE]) for values in flat.values()]))[::-1]
    expected = k / total * len(sample)
    slack = 4 * math.sqrt(expected * (1 - k / total)) + 8
    first, last = math.floor(expected - slack), math.ceil(expected + slack)
    return (
        float(sample[last]) if last < len(sample) else -math.inf,
        float(sample[first]) if first >= 0 else math.inf,
    )


def _count(mask: Values) -> int:
    return int(mask.sum()) if isinstance(mask, Tensor) else int(np.count_nonzero(mask))


def _positions(mask: Values) -> Values:
    return mask.nonzero().squeeze(1) if isinstance(mask, Tensor) else np.flatnonzero(mask)


def _on_host(values: Values) -> Array:
    return values.cpu().numpy() if isinstance(values, Tensor) else values
