"""From a method and a target to masks: score, group, allocate, expand, update."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError, line_in
from shrinkbench.network.calling import in_own_precision
from shrinkbench.network.inputs import Example, Inputs
from shrinkbench.network.probe import require_materialised
from shrinkbench.network.view import Batches, Loss
from shrinkbench.network.weights import copy_of, require_present, require_values
from shrinkbench.pruning.allocations.per_layer import counts_per_layer, keep_of_all
from shrinkbench.pruning.allocations.rules import global_, keep_counts
from shrinkbench.pruning.amounts import budget_for, largest_named, takes_no_share
from shrinkbench.pruning.checked_batches import with_examples
from shrinkbench.pruning.constraining import (
    channels_in,
    channels_left,
    check_constraints,
    check_score_takes,
    constrained,
)
from shrinkbench.pruning.context import Proportions, PruneContext, stream_beside
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import PruningMethod
from shrinkbench.pruning.prunable import prunable_names, require_structure_takes
from shrinkbench.pruning.speeding import meet_speedup, require_speedup
from shrinkbench.pruning.top_k import require_numbers
from shrinkbench.pruning.units import Grouping, Keep, Scores, UnitScores
from shrinkbench.sources.origin import is_own
from shrinkbench.spec import UNPRUNED, Amount, ChannelFraction, Compression, FractionPerLayer, Speedup
from shrinkbench.spec.constraints import UNCONSTRAINED, Constraints


@torch.inference_mode(mode=False)
@in_own_precision
def prune_once(
    module: nn.Module,
    method: PruningMethod,
    *,
    amount: Amount,
    batches: Batches | None = None,
    input_shape: Example | None = None,
    masks: Masks | None = None,
    generator: torch.Generator | None = None,
    iteration: int = 0,
    prune_classifier: bool = False,
    prune_biases: bool = False,
    prune_embeddings: bool = False,
    loss: Loss = F.cross_entropy,
    scores: Scores | None = None,
    proportions: Proportions | None = None,
    constraints: Constraints = UNCONSTRAINED,
    learned: Mapping[str, Tensor] | None = None,
) -> Masks:
    """One round of ``method``: its score, structure and allocation, whatever its schedule.

    ``scores`` take the place of the method's own; a control (``random@METHOD``) keeps to its own, and
    to the ``proportions`` of its method where that has several rounds. ``learned`` is that of the context.
    """
    require_materialised(module)
    require_present(module)
    if any(p.is_inference() for p in module.parameters()):  # autograd refuses them
        module = copy_of(module)
    if input_shape is None and batches is not None:
        batches, input_shape = look_ahead(batches)
    check_constraints(method, constraints, amount)
    names = prunable_names(
        module,
        input_shape=input_shape,
        prune_classifier=prune_classifier,
        prune_biases=prune_biases,
        prune_embeddings=prune_embeddings,
        ignore=constraints.ignore,
    )
    ctx = PruneContext(
        module,
        names,
        batches=batches,
        batch_count=method.batch_count,
        input_shape=input_shape,
        generator=generator,
        masks=masks,
        amount=amount,
        budget=budget_for(method, module, names, amount),
        iteration=iteration,
        loss=loss,
        proportions=proportions,
        constraints=constraints,
        learned=learned,
    )
    if amount == UNPRUNED:
        return Masks({name: torch.ones_like(w, dtype=torch.bool) for name, w in ctx.weights.items()})
    return decide(method, ctx, scores=scores)


def look_ahead(batches: Batches) -> tuple[Batches, Inputs]:
    """The inputs of the first batch, and batches of which none is lost."""
    with torch.random.fork_rng(devices=[]):  # a data loader draws from the global random state
        iterator = iter(batches)
        first = next(iterator, None)
    if first is None:
        raise ShrinkbenchError("batches= is empty; give at least one batch of data")
    inputs = next(with_examples([first])).inputs
    return (chain([first], iterator) if iterator is batches else batches), inputs


def decide(method: PruningMethod, ctx: PruneContext, *, scores: Scores | None = None) -> Masks:
    """The masks of one round, which keep ``ctx.budget`` of the prunable weights."""
    ctx = copy.copy(ctx)
    ctx.structure = method.structure
    require_structure_takes(method.structure, ctx.module, ctx.weights)
    for name, weight in ctx.weights.items():
        if weight.numel() and not all(bool(end.isfinite()) for end in weight.aminmax()):
            raise ShrinkbenchError(
                f"the weights of '{name}' contain NaN or infinity, so that nothing can be told of them; the "
                "network has diverged: give weights of an earlier epoch"
            )
    # What a schedule has learned are the scores of the method that trained; its controls have their own.
    if method.like is not None:  # its draws, and those of the method whose proportions it has, are two streams
        generator = ctx.generator
        ctx.generator = stream_beside(generator, "control")
        found = scored(method, ctx)
        ctx.generator = generator
    else:
        found = scored(method, ctx) if scores is None else scores
    if isinstance(found, Masks):
        ignored = {"structure", "allocation"}.intersection(method.imposed)
        check_score_takes(method, ctx.constraints)
        if method.like is None and isinstance(ctx.amount, FractionPerLayer | ChannelFraction | Speedup):
            raise takes_no_share(method, ctx.amount)
        if ignored and not method.decides:
            raise ShrinkbenchError(
                f"'{method.name}' would change nothing: the score '{method.score.__name__}' returns masks and "
                f"takes no {' and no '.join(sorted(ignored))} from outside"
            )
        masks = _checked_masks(found, ctx)
    else:
        _require_telling(method, ctx, found)
        masks = allocate(method, grouped(method, ctx, found), ctx)
    del found  # an update needs memory of its own
    if len(ctx.masks):
        masks = masks.intersect(ctx.masks)
    if method.update is not None:
        masks = Masks(dict(masks), new_weights=method.update(ctx, masks))
    require_values(ctx.module, masks)
    for name, value in masks.new_weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ShrinkbenchError(
                f"the new values of '{name}' that {method.name} gives contain NaN or infinity: its descent, "
                "its data or the network's weights have diverged; choose another method, or look at these"
            )
    return masks


def _require_telling(method: PruningMethod, ctx: PruneContext, found: Scores | UnitScores) -> None:
    """Refuse scores that data gave and that tell nothing: position alone would decide what stays.

    They are 0 throughout, or beyond what numbers hold; a score from outside may mean infinity so. Later rounds
    may find a network that earlier ones have cut through, which is reported as collapse.
    """
    values = found.scores if isinstance(found, UnitScores) else found
    if "data" not in method.needs:
        return
    over = [name for name, each in values.items() if bool((each == math.inf).any())]
    if over and is_own(method.score.__module__):
        raise ShrinkbenchError(
            f"scores that '{method.name}' gives '{over[0]}' overflow, so that position would decide among "
            "them: the loss, its gradients or the activations are too large; scale them down"
        )
    if not len(ctx.masks) and not any(bool(each.any()) for each in values.values()):
        raise ShrinkbenchError(
            f"'{method.name}' scores every weight 0, so that position alone would decide what stays: the loss "
            "does not change with any weight, or none reaches the outputs; give another loss, data or network"
        )


def scored(method: PruningMethod, ctx: PruneContext) -> Scores | UnitScores | Masks:
    """What the score returns; a mistake in code from outside this package is told in one sentence."""
    if is_own(method.score.__module__):
        try:
            return method.score(ctx)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise ShrinkbenchError(
                f"'{method.name}' cannot solve for its scores ({str(error).split(':')[0]}): the activations or "
                "gradients are not finite, or too much alike; give other data or check the network's weights"
            ) from None
    file = Path(inspect.getfile(method.score))
    weights = dict(ctx.module.named_parameters())
    before = {name: w._version for name, w in weights.items()}
    try:
        found: object = method.score(ctx)
    except ShrinkbenchError:
        raise
    except Exception as error:
        line = line_in(file, error)
        raise ShrinkbenchError(
            f"method '{method.name}' fails in {file}{line}: {type(error).__name__}: {error}"
        ) from error
    changed = [name for name, w in weights.items() if w._version != before[name]]
    if changed:
        raise ShrinkbenchError(
            f"method '{method.name}' in {file} writes into the network while it scores ('{changed[0]}'); "
            "work on a copy (.clone())"
        )
    if isinstance(found, UnitScores | Masks):
        return found
    tensors = isinstance(found, Mapping) and all(isinstance(score, Tensor) for score in found.values())
    if not tensors:
        raise ShrinkbenchError(
            f"method '{method.name}' in {file} returns {_kind(found)}; return one tensor per weight, "
            "{name: scores}, or Masks"
        )
    return cast("Scores", found)


def _kind(found: object) -> str:
    """What a score returned in place of tensors by name."""
    if isinstance(found, Mapping):
        return f"a dictionary of {', '.join(sorted({type(v).__name__ for v in found.values()}))}"
    return f"a value of type {type(found).__name__}"


def grouped(method: PruningMethod, ctx: PruneContext, scores: Scores | UnitScores) -> Grouping:
    """The units with their scores; what an earlier round removed is at -inf, so that it never comes back."""
    if not isinstance(scores, UnitScores):
        return method.structure.group(ctx, _checked_scores(scores, ctx))
    present = {name: torch.ones_like(w) for name, w in ctx.weights.items()}
    grouping = method.structure.group(ctx, _checked_scores(present, ctx))
    for name in grouping.units:
        if name not in scores.scores:
            raise ShrinkbenchError(
                f"the score of '{method.name}' scores other units than structure '{method.structure.name}' has "
                f"('{name}' is none of them); leave the structure as it is"
            )
        require_numbers(name, scores.scores[name])
    units = {
        name: replace(u, scores=scores.scores[name].masked_fill(u.scores == -math.inf, -math.inf))
        for name, u in grouping.units.items()
    }
    return Grouping(units, grouping.expand)


def allocate(method: PruningMethod, grouping: Grouping, ctx: PruneContext) -> Masks:
    """Spend the budget on units; an error names a target that these units can meet."""

    def meet(amount: Compression) -> None:
        then = copy.copy(ctx)
        then.amount = amount
        then.budget = budget_for(method, ctx.module, tuple(ctx.weights), amount) or 0
        _allocate(method, grouping, then)

    with largest_named(meet, ctx.amount):
        return _allocate(method, grouping, ctx)


def _allocate(method: PruningMethod, grouping: Grouping, ctx: PruneContext) -> Masks:
    """Spend the budget on units; where sizes do not add up, bisection finds what is closest from below."""
    plain, grouping = grouping, constrained(grouping, ctx.constraints)
    if isinstance(ctx.amount, FractionPerLayer) and method.like is None:
        skip = frozenset() if ctx.amount.projections else ctx.flow.projections
        counts = counts_per_layer(grouping.units, ctx.amount.fraction, ctx.amount.rounding, skip=skip)
        return whole_masks(grouping, keep_counts(grouping.units, counts), ctx)
    if isinstance(ctx.amount, ChannelFraction) and method.like is None:
        if ctx.constraints.round_to is None:
            return whole_masks(grouping, keep_of_all(grouping.units, ctx.amount.fraction), ctx)
        units = channels_in(grouping, ctx.constraints, plain)
        left = channels_left(units, ctx.amount.fraction)
        return whole_masks(grouping, global_(units, left, ctx), ctx)
    prunable = sum(w.numel() for w in ctx.weights.values())
    inside = sum(u.total for u in grouping.units.values())
    fixed = 0 if method.structure.overlapping else prunable - inside
    least = sum(u.least_weight for u in grouping.units.values())

    def masks_for(weights: int) -> Masks:
        keep = method.allocation(grouping.units, weights, ctx)
        return whole_masks(grouping, keep, ctx).intersect(ctx.masks)

    if isinstance(ctx.amount, Speedup) and not method.allocation.fixed:
        masks_at = _masks_by_level(method, grouping, ctx)
        return meet_speedup(ctx.amount.ratio, masks_at, least, inside, ctx)
    if method.allocation.fixed:
        return masks_for(max(ctx.budget - fixed, 0))
    if not method.structure.overlapping and not _within_other_units(grouping, ctx):
        if ctx.budget < 1 or ctx.budget - fixed < least:
            raise _structure_out_of_reach(method, ctx, max(fixed + least, 1))
        return masks_for(ctx.budget - fixed)
    removal = prunable - ctx.budget
    low, high = least, inside
    smallest = masks_for(low)
    if smallest.total - smallest.kept < removal:
        raise _structure_out_of_reach(method, ctx, prunable - (smallest.total - smallest.kept))
    while low < high:
        middle = (low + high + 1) // 2
        masks = masks_for(middle)
        if masks.total - masks.kept >= removal:
            low = middle
        else:
            high = middle - 1
    return masks_for(low)


def _masks_by_level(method: PruningMethod, grouping: Grouping, ctx: PruneContext) -> Callable[[int], Masks]:
    """Masks that keep so many of the weights in units."""
    inside = sum(u.total for u in grouping.units.values())

    def masks_at(weights: int) -> Masks:
        ratio = max(ctx.total / max(ctx.total - inside + weights, 1), 1.0)  # an allocation may ask
        then = copy.copy(ctx)
        then.amount, then.budget = Compression(ratio=ratio), weights
        keep = method.allocation(grouping.units, weights, then)
        return whole_masks(grouping, keep, then).intersect(ctx.masks)

    return masks_at


def require_speedup_in_reach(
    method: PruningMethod, grouping: Grouping, ctx: PruneContext, amount: Speedup
) -> None:
    """Raise ``CannotMeetTargetError`` where what has to stay of the units is not fast enough."""
    if method.allocation.fixed:
        return
    grouping = constrained(grouping, ctx.constraints)
    least = sum(u.least_weight for u in grouping.units.values())
    inside = sum(u.total for u in grouping.units.values())
    require_speedup(amount.ratio, _masks_by_level(method, grouping, ctx), least, inside, ctx)


def kept_by_group(method: PruningMethod, ctx: PruneContext, masks: Masks) -> dict[str, int]:
    """How many weights of each group of ``method``'s units ``masks`` keep."""
    parameters = {**dict(ctx.module.named_parameters()), **ctx.weights}  # a classifier may lose inputs
    alive = {n: masks[n].to(w).float() if n in masks else torch.ones_like(w) for n, w in parameters.items()}
    units = method.structure.group(ctx, alive).units
    return {name: u.weight_of(u.scores > 0) for name, u in units.items()}


def _structure_out_of_reach(method: PruningMethod, ctx: PruneContext, least: int) -> CannotMeetTargetError:
    # What leaves with the units may be more than is prunable alone: biases, and inputs of a classifier.
    left = ctx.total - sum(w.numel() for w in ctx.weights.values()) + least
    reason = f"the structure '{method.structure.name}' leaves at least {left:,} of {ctx.total:,} parameters"
    return CannotMeetTargetError.because(reason, compression=ctx.target, total=ctx.total, least=left)


def _within_other_units(grouping: Grouping, ctx: PruneContext) -> bool:
    """Whether masks of another structure took weights of units that stay, which hold less than they say."""
    alive = {name: u.scores > -math.inf for name, u in grouping.units.items() if len(ctx.masks)}
    several = any(not grouping.units[name].single for name in alive)
    return several and not whole_masks(grouping, alive, ctx).within(ctx.masks)


def whole_masks(grouping: Grouping, keep: Keep, ctx: PruneContext) -> Masks:
    """Masks by parameter, full ones for weights that belong to no unit."""
    whole = {name: torch.ones_like(w, dtype=torch.bool) for name, w in ctx.weights.items()}
    return Masks(whole | grouping.expand(keep))


def _checked_scores(scores: Scores, ctx: PruneContext) -> Scores:
    """Weight-shaped scores, with what an earlier round removed at -inf, so that it never comes back."""
    missing = ctx.weights.keys() - scores.keys()
    if missing:
        raise ShrinkbenchError(f"the score gave nothing for '{min(missing)}'; return one tensor per weight")
    checked = {}
    for name, w in ctx.weights.items():
        try:
            score = scores[name].expand(w.shape)
        except RuntimeError:
            raise ShrinkbenchError(
                f"the score of '{name}' has shape {tuple(scores[name].shape)}, its weight {tuple(w.shape)}; "
                "return weight-shaped scores, or some that broadcast to that shape"
            ) from None
        require_numbers(name, score)
        checked[name] = score.masked_fill(ctx.removed(name), -math.inf) if name in ctx.masks else score
    return checked


def _checked_masks(masks: Masks, ctx: PruneContext) -> Masks:
    """What a method decided itself, completed by full masks for weights that it does not mention."""
    parameters = dict(ctx.module.named_parameters())
    for name, tensor in (*masks.items(), *masks.new_weights.items()):
        if name not in parameters or parameters[name].shape != tensor.shape:
            raise ShrinkbenchError(
                f"the method returned a mask or values of shape {tuple(tensor.shape)} for '{name}', which the "
                "network does not have in that shape"
            )
    whole = {n: torch.ones_like(w, dtype=torch.bool) for n, w in ctx.weights.items() if n not in masks}
    return Masks({**whole, **masks}, new_weights=masks.new_weights)
