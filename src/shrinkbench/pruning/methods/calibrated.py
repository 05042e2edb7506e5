"""More methods for language models that prune once on calibration data: RIA, OWL and DSnoT."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.observation import Product
from shrinkbench.pruning.allocations.by_row import keep_in_rows, rowwise, rowwise_counts
from shrinkbench.pruning.allocations.outliers import outlier_shares, owl
from shrinkbench.pruning.allocations.rules import (
    keep_at_least,
    keep_counts,
    layerwise,
    layerwise_counts,
)
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.methods.wanda_sparsegpt import (
    Columns,
    layer_by_layer,
    layer_units,
    norms_of,
    one_per_layer,
    prune_by_sparsegpt,
    prune_by_wanda,
)
from shrinkbench.pruning.structures.single import two_of_four
from shrinkbench.pruning.units import Units

_POWER = 0.5  # a of RIA
_CYCLES, _THRESHOLD = 50, 0.1  # of DSnoT: exchanges in a row at most, and the error below which it stops


def relative_importance(weight: Tensor) -> Tensor:
    """``|w_ij| / sum of column j + |w_ij| / sum of row i``, of matrices (..., outputs, inputs).

    >>> relative_importance(torch.tensor([[1.0, -1.0], [3.0, 0.0]])).tolist()
    [[0.75, 1.5], [1.75, 0.0]]
    """
    size = weight.abs()
    tiny = torch.finfo(size.dtype).tiny
    return size / size.sum(-2, keepdim=True).clamp_min(tiny) + size / size.sum(-1, keepdim=True).clamp_min(tiny)


def _prune_by_ria(
    ctx: PruneContext, name: str, count: int, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    columns = Columns(ctx, name)
    relative = columns.restore(relative_importance(columns.matrices(ctx.weights[name])))
    score = relative * norms_of(ctx, name, values).pow(_POWER)
    return keep_counts({name: layer_units(ctx, name, score)}, {name: count})[name], None


@pruning_method(
    "ria_2_4",
    structure=two_of_four,
    allocation=layerwise,
    needs=("data",),
    batch_count=2,
    reference="zhang2024plug",
)
@pruning_method(
    "ria",
    kind="activation",
    allocation=layerwise,
    needs=("data",),
    batch_count=2,
    reference="zhang2024plug",
)
@decides("allocation")
def ria(ctx: PruneContext) -> Masks:
    """``(|w| / sum of its column + |w| / sum of its row)`` times the root of the L2 norm of its inputs.

    Compared within each layer, as the authors' code does unless told otherwise; no channel is permuted.
    """
    return layer_by_layer(ctx, _prune_by_ria, one_per_layer)


def _owl_rows(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> dict[str, int]:
    return rowwise_counts(units, budget, ctx, outlier_shares)


def _owl_layers(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> dict[str, int]:
    units = {name: keep_at_least(u, 1) for name, u in units.items()}
    return layerwise_counts(units, budget, ctx, "one weight of every layer stays", outlier_shares)


@pruning_method(
    "owl_wanda",
    kind="activation",
    allocation=owl,
    needs=("data",),
    batch_count=2,
    reference="yin2024outlier",
)
@decides("allocation")
def owl_wanda(ctx: PruneContext) -> Masks:
    """Wanda within each row, with more weights in blocks that hold more outliers."""
    return layer_by_layer(ctx, prune_by_wanda, _owl_rows)


@pruning_method(
    "owl_sparsegpt",
    kind="curvature",
    allocation=owl,
    needs=("data",),
    batch_count=2,
    reference="yin2024outlier",
)
@decides("allocation")
def owl_sparsegpt(ctx: PruneContext) -> Masks:
    """SparseGPT, with more weights in blocks that hold more outliers."""
    return layer_by_layer(ctx, prune_by_sparsegpt, _owl_layers)


def exchange(
    weight: Tensor, mask: Tensor, *, norms: Tensor, means: Tensor, variances: Tensor, gone: Tensor | None = None
) -> Tensor:
    """DSnoT: in rows of ``weight`` (outputs, inputs), removed weights come back and kept ones go.

    The error of a row is the sum of ``w * mean(x)`` over what is removed. In a cycle comes back, of the
    removed, the largest ``sign(error) * w * mean(x) / var(x)``; and goes, of the kept whose ``w * mean(x)`` has
    the other sign than the error, the least ``|w| * norm(x)``. A row ends once its error is at most 0.1, after
    50 cycles, or with nothing left whose exchange helps. What has moved does not move again, and what is
    ``gone`` does not come back.
    """
    effect = weight * means
    gain = effect / variances.clamp_min(torch.finfo(variances.dtype).tiny)
    size = weight.abs() * norms
    mask, moved = mask.clone(), torch.zeros_like(mask) if gone is None else gone.clone()
    rows = torch.arange(len(mask), device=mask.device)
    for _ in range(_CYCLES):
        error = effect.masked_fill(mask, 0).sum(1)
        sign = error.sign().unsqueeze(1)
        back = (sign * gain).masked_fill(mask | moved, -torch.inf)
        away = size.masked_fill(~mask | moved | (sign * effect >= 0), torch.inf)
        grown, cut = back.argmax(1), away.argmin(1)
        active = (error.abs() > _THRESHOLD) & (back[rows, grown] > 0) & (away[rows, cut] < torch.inf)
        if not bool(active.any()):
            break
        at = rows[active]
        mask[at, grown[active]], mask[at, cut[active]] = True, False
        moved[at, grown[active]], moved[at, cut[active]] = True, True
    return mask


def _prune_by_dsnot(
    ctx: PruneContext, name: str, count: int, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    sums: list[Tensor] = []
    squares: list[Tensor] = []
    positions: list[int] = []

    def visit(product: Product) -> None:
        sums.append(product.column_sums(lambda x: x))
        squares.append(product.column_sums(torch.square))
        positions.append(product.output[:, 0].numel())

    ctx.observe(visit, names=[name], values=values)
    total = torch.stack(squares).sum(0)
    mean = torch.stack(sums).sum(0) / sum(positions)
    spread = [
        ctx.per_column(name, each) for each in (total.sqrt(), mean, total / sum(positions) - mean.square())
    ]
    score = ctx.weights[name].abs() * spread[0]
    start = keep_in_rows(name, layer_units(ctx, name, score), count, ctx)
    geometry = ctx.geometry(name)
    shape = geometry.rows(start).shape

    def flat(tensor: Tensor) -> Tensor:
        return geometry.rows(tensor).reshape(shape[0], -1)

    found = exchange(
        flat(ctx.weights[name]),
        flat(start),
        norms=flat(spread[0]),
        means=flat(spread[1]),
        variances=flat(spread[2]).clamp_min(0),
        gone=flat(ctx.removed(name)),
    )
    return geometry.restore(found.reshape(shape)).contiguous(), None


@pruning_method(
    "dsnot",
    kind="activation",
    allocation=rowwise,
    needs=("data",),
    batch_count=2,
    reference="zhang2024dynamic",
)
@decides("allocation")
def dsnot(ctx: PruneContext) -> Masks:
    """Wanda's masks, of which weights are exchanged within each row until its mean error is small.

    See :func:`exchange`; no weight gets a new value.
    """
    if ctx.structure.pattern:
        raise ShrinkbenchError(
            f"'dsnot' exchanges single weights of a row, which leaves no '{ctx.structure.name}'; choose the "
            "structure weights, or wanda"
        )
    return layer_by_layer(ctx, _prune_by_dsnot, rowwise_counts)
