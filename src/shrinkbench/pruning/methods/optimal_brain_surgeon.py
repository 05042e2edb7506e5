"""Scores and new weights from the inverse curvature: Optimal Brain Surgeon and WoodFisher.

Both take the curvature as ``F = lambda I + (1/N) sum of g g'`` over vectors g, block-diagonal in runs of
consecutive weights of a tensor. With the vectors of a block as rows of G, Woodbury's identity gives all that
is needed from the small matrix ``K = N lambda I + G G'``:

    diagonal of F^-1 = (1 - sum over rows of G * (K^-1 G)) / lambda
    change of kept weights = G_kept' (N lambda I + G_kept G_kept')^-1 G_removed w_removed

The change is the minimum of the quadratic model over kept weights, given that all removed ones become zero
together. G is recomputed for as many blocks at a time as fit in half the memory of the weights themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.derivatives import EXACT_CLASSES, outputs_of
from shrinkbench.network.probe import first_tensor
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.schedules.dynamic import gradual
from shrinkbench.pruning.units import Scores

Block = tuple[str, int, int]  # weight, first and last + 1 of its flattened entries

_NEEDS = ("data", "labels", "gradients")
_DAMPING = 1e-5  # lambda
_FISHER_IMAGES = 64
_NEWTON_IMAGES = 16
_MEMORY = 1 << 24  # numbers that may always be held (64 MB), however small the network
_RUN = 50  # weights of a small block
_COLUMNS = 1 << 14  # weights that are treated in double precision at a time


@dataclass(frozen=True)
class Curvature:
    """``F = lambda I + (1 / images) sum of g g'`` over what ``vectors`` yields, at most ``count`` vectors."""

    vectors: Callable[[], Iterator[dict[str, Tensor]]]
    images: int
    count: int


def _blocks(ctx: PruneContext, count: int) -> Iterator[list[Block]]:
    """All weights in blocks, in lists that fit the memory together when ``count`` vectors are held."""
    numbers = max(sum(w.numel() for w in ctx.weights.values()) // 2, _MEMORY)
    most = max(numbers // max(count, 1), 1)
    group: list[Block] = []
    used = 0
    for name, w in ctx.weights.items():
        for start in range(0, w.numel(), most):
            stop = min(start + most, w.numel())
            if used + stop - start > most and group:
                yield group
                group, used = [], 0
            group.append((name, start, stop))
            used += stop - start
    yield group


def _rows(curvature: Curvature, blocks: list[Block], device: torch.device) -> dict[Block, Tensor]:
    """The vectors of each block as rows of a matrix."""
    rows = {block: torch.zeros(curvature.count, block[2] - block[1], device=device) for block in blocks}
    for i, vector in enumerate(curvature.vectors()):
        for name, start, stop in blocks:
            rows[name, start, stop][i] = vector[name].reshape(-1)[start:stop]
    return rows


def _factor(rows: Tensor, curvature: Curvature, kept: Tensor | None = None) -> Tensor:
    """Cholesky factor of ``N lambda I + G G'``, over the columns that are kept."""
    kernel = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for start in range(0, rows.shape[1], _COLUMNS):
        g = rows[:, start : start + _COLUMNS].double()
        kernel += g @ g.T if kept is None else (g * kept[start : start + _COLUMNS]) @ g.T
    kernel.diagonal().add_(curvature.images * _DAMPING)
    factor: Tensor = torch.linalg.cholesky(kernel)
    return factor


def _require_slope(ctx: PruneContext, curvature: Curvature) -> None:
    """Refuse vectors that are all 0, of which the damping alone is left, so that magnitude would decide.

    Later rounds may find a network that earlier ones have cut through, which is reported as collapse.
    """
    if len(ctx.masks) or any(any(bool(g.any()) for g in each.values()) for each in curvature.vectors()):
        return
    raise ShrinkbenchError(
        "the gradients of all images are 0, so that there is no curvature and magnitude alone would decide "
        "what stays: the loss does not change with any weight; give another loss, data or network"
    )


def saliency(ctx: PruneContext, curvature: Curvature) -> Scores:
    """``w^2 / (2 [F^-1]_ww)``: the least increase of the loss when this weight goes and others adapt."""
    _require_slope(ctx, curvature)
    scores = {name: torch.empty(w.numel(), device=w.device) for name, w in ctx.weights.items()}
    for group in _blocks(ctx, curvature.count):
        for (name, first, last), rows in _rows(curvature, group, ctx.device).items():
            factor = _factor(rows, curvature)
            w = ctx.weights[name].reshape(-1)[first:last]
            for start in range(0, last - first, _COLUMNS):
                piece = slice(start, start + _COLUMNS)
                g = rows[:, piece].double()
                inverse = (1 - (g * torch.cholesky_solve(g, factor)).sum(0)) / _DAMPING
                scores[name][first:last][piece] = w[piece].double().square() / (2 * inverse.clamp(min=1e-30))
    return {name: scores[name].reshape(w.shape) for name, w in ctx.weights.items()}


def adapted(ctx: PruneContext, masks: Masks, curvature: Curvature) -> Mapping[str, Tensor]:
    """Weights after the kept ones have made up for the removed ones."""
    values = {name: (w * masks[name]).reshape(-1) for name, w in ctx.weights.items()}
    for group in _blocks(ctx, curvature.count):
        for (name, first, last), rows in _rows(curvature, group, ctx.device).items():
            kept = masks[name].reshape(-1)[first:last]
            w = ctx.weights[name].reshape(-1)[first:last]
            pieces = [slice(i, i + _COLUMNS) for i in range(0, last - first, _COLUMNS)]
            removed = sum(rows[:, p].double() @ (w[p] * ~kept[p]).double() for p in pieces)
            pull = torch.cholesky_solve(torch.as_tensor(removed).unsqueeze(1), _factor(rows, curvature, kept))
            for p in pieces:
                change = (rows[:, p].double().T @ pull).squeeze(1) * kept[p]
                values[name][first:last][p] += change.to(w)
    return {name: values[name].reshape(w.shape) for name, w in ctx.weights.items()}


def _runs(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Piece after piece of the columns: where it lies, and the outer products of each run of 50."""
    step = _COLUMNS // _RUN * _RUN
    for start in range(0, rows.shape[1], step):
        piece = slice(start, min(start + step, rows.shape[1]))
        g = _split(rows[:, piece].double())
        yield piece, torch.einsum("cri,crj->rij", g, g)


def _split(columns: Tensor) -> Tensor:
    """(..., columns) in runs of 50, filled with zeros: (..., runs, 50)."""
    filled = torch.nn.functional.pad(columns, (0, -columns.shape[-1] % _RUN))
    return filled.reshape(*columns.shape[:-1], -1, _RUN)


def _damped(outer: Tensor, curvature: Curvature) -> Tensor:
    outer = outer / curvature.images
    outer.diagonal(dim1=1, dim2=2).add_(_DAMPING)
    return outer


def _saliency_in_runs(ctx: PruneContext, curvature: Curvature) -> Scores:
    """:func:`saliency` with blocks of 50 consecutive weights."""
    _require_slope(ctx, curvature)
    scores = {name: torch.empty(w.numel(), device=w.device) for name, w in ctx.weights.items()}
    for group in _blocks(ctx, curvature.count):
        for (name, first, last), rows in _rows(curvature, group, ctx.device).items():
            w = ctx.weights[name].reshape(-1)[first:last]
            for piece, outer in _runs(rows):
                inverse = torch.linalg.inv(_damped(outer, curvature)).diagonal(dim1=1, dim2=2).reshape(-1)
                diagonal = inverse[: len(w[piece])].clamp(min=1e-30)
                scores[name][first:last][piece] = (w[piece].double().square() / (2 * diagonal)).to(w)
    return {name: scores[name].reshape(w.shape) for name, w in ctx.weights.items()}


def _adapted_in_runs(ctx: PruneContext, masks: Masks) -> Mapping[str, Tensor]:
    """:func:`adapted` with blocks of 50 consecutive weights: ``F_kk change_k = F_kr w_r`` in each."""
    curvature = _fisher(ctx)
    values = {name: (w * masks[name]).reshape(-1) for name, w in ctx.weights.items()}
    for group in _blocks(ctx, curvature.count):
        for (name, first, last), rows in _rows(curvature, group, ctx.device).items():
            w = ctx.weights[name].reshape(-1)[first:last]
            kept = masks[name].reshape(-1)[first:last]
            for piece, outer in _runs(rows):
                fisher, stays = _damped(outer, curvature), _split(kept[piece].double())
                removed = _split((w[piece] * ~kept[piece]).double())
                pull = torch.einsum("rij,rj->ri", fisher, removed) * stays
                fisher *= stays.unsqueeze(1) * stays.unsqueeze(2)
                fisher.diagonal(dim1=1, dim2=2).add_(1 - stays)
                change = torch.linalg.solve(fisher, pull).reshape(-1)[: len(w[piece])]
                values[name][first:last][piece] += change.to(w)
    return {name: values[name].reshape(w.shape) for name, w in ctx.weights.items()}


@pruning_method(
    "obert",
    kind="curvature",
    schedule=gradual,
    update=_adapted_in_runs,
    needs=_NEEDS,
    batch_count=4,
    reference="kurtic2022optimal",
)
def fisher_in_runs(ctx: PruneContext) -> Scores:
    """``w^2 / (2 [F^-1]_ww)``, F the empirical Fisher information in blocks of 50 weights; weights adapt.

    Kurtic et al. 2022, and Kuznedelev et al. 2023 for images: pruned gradually, F taken anew in each step. Up
    to 64 images, where the former take 1,024 gradients of batches; blocks are consecutive weights of a tensor.
    """
    return _saliency_in_runs(ctx, _fisher(ctx))


def _fisher(ctx: PruneContext) -> Curvature:
    images = min(_FISHER_IMAGES, ctx.image_count)
    return Curvature(lambda: islice(ctx.image_gradients(), images), images, images)


def _adapt_by_fisher(ctx: PruneContext, masks: Masks) -> Mapping[str, Tensor]:
    return adapted(ctx, masks, _fisher(ctx))


@pruning_method(
    "gradual_woodfisher",
    schedule=gradual,
    update=_adapt_by_fisher,
    needs=_NEEDS,
    batch_count=4,
    reference="singh2020woodfisher",
)
@pruning_method(
    "woodfisher",
    kind="curvature",
    update=_adapt_by_fisher,
    needs=_NEEDS,
    batch_count=4,
    reference="singh2020woodfisher",
)
def woodfisher(ctx: PruneContext) -> Scores:
    """``w^2 / (2 [F^-1]_ww)`` with F the empirical Fisher information, over up to 64 images; weights adapt.

    The paper adds up the changes for single weights, which is the same where one weight of a block goes; here
    they are optimal for all removed weights of a block together.
    """
    return saliency(ctx, _fisher(ctx))


def _gauss_newton(ctx: PruneContext) -> Curvature:
    images = min(_NEWTON_IMAGES, ctx.image_count)
    with torch.no_grad():
        one = next(ctx.each_batch()).inputs.fewest
        classes = first_tensor(outputs_of(ctx.module, ctx.parameters, one)).shape[-1]
    per_image = classes if classes <= EXACT_CLASSES else 1
    return Curvature(lambda: ctx.output_gradients(images), images, images * per_image)


def _adapt_by_newton(ctx: PruneContext, masks: Masks) -> Mapping[str, Tensor]:
    return adapted(ctx, masks, _gauss_newton(ctx))


@pruning_method(
    "obs",
    kind="curvature",
    update=_adapt_by_newton,
    needs=("data", "gradients"),
    reference="hassibi1993optimal",
)
def obs(ctx: PruneContext) -> Scores:
    """``w^2 / (2 [H^-1]_ww)`` with H the generalised Gauss-Newton matrix, over up to 16 images; weights adapt.

    Hassibi and Stork build H from gradients of the outputs, for a squared error; for a cross-entropy the
    outputs are weighted by the curvature of the loss in them, which is the same whatever the labels. They
    compute H^-1 anew after each weight that goes; here all saliencies are those of the first H.
    """
    return saliency(ctx, _gauss_newton(ctx))
