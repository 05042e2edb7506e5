"""Dropout in a smaller network that draws what the whole one draws, and uses its share of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.cutting import put
from shrinkbench.network.inputs import Example, Inputs
from shrinkbench.network.watching import watching_calls
from shrinkbench.network.weights import copy_of, in_mode

EXAMPLES = 32
_SAME = 1e-9  # of a channel's largest value, in double precision


class WholeDropout(nn.Module):
    """Dropout of ``size`` channels along ``dim``, of which only those at ``index`` are there."""

    index: Tensor

    def __init__(self, p: float, index: Tensor, *, dim: int, size: int) -> None:
        super().__init__()
        self.p, self.dim, self.size = p, dim, size
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """What dropout of the whole tensor, in the memory layout of ``x``, leaves of its part ``x``."""
        if not self.training or not self.p:
            return x
        shape = [*x.shape]
        shape[self.dim] = self.size
        last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        whole = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout).fill_(1)
        return x * F.dropout(whole, self.p, training=True).index_select(self.dim, self.index)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"p={self.p}, {len(self.index)} of {self.size} channels, dim={self.dim}"


def draw_as_whole(small: nn.Module, pair: tuple[nn.Module, nn.Module], example: Example) -> None:
    """Let ``small`` drop in training what the whole network drops, in place.

    Which channels of a dropout stayed is read from what arrives there, dropout aside, in the ``pair``, the
    whole network and the smaller one with other values: channels that are equal on random inputs, in order.
    Raises ``ShrinkbenchError`` where that leaves a doubt.
    """
    whole, other = pair
    there = dict(small.named_modules())
    paths = [
        n
        for n, m in whole.named_modules()
        if type(m) is nn.Dropout and m.p and type(there.get(n)) is nn.Dropout
    ]
    if not paths:
        return
    before, after = (_arriving(network, paths, example) for network in (whole, other))
    for path in paths:
        if path in before and path in after and before[path].shape != after[path].shape:
            dim, index = _kept(before[path], after[path], path)
            dropout = cast(nn.Dropout, whole.get_submodule(path))
            device = next((p.device for p in small.parameters()), torch.device("cpu"))
            new = WholeDropout(dropout.p, index.to(device), dim=dim, size=before[path].shape[dim])
            put(small, path, new)


def _arriving(network: nn.Module, paths: list[str], example: Example) -> Mapping[str, Tensor]:
    """What each dropout is first given in a forward pass of training in which none of them drops."""
    trial = in_mode(copy_of(network).double(), training=True)
    layers = {path: in_mode(trial.get_submodule(path), training=False) for path in paths}
    like = next(trial.parameters())
    inputs = Inputs.of(example).drawn(EXAMPLES, seed=0).to(like.device, torch.float64)
    found: dict[str, Tensor] = {}

    def note(path: str, args: tuple[object, ...], _: dict[str, object]) -> None:
        if args and isinstance(args[0], Tensor):
            found.setdefault(path, args[0].detach().clone())

    with torch.random.fork_rng(), torch.no_grad(), watching_calls(layers, note):
        inputs.call(trial)
    return found


def _kept(whole: Tensor, small: Tensor, path: str) -> tuple[int, Tensor]:
    """The dimension in which the tensors differ, and which of its positions are those of ``small``."""
    doubt = ShrinkbenchError(f"which channels of the dropout '{path}' stayed cannot be told")
    differing = [d for d, sizes in enumerate(zip(whole.shape, small.shape, strict=False)) if len({*sizes}) > 1]
    if whole.dim() != small.dim() or len(differing) != 1 or differing[0] == 0:
        raise doubt
    dim = differing[0]
    rows, wanted = whole.movedim(dim, 0).flatten(1), small.movedim(dim, 0).flatten(1)
    index: list[int] = []
    position = 0
    for row in wanted:
        largest = float(row.abs().max())
        while largest and position < len(rows) and not _equal(rows[position], row, largest):
            position += 1
        if not largest or position == len(rows):
            raise doubt
        index.append(position)
        position += 1
    return dim, torch.tensor(index)


def _equal(one: Tensor, other: Tensor, largest: float) -> bool:
    return float((one - other).abs().max()) <= _SAME * largest
