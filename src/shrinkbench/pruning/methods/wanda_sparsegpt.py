"""Layer by layer, against what each layer computes: Wanda and SparseGPT.

Layers are pruned in the order in which they run, each on inputs that the layers before it produce once they
are pruned. One layer's statistics are held at a time and, where the network is a chain of blocks, the states
that arrive at one block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.observation import Product, UnseenError
from shrinkbench.network.weights import looked_up, weight_parameters
from shrinkbench.pruning.allocations.by_row import keep_in_rows, rowwise, rowwise_counts
from shrinkbench.pruning.allocations.rules import (
    fill,
    keep_at_least,
    keep_best,
    keep_counts,
    layerwise,
    layerwise_counts,
    whole_units,
)
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.structures.single import four_of_eight, two_of_four
from shrinkbench.pruning.top_k import require_numbers
from shrinkbench.pruning.units import Units

PruneLayer = Callable[[PruneContext, str, int, Mapping[str, Tensor]], tuple[Tensor, Tensor | None]]
Counts = Callable[[Mapping[str, Units], int, PruneContext], dict[str, int]]

_COLUMNS = 128  # columns whose mask SparseGPT chooses together
_DAMPING = 0.01  # of the mean diagonal of the Hessian


@dataclass(frozen=True)
class _Pruned(Mapping[str, Tensor]):
    """Values of the layers that have been pruned, computed when asked for: none are held but new ones."""

    weights: Mapping[str, Tensor]
    masks: dict[str, Tensor] = field(default_factory=dict)
    updated: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.updated[name] if name in self.updated else self.weights[name] * self.masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.masks)

    def __len__(self) -> int:
        return len(self.masks)


def layer_by_layer(ctx: PruneContext, prune_layer: PruneLayer, counts_of: Counts) -> Masks:
    """Layer after layer keeps its count; ``prune_layer`` returns its mask and, if it wants, new values.

    It is given the layer's name, the number of weights to keep, and the values of the layers before it.
    Weights that no data reaches through a product keep their largest: embeddings, before all layers, which then
    see what is left of them, and biases, after all.
    """
    structure = ctx.structure
    if not structure.pattern and structure.name != "weights":
        raise ShrinkbenchError(
            f"this method goes through single weights, column by column, not '{structure.name}'; choose "
            "the structure weights or a pattern such as 2:4"
        )
    counts = counts_of({name: _alive(ctx, name) for name in ctx.weights}, ctx.budget, ctx)
    full, ctx = ctx, ctx.block_by_block()
    pruned = _Pruned(ctx.weights)
    tables = looked_up(ctx.module)
    order = [name for name in _order(full) if name in ctx.weights and name not in tables]
    others = [name for name in ctx.weights if name not in order]
    for name in (*(n for n in others if n in tables), *order, *(n for n in others if n not in tables)):
        if name in order:
            mask, value = prune_layer(ctx, name, counts[name], pruned)
        else:
            magnitude = ctx.weights[name].abs().masked_fill(ctx.removed(name), -torch.inf)
            mask, value = keep_counts({name: Units(magnitude)}, counts)[name], None
        pruned.masks[name] = mask
        if value is not None:
            pruned.updated[name] = value * mask
    return Masks({name: pruned.masks[name] for name in ctx.weights}, new_weights=pruned.updated)


def _order(ctx: PruneContext) -> list[str]:
    """Weights in order of execution, those among them that only later batches reach, as of chosen experts."""
    order = list(ctx.flow.order)
    unseen = ctx.weights.keys() & weight_parameters(ctx.module).keys() - set(order)
    found = [name for name in ctx.weights if name in unseen and _is_reached(ctx, name)]
    before = ""

    def visit(product: Product) -> None:
        nonlocal before
        name = product.parameter
        if name not in order:
            order.insert(order.index(before) + 1 if before else 0, name)
        before = name

    if found:
        ctx.observe(visit, names=[name for name in ctx.weights if name in order or name in found])
    return order


def _is_reached(ctx: PruneContext, name: str) -> bool:
    try:
        ctx.observe(lambda product: None, names=[name])
    except UnseenError:
        return False
    return True


def _alive(ctx: PruneContext, name: str) -> Units:
    """The weights of a layer to be counted: those that are gone at -inf, others without values of their own."""
    scores = ctx.weights[name].new_zeros(()).expand(ctx.weights[name].shape)
    gone = ctx.removed(name)
    return Units(scores.masked_fill(gone, -torch.inf) if bool(gone.any()) else scores)


def one_per_layer(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> dict[str, int]:
    """Weights per layer: the same fraction, one at least."""
    units = {name: keep_at_least(u, 1) for name, u in units.items()}
    return layerwise_counts(units, budget, ctx, "one weight of every layer stays")


def layer_units(ctx: PruneContext, name: str, score: Tensor) -> Units:
    """The units of one layer in the method's structure, with what earlier rounds removed at -inf."""
    require_numbers(name, score)
    score = score.masked_fill(ctx.removed(name), -torch.inf)
    return ctx.structure.group(ctx.only(name), {name: score}).units[name]


def norms_of(ctx: PruneContext, name: str, values: Mapping[str, Tensor]) -> Tensor:
    """The L2 norm of the inputs that each weight multiplies, in the weight's shape."""
    squares: list[Tensor] = []
    ctx.observe(lambda p: squares.append(p.column_sums(torch.square)), names=[name], values=values)
    return ctx.per_column(name, torch.stack(squares).sum(0).sqrt())


def prune_by_wanda(
    ctx: PruneContext, name: str, count: int, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """Wanda's mask of one layer."""
    score = ctx.weights[name].abs() * norms_of(ctx, name, values)
    return keep_in_rows(name, layer_units(ctx, name, score), count, ctx), None


@pruning_method(
    "wanda_4_8",
    structure=four_of_eight,
    allocation=rowwise,
    needs=("data",),
    batch_count=2,
    reference="sun2024simple",
)
@pruning_method(
    "wanda_2_4",
    structure=two_of_four,
    allocation=rowwise,
    needs=("data",),
    batch_count=2,
    reference="sun2024simple",
)
@pruning_method(
    "wanda",
    kind="activation",
    version=2,
    allocation=rowwise,
    needs=("data",),
    batch_count=2,
    reference="sun2024simple",
)
@decides("allocation")
def wanda(ctx: PruneContext) -> Masks:
    """``|w|`` times the L2 norm of the inputs that it multiplies, compared within each row; no new values.

    Each row keeps a weight at least, as by the authors' rounding of how many go.
    """
    return layer_by_layer(ctx, prune_by_wanda, rowwise_counts)


@dataclass(frozen=True)
class Columns:
    """A layer's weight as one matrix per group, columns ordered by kernel position, then input channel.

    In this order the runs of an N:M pattern are consecutive columns.
    """

    ctx: PruneContext
    name: str

    def matrices(self, tensor: Tensor) -> Tensor:
        """(groups, outputs per group, columns) of a weight-shaped tensor."""
        geometry = self.ctx.geometry(self.name)
        rows = geometry.rows(tensor)
        last = rows.movedim(1, -1).reshape(geometry.groups, len(rows) // geometry.groups, -1)
        return last.clone()

    def restore(self, matrices: Tensor) -> Tensor:
        """The inverse of :meth:`matrices`."""
        geometry = self.ctx.geometry(self.name)
        outputs, inputs, *kernel = geometry.rows(self.ctx.weights[self.name]).shape
        return geometry.restore(matrices.reshape(outputs, *kernel, inputs).movedim(-1, 1)).contiguous()

    def hessian(self, values: Mapping[str, Tensor]) -> Tensor:
        """``2 / images * X' X`` of the layer's inputs, (groups, columns, columns)."""
        sums: list[Tensor] = []

        def visit(product: Product) -> None:
            product.require_own_weight()
            for columns in product.columns():
                gram = columns.transpose(1, 2) @ columns
                if sums:
                    sums[0] += gram
                else:
                    sums.append(gram)

        images = self.ctx.observe(visit, names=[self.name], values=values)
        _, inputs, *kernel = self.ctx.geometry(self.name).rows(self.ctx.weights[self.name]).shape
        positions = math.prod(kernel)
        total = sums.pop().mul_(2 / images)
        if positions > 1:
            order = torch.arange(inputs * positions, device=total.device).reshape(inputs, -1).T.reshape(-1)
            total = total[:, order][:, :, order]
        return total


def inverse_roots(hessians: Tensor) -> Tensor:
    """Upper Cholesky factors of the inverses of the damped Hessians, (groups, columns, columns).

    Row i over its diagonal is the optimal change of the columns to the right when column i goes and those to
    the left are fixed. Overwrites ``hessians``.
    """
    diagonal = hessians.diagonal(dim1=1, dim2=2)
    diagonal[diagonal == 0] = 1  # inputs that are always zero
    diagonal += _DAMPING * diagonal.mean(1, keepdim=True)
    torch.linalg.cholesky(hessians, out=hessians)
    torch.cholesky_inverse(hessians, out=hessians)
    roots: Tensor = torch.linalg.cholesky(hessians, upper=True)
    return roots


def prune_by_sparsegpt(
    ctx: PruneContext, name: str, count: int, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """SparseGPT's mask of one layer, and its new weights."""
    columns = Columns(ctx, name)
    hessians = columns.hessian(values)
    weights = columns.matrices(ctx.weights[name].float())
    masks = ~columns.matrices(ctx.removed(name))
    weights.masked_fill_((hessians.diagonal(dim1=1, dim2=2) == 0).unsqueeze(1), 0)
    roots = inverse_roots(hessians)
    pattern = ctx.structure.pattern
    inputs = ctx.geometry(name).rows(ctx.weights[name]).shape[1]
    if pattern is not None and inputs % pattern[1]:
        pattern = None  # this layer cannot hold it
    pieces = _pieces(weights.shape[2], pattern[1] if pattern else _COLUMNS)
    counts = _counts(masks, pieces, count)
    for piece, kept in zip(pieces, counts, strict=True):
        score = (weights[:, :, piece] / roots.diagonal(dim1=1, dim2=2)[:, None, piece]).square()
        require_numbers(name, score)
        masks[:, :, piece] = _best(score.masked_fill(~masks[:, :, piece], -torch.inf), kept, pattern)
        _make_up(weights, masks, roots, piece)
    return columns.restore(masks), columns.restore(weights)


def _pieces(width: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, width)) for start in range(0, width, step)]


def _counts(alive: Tensor, pieces: list[slice], count: int) -> list[int]:
    """How many weights stay in each piece: the same fraction, ``count`` in all."""
    numbers = {str(i): int(alive[:, :, piece].sum()) for i, piece in enumerate(pieces)}
    shares = fill(numbers, {key: (0, number) for key, number in numbers.items()}, count)
    units = {key: Units(torch.zeros(number)) for key, number in numbers.items()}
    return list(whole_units(units, shares, count).values())


def _best(score: Tensor, count: int, pattern: tuple[int, int] | None) -> Tensor:
    first = None
    if pattern is not None:
        best = score.argsort(dim=-1, descending=True, stable=True)[..., : pattern[0]]
        first = torch.zeros_like(score, dtype=torch.bool).scatter_(-1, best, value=True) & (score > -torch.inf)
    return keep_best({"": Units(score, first=first)}, count)[""]


def _make_up(weights: Tensor, masks: Tensor, roots: Tensor, piece: slice) -> None:
    """Remove the masked weights of ``piece``, column by column; columns to the right make up for each."""
    errors = torch.zeros_like(weights[:, :, piece])
    for k, i in enumerate(range(piece.start, piece.stop)):
        column = weights[:, :, i]
        error = column.masked_fill(masks[:, :, i], 0) / roots[:, None, i, i]
        errors[:, :, k] = error
        weights[:, :, i : piece.stop] -= error.unsqueeze(-1) * roots[:, None, i, i : piece.stop]
    weights[:, :, piece.stop :] -= errors @ roots[:, piece, piece.stop :]


@pruning_method(
    "sparsegpt_2_4",
    structure=two_of_four,
    allocation=layerwise,
    needs=("data",),
    batch_count=2,
    reference="frantar2023sparsegpt",
)
@pruning_method(
    "sparsegpt",
    kind="curvature",
    version=2,
    allocation=layerwise,
    needs=("data",),
    batch_count=2,
    reference="frantar2023sparsegpt",
)
@decides("allocation")
def sparsegpt(ctx: PruneContext) -> Masks:
    """``w^2 / [H^-1]_ww`` of each layer's squared error, column by column; the columns to the right make up.

    Columns of a convolution go by kernel position, then input channel; the authors' code goes channel by
    channel, and the order changes the result.
    """
    return layer_by_layer(ctx, prune_by_sparsegpt, one_per_layer)
