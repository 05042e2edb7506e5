"""Keep exactly the k highest scores over many tensors, without sorting or joining them.

A radix selection: floating-point numbers are ordered like their bit patterns once negative ones are flipped.
One pass counts the upper 16 bits (65,536 bins), which leaves a single bin in doubt; the scores in that bin are
gathered and the threshold among them is found exactly. Scratch memory is one chunk plus the bin, not a copy of
everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError

_CHUNK = 1 << 18  # scores per chunk: its int64 copy (2 MB) stays in cache
_BINS = 1 << 16


def _chunks(scores: Tensor) -> Iterator[Tensor]:
    return iter(scores.detach().reshape(-1).split(_CHUNK))


def _ordered_bits(chunk: Tensor) -> Tensor:
    """Integers that order like the scores; -0.0 and 0.0 are one value."""
    if chunk.dtype == torch.float64:
        bits = (chunk + 0.0).view(torch.int64)
        return bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
    bits = (chunk.float() + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _bins(bits: Tensor) -> Tensor:
    shift = 48 if bits.dtype == torch.int64 else 16
    return (bits >> shift) + _BINS // 2


def threshold(tensors: Sequence[Tensor], k: int) -> float:
    """The k-th highest score over all ``tensors`` (k >= 1), exactly.

    >>> threshold([torch.tensor([3.0, 1.0]), torch.tensor([2.0])], 2)
    2.0
    """
    if any(t.dtype == torch.float64 for t in tensors):
        tensors = [t.double() for t in tensors]
    device = tensors[0].device
    counts = torch.zeros(_BINS, dtype=torch.int64, device=device)
    for tensor in tensors:
        for chunk in _chunks(tensor):
            counts += torch.bincount(_bins(_ordered_bits(chunk)), minlength=_BINS).to(device)
    # Number of scores in this bin or a higher one; the k-th highest lies in the last bin where it reaches k.
    from_above = counts.flip(0).cumsum(0).flip(0)
    bin_ = int((from_above >= k).nonzero().max())
    above = int(from_above[bin_ + 1]) if bin_ + 1 < _BINS else 0
    inside = torch.cat(
        [chunk[_bins(_ordered_bits(chunk)) == bin_].to(device) for t in tensors for chunk in _chunks(t)]
    )
    rank = k - above
    return float(inside.kthvalue(inside.numel() - rank + 1).values)


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
