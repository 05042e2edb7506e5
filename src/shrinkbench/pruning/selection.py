"""Keep exactly the k highest scores over many tensors, without sorting or joining them.

A radix selection: floating-point numbers of one sign are ordered like their bit patterns. One pass counts the
upper 16 bits (65,536 bins), which leaves a single bin in doubt; the scores in that bin are gathered and the
threshold among them is found exactly. Scratch memory is one chunk plus the bin, not a copy of everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError

_CHUNK = 1 << 18  # scores per chunk: what is made of them stays in cache
_BINS = 1 << 16
_NEGATIVE_ZERO = -(1 << 15)  # upper bits of -0.0, which equals 0.0: the two bins count as one


def _chunks(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    for tensor in tensors:
        yield from tensor.detach().reshape(-1).split(_CHUNK)


def _upper_bits(chunk: Tensor) -> Tensor:
    """The upper 16 bits, sign included, as whole numbers from -32,768 to 32,767."""
    if chunk.dtype == torch.float64:
        return chunk.view(torch.int64) >> 48
    return chunk.float().view(torch.int32) >> 16


def _counts(chunk: Tensor) -> Tensor:
    shifted = _upper_bits(chunk) + _BINS // 2
    if chunk.device.type == "cpu":  # numpy counts three times as fast as torch here
        return torch.from_numpy(np.bincount(shifted.numpy(), minlength=_BINS))
    return torch.bincount(shifted, minlength=_BINS).cpu()


def _from_highest(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Bins and their counts from the highest scores down: negative numbers fall as their bits rise."""
    half = _BINS // 2
    bins = torch.arange(-half, half)
    counts = counts.clone()
    counts[half] += counts[0]  # -0.0 and the least negative numbers, to the bin of 0.0
    counts[0] = 0
    return torch.cat([bins[half:].flip(0), bins[:half]]), torch.cat([counts[half:].flip(0), counts[:half]])


def threshold(tensors: Sequence[Tensor], k: int) -> float:
    """The k-th highest score over all ``tensors`` (k >= 1, one type), exactly.

    >>> threshold([torch.tensor([3.0, -1.0]), torch.tensor([2.0])], 2)
    2.0
    """
    counts = torch.zeros(_BINS, dtype=torch.int64)
    for chunk in _chunks(tensors):
        counts += _counts(chunk)
    bins, counts = _from_highest(counts)
    reached = counts.cumsum(0)
    place = int((reached < k).sum())  # the first bin at which the count from above reaches k
    in_doubt, above = int(bins[place]), int(reached[place] - counts[place])
    inside = torch.cat([_in_bin(chunk, in_doubt) for chunk in _chunks(tensors)])
    return float(inside.kthvalue(inside.numel() - (k - above) + 1).values)


def _in_bin(chunk: Tensor, bin_: int) -> Tensor:
    upper = _upper_bits(chunk)
    inside = upper == bin_
    if bin_ == 0:
        inside |= upper == _NEGATIVE_ZERO
    if chunk.device.type == "cpu" and chunk.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(chunk.numpy()[inside.numpy()])
    return chunk[inside].cpu()


def keep_highest(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Boolean tensors that keep exactly the ``k`` highest scores; equal ones by position, first come.

    >>> keep_highest({"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([5.0, 5.0])}, 2)
    {'a': tensor([False,  True]), 'b': tensor([ True, False])}
    """
    for name, tensor in scores.items():
        # The sum is NaN if any score is (or if infinities of both signs meet): a cheap test before the exact.
        if bool(tensor.sum().isnan()) and bool(tensor.isnan().any()):
            raise ShrinkbenchError(
                f"the scores of '{name}' contain NaN; the weights or gradients it was scored from have diverged"
            )
    if len({tensor.dtype for tensor in scores.values()}) > 1:
        scores = {name: tensor.double() for name, tensor in scores.items()}  # one threshold, one precision
    total = sum(tensor.numel() for tensor in scores.values())
    if k <= 0:
        return {name: torch.zeros_like(t, dtype=torch.bool) for name, t in scores.items()}
    if k >= total:
        return {name: torch.ones_like(t, dtype=torch.bool) for name, t in scores.items()}
    limit = threshold([t for t in scores.values() if t.numel()], k)
    # Contiguous: positions are those of the logical order, whatever the memory layout (channels last).
    keep = {name: (tensor > limit).contiguous() for name, tensor in scores.items()}
    ties = k - sum(int(mask.sum()) for mask in keep.values())
    for name, tensor in scores.items():
        if ties == 0:
            break
        equal = (tensor == limit).reshape(-1).nonzero().squeeze(1)[:ties]
        keep[name].view(-1)[equal] = True
        ties -= equal.numel()
    return keep
