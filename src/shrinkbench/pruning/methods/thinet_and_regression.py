"""ThiNet and regression-based channel pruning: choose what a layer reads by what it computes from it.

Both go through the network in order, each layer on inputs that the layers before it give once they are
pruned, and both change weights that stay. They prune channels that one layer produces and one layer reads;
the streams of residual networks, which many layers read, stay whole, as in the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.network.coupling import Coupling, couple
from shrinkbench.network.observation import Product
from shrinkbench.network.weights import layer_of
from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.methods.gram_selection import greedy_removal, lasso_selection, least_squares_scales
from shrinkbench.pruning.structures.channel_masks import masks_of_units, units_without_filters
from shrinkbench.pruning.structures.channels import Reader, chained_channels, readers

ROWS_PER_BATCH = 4096  # sampled outputs of a layer per batch of images


def kept_counts(ctx: PruneContext, coupling: Coupling, chosen: list[Reader]) -> dict[str, int]:
    """How many units of each group stay so that the compression is met: the same fraction, in whole units."""
    removal = ctx.total - round(ctx.total / ctx.target)
    limits = {r.key: int(alive_units(ctx, r).sum()) for r in chosen}
    units = {r.key: r.units for r in chosen}

    def counts(fraction: float) -> dict[str, int]:
        return {layer: min(max(1, round(n * fraction)), limits[layer]) for layer, n in units.items()}

    def removed(kept: Mapping[str, int]) -> int:
        keep = {layer: torch.arange(units[layer]) < n for layer, n in kept.items()}
        masks = masks_of_units(ctx.module, coupling, keep)
        return masks.total - masks.kept

    def enough(kept: Mapping[str, int]) -> bool:
        return removed(kept) >= removal

    if not chosen:
        raise ShrinkbenchError(
            "no channels of this network are made by one prunable layer and read by one (a classifier is "
            "prunable with prune_classifier alone); choose a method of structure 'channels'"
        )
    if not enough(counts(0.0)):
        raise CannotMeetTargetError.because(
            "other channels than those that one layer produces and one reads stay",
            compression=ctx.target,
            total=ctx.total,
            least=ctx.total - removed(counts(0.0)),
        )
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(counts(middle)) else (low, middle)
    kept, more = counts(low), counts(high)
    for layer in units:  # where several groups would gain a unit at once, as many as fit do
        if more[layer] > kept[layer] and enough({**kept, layer: kept[layer] + 1}):
            kept[layer] += 1
    return kept


def alive_units(ctx: PruneContext, reader: Reader) -> Tensor:
    """Units that no earlier round has removed."""
    if reader.group is not None:
        return ~units_without_filters(reader.group, ctx.masks)
    mask = ctx.masks.get(reader.weight)
    return (
        torch.ones(reader.units, dtype=torch.bool) if mask is None else mask.transpose(0, 1).flatten(1).any(1)
    )


@dataclass
class _Samples:
    """Sampled inputs of one layer as matrices, the same places each time they are read."""

    ctx: PruneContext
    weight: str

    def rows(self, values: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """(sampled rows, columns of the reader's weight) per batch."""
        found: list[Tensor] = []

        def visit(product: Product) -> None:
            product.require_own_weight()
            pieces = [piece[0] for piece in product.columns()]
            total = sum(len(piece) for piece in pieces)
            generator = torch.Generator().manual_seed(total + len(found))
            chosen = torch.randperm(total, generator=generator)[:ROWS_PER_BATCH].sort().values
            found.append(torch.cat(pieces)[chosen.to(pieces[0].device)].double())

        self.ctx.observe(visit, names=[self.weight], values=values)
        yield from found


def _columns_of(reader: Reader, weight: Tensor) -> Tensor:
    """Unit of each column of the weight seen as a matrix (outputs, inputs x kernel)."""
    return reader.unit.repeat_interleave(weight[0, 0].numel() if weight.dim() > 2 else 1)


Choose = Callable[[PruneContext, Reader, int, Mapping[str, Tensor]], tuple[Tensor, Tensor]]


def require_rows(ctx: PruneContext, chosen: Iterable[Reader]) -> None:
    """Raise ``ShrinkbenchError`` where a reader's weight is not laid out as (outputs, inputs)."""
    for reader in chosen:
        if ctx.geometry(reader.weight).transposed:
            raise ShrinkbenchError(
                f"'{layer_of(reader.weight)}' lays its weight out as (inputs, outputs), and this method solves "
                "for rows of inputs; choose a method of structure 'channels'"
            )


def prune_by_readers(ctx: PruneContext, choose: Choose, *, counts: Mapping[str, int] | None = None) -> Masks:
    """Prune group after group; ``choose`` gives the units that stay and new values of the reader.

    ``counts`` tells how many units stay, by the layer of a group or, for inputs that a layer samples from a
    stream, by its weight; without it, as many stay as the compression asks for.
    """
    coupling = couple(ctx.module, ctx.example)
    chosen = readers(ctx, coupling)
    require_rows(ctx, chosen)
    if counts is None:
        counts = kept_counts(ctx, coupling, chosen)
    sampling = [Reader(name, torch.arange(w.shape[1])) for name, w in ctx.weights.items() if name in counts]
    chosen = [reader for reader in chosen if reader.key in counts] + sampling
    order = list(ctx.flow.order)
    parameters = dict(ctx.module.named_parameters())
    masks = Masks({})
    values: dict[str, Tensor] = {}
    for reader in sorted(chosen, key=lambda reader: order.index(reader.weight)):
        units, values[reader.weight] = choose(ctx, reader, counts[reader.key], values)
        keep = torch.zeros(reader.units, dtype=torch.bool)
        keep[units.cpu()] = True
        gone = _masks_of(ctx, coupling, reader, keep)
        for name, mask in gone.items():
            values[name] = values.get(name, parameters[name].detach()) * mask
        masks = masks.intersect(gone)
    return Masks(dict(masks), new_weights={r.weight: values[r.weight] for r in chosen})


def _masks_of(ctx: PruneContext, coupling: Coupling, reader: Reader, keep: Tensor) -> Masks:
    if reader.group is not None:
        return masks_of_units(ctx.module, coupling, {reader.key: keep})
    weight = ctx.weights[reader.weight]
    columns = keep.to(weight.device).reshape(1, -1, *[1] * (weight.dim() - 2))
    return Masks({reader.weight: columns.expand_as(weight).clone()})


def by_thinet(
    ctx: PruneContext, reader: Reader, keep: int, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Greedy removal by the joint share of the reader's output, then least-squares factors."""
    weight = ctx.weights[reader.weight]
    flat, of_column = weight.flatten(1).double(), _columns_of(reader, weight).to(weight.device)
    gram = torch.zeros(reader.units, reader.units, dtype=torch.float64, device=weight.device)
    generator = torch.Generator().manual_seed(0)
    for rows in _Samples(ctx, reader.weight).rows(values):
        outputs = torch.randint(len(flat), (len(rows),), generator=generator).to(rows.device)
        each = rows * flat[outputs]  # one random output per sampled place
        shares = each.new_zeros(len(rows), reader.units).index_add_(1, of_column, each)
        gram += shares.T @ shares
    alive = alive_units(ctx, reader).nonzero().flatten().to(gram.device)
    kept = alive[greedy_removal(gram[alive][:, alive], keep)]
    scales = torch.zeros(reader.units, dtype=torch.float64, device=weight.device)
    scales[kept] = least_squares_scales(gram, gram.sum(1), kept).to(weight.device)
    new = (flat * scales[of_column]).reshape(weight.shape).to(weight.dtype)
    return kept, new


@pruning_method(
    "thinet",
    kind="activation",
    structure=chained_channels,
    allocation=layerwise,
    needs=("data",),
    batch_count=8,
    reference="luo2017thinet",
)
@decides("structure", "allocation")
def thinet(ctx: PruneContext) -> Masks:
    """Greedy: the channels whose joint share of the next layer's output is smallest go; least squares rescales.

    Luo et al. 2017. One random output of the reader is sampled per place, 4,096 places per batch.
    """
    _ = ctx.image_count  # without data there is nothing to do
    return prune_by_readers(ctx, by_thinet)


def by_regression(
    ctx: PruneContext, reader: Reader, keep: int, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """LASSO against the unpruned network's outputs, then least squares for the reader's weights."""
    weight = ctx.weights[reader.weight]
    flat, of_column = weight.flatten(1).double(), _columns_of(reader, weight).to(weight.device)
    samples = _Samples(ctx, reader.weight)
    width = flat.shape[1]
    inner = flat.new_zeros(width, width)  # X'X of the inputs as they are now
    across = flat.new_zeros(width, len(flat))  # X'Y with the outputs as they were in the unpruned network
    for now, before in zip(samples.rows(values), samples.rows({}), strict=True):
        inner += now.T @ now
        across += now.T @ (before @ flat.T)
    # What channel i contributes is Z_i = X_i W_i': inner products of the Z follow from X'X.
    by_pair = (flat.T @ flat) * inner
    gram = _sum(_sum(by_pair, of_column, reader.units).T, of_column, reader.units)
    with_target = _sum((flat.T * across).sum(1, keepdim=True), of_column, reader.units).flatten()
    alive = alive_units(ctx, reader).nonzero().flatten().to(gram.device)
    kept = alive[lasso_selection(gram[alive][:, alive], with_target[alive], keep)]
    columns = torch.isin(of_column, kept).nonzero().flatten()
    normal = inner[columns][:, columns]
    ridge = 1e-9 * float(normal.diagonal().mean()) + 1e-30
    normal.diagonal().add_(ridge)
    solution = torch.linalg.solve(normal, across[columns])
    new = torch.zeros_like(flat)
    new[:, columns] = solution.T
    return kept, new.reshape(weight.shape).to(weight.dtype)


def _sum(rows: Tensor, of_row: Tensor, units: int) -> Tensor:
    """Rows added up by unit."""
    return rows.new_zeros(units, rows.shape[1]).index_add_(0, of_row, rows)


@pruning_method(
    "channel_regression",
    kind="activation",
    structure=chained_channels,
    allocation=layerwise,
    needs=("data",),
    batch_count=8,
    reference="he2017channel",
)
@decides("structure", "allocation")
def channel_regression(ctx: PruneContext) -> Masks:
    """LASSO over channel gates against the unpruned network's outputs, then least squares for the weights.

    He et al. 2017, without the correction of a shortcut's error; the inputs of residual streams are sampled in
    the published ResNet-50-2x alone.
    """
    _ = ctx.image_count  # without data there is nothing to do
    return prune_by_readers(ctx, by_regression)
