"""Batches as they are handed in, each with examples and of a form that the network takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.network.calling import require_decoder_inputs
from shrinkbench.network.derivatives import outputs_of
from shrinkbench.network.inputs import Batch, Inputs, form_of, range_of, split_batch
from shrinkbench.network.positions import require_positions

_END = object()


class _Kept:
    """What an iterator gives, kept as far as it has been read: copies of a context read one and the same."""

    def __init__(self, source: Iterator[Any]) -> None:
        self._source = source
        self._read: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        for number in count():
            if number == len(self._read):
                following = next(self._source, _END)
                if following is _END:
                    return
                self._read.append(following)
            yield self._read[number]


def read_again(batches: Iterable[Any]) -> Iterable[Any]:
    """``batches`` such that they can be read more than once; only those of an iterator are kept."""
    return _Kept(batches) if isinstance(batches, Iterator) else batches


def with_examples(batches: Iterable[Any]) -> Iterator[Batch]:
    """One batch after another, split; one without examples, of which nothing can be told, is refused."""
    for number, given in enumerate(batches, 1):
        batch = split_batch(given)
        if not len(batch):
            raise ShrinkbenchError(
                f"batch {number} of batches= holds no examples ({batch.inputs}); leave it out, or give a data "
                "loader that does not draw empty batches"
            )
        yield batch


class Taken:
    """Which forms of inputs, and whole numbers in them, a network has been seen to take."""

    def __init__(self, example: Inputs | None = None) -> None:
        self._ranges: dict[str, list[tuple[int, int]]] = {}
        if example is not None and not _whole_in(example) and not _has_shared(example):
            self._ranges[form_of(example)] = []

    def require(self, module: nn.Module, batch: Batch, number: int) -> None:
        """Raise ``ShrinkbenchError`` where ``module`` does not run on batch ``number``, or should not."""
        require_positions(module, batch.inputs)
        form = form_of(batch.inputs)
        whole = _whole_in(batch.inputs)
        ranges = [(int(t.min()), int(t.max())) for t in whole]
        known = self._ranges.get(form)
        if known is not None:
            ranges = [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(known, ranges, strict=True)]
        if ranges != known:
            _require_run(module, batch, number, whole=bool(whole) or _has_shared(batch.inputs))
            self._ranges[form] = ranges


def _whole_in(inputs: Inputs) -> list[Tensor]:
    """Tensors of whole numbers, such as tokens: rows of a table, which may be shorter."""
    return [t for t in inputs.tensors if not (t.is_floating_point() or t.is_complex()) and t.numel()]


def _has_shared(inputs: Inputs) -> bool:
    """Whether a tensor has no row for each example: that it is of all of them only a pass of all can tell."""
    return any(not tensor.dim() or len(tensor) != inputs.rows for tensor in inputs.tensors)


def _require_run(module: nn.Module, batch: Batch, number: int, *, whole: bool) -> None:
    one = batch.inputs.part(0, 1)
    # One example is enough for most networks, and cheap; which holds the largest token nobody knows.
    for tried in (batch.inputs,) if whole else (one, batch.inputs):
        try:
            with torch.no_grad():
                outputs_of(module, {}, tried)
        except Exception as error:
            failure = error
        else:
            return
    if isinstance(failure, ShrinkbenchError):
        raise failure
    require_decoder_inputs(module, batch.inputs)
    reason = (str(failure).strip() or type(failure).__name__).splitlines()[0][:90]
    raise ShrinkbenchError(
        f"the network does not take batch {number} of batches=, {one_line(str(batch.inputs), 60)}"
        f"{range_of(batch.inputs)}: {reason}; give batches of what its forward pass takes"
    ) from failure
