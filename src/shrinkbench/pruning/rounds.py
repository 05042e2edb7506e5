"""The rounds of a method: how much goes in each, whether the last is in reach, what its controls keep."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.metrics.size import require_masks_of
from shrinkbench.network.inputs import Example, given_example
from shrinkbench.network.view import Batches, Loss
from shrinkbench.network.weights import copy_of
from shrinkbench.pruning.allocations.rules import global_
from shrinkbench.pruning.amounts import amount_of, budget_for, largest_named, steps_to
from shrinkbench.pruning.collapse import warn_of_collapse
from shrinkbench.pruning.constraining import constrained, constraints_for
from shrinkbench.pruning.context import Proportions, PruneContext
from shrinkbench.pruning.masking import (
    allocate,
    kept_by_group,
    look_ahead,
    prune_once,
    require_speedup_in_reach,
)
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import METHODS, PruningMethod
from shrinkbench.pruning.prunable import prunable_names, require_structure_takes
from shrinkbench.pruning.units import Grouping
from shrinkbench.spec import UNPRUNED, Amount, Compression, Speedup
from shrinkbench.spec.amount import ratio_of
from shrinkbench.spec.constraints import UNCONSTRAINED, Constraints


@torch.inference_mode(mode=False)
def prune(
    module: nn.Module,
    method: str | PruningMethod,
    *,
    compression: float | None = None,
    fraction_per_layer: float | None = None,
    channels: float | None = None,
    speedup: float | None = None,
    round_to: int | None = None,
    ignore: Sequence[str] = (),
    max_ratio: float | None = None,
    batches: Batches | None = None,
    input_shape: Example | None = None,
    example_inputs: Example | None = None,
    masks: Masks | None = None,
    generator: torch.Generator | None = None,
    iteration: int = 0,
    prune_classifier: bool = False,
    prune_biases: bool = False,
    prune_embeddings: bool = False,
    loss: Loss = F.cross_entropy,
    one_shot: bool = False,
) -> Masks:
    """Decide which weights of ``module`` to keep; the module itself is left untouched.

    How much goes is said once: ``compression`` = original / kept parameters of the whole network,
    ``fraction_per_layer`` of the units of every layer, ``channels``, a fraction of all of them, or ``speedup``
    = original / kept multiply-adds, met by the largest network that meets it; methods such as
    ``network_slimming:70`` bring their amount along. ``round_to``, ``ignore`` and ``max_ratio`` are those of
    :class:`shrinkbench.spec.Constraints`; the target is met within them, or refused. ``batches`` is any
    iterable of batches, needed by methods that score on data: (inputs, targets), with several inputs as a tuple
    or a dictionary, or dictionaries that hold their targets as ``labels``. What the network takes is seen from
    the first of them, from ``example_inputs`` (a tensor, a tuple of arguments or a dictionary of named ones) or
    from ``input_shape``, that of one float tensor. ``loss(outputs, targets)`` is given what the network
    returns, a loss of torch's its logits. ``masks`` are those of an earlier round, within which the new ones
    stay. Apply the result with ``masks.apply(module)``. Randomness comes from ``generator`` alone.

    A method of several rounds without training between them is carried out whole, unless ``masks`` say that the
    caller carries its rounds out. One that prunes while it trains, trains between its rounds, or goes on from
    other weights than those at hand (rewound, drawn anew) is refused, since masks are not all of it, unless
    ``one_shot`` asks for its score, structure and allocation alone.
    Where a layer keeps no weight, a ``LayerCollapseWarning`` names it.

    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> masks = prune(net, "global_magnitude", compression=2, input_shape=(8,))
    >>> masks.kept + 8 + 18  # kept weights, biases and the classifier: half of 90 parameters
    45
    """
    chosen = METHODS.get(method) if isinstance(method, str) else method
    amount = amount_of(
        chosen,
        compression=compression,
        fraction_per_layer=fraction_per_layer,
        channels=channels,
        speedup=speedup,
    )
    constraints = constraints_for(chosen, amount, round_to=round_to, ignore=ignore, max_ratio=max_ratio)
    if not one_shot:
        _require_masks_alone(chosen)
    require_masks_of(module, masks or {})
    example = given_example(input_shape, example_inputs)
    if example is None and batches is not None:
        batches, example = look_ahead(batches)
    settings: dict[str, Any] = {
        "input_shape": example,
        "prune_classifier": prune_classifier,
        "prune_biases": prune_biases,
        "prune_embeddings": prune_embeddings,
        "constraints": constraints,
    }
    several = chosen.schedule.rounds != 1 and not one_shot
    if several and masks is not None and chosen.like is not None:
        raise ShrinkbenchError(
            f"'{chosen.name}' has the proportions that '{chosen.like.name}' ends with, which no single round "
            "can know; leave masks= out, so that prune() carries all rounds out"
        )
    if not several or masks is not None:  # the caller carries the rounds out
        try:
            found = prune_once(
                module,
                chosen,
                amount=amount,
                batches=batches,
                masks=masks,
                iteration=iteration,
                loss=loss,
                generator=generator,
                **settings,
            )
        except CannotMeetTargetError:
            if masks is None:  # within masks, what a unit still holds is in the error already
                rounds_of(module, chosen, amount, **settings)  # names the largest that everything allows
            raise
    else:
        if batches is not None and iter(batches) is batches:
            batches = list(islice(batches, chosen.batch_count))
        steps = rounds_of(module, chosen, amount, **settings)
        found = _in_rounds(module, chosen, steps, generator, {**settings, "batches": batches, "loss": loss})
    if not chosen.structure.one_per_layer:  # whole layers are what is removed
        warn_of_collapse(module, found)
    return found


def _require_masks_alone(method: PruningMethod) -> None:
    """Refuse a method of which masks are a part alone: what it does beside would be left out in silence."""
    mode, ask = method.finetuning, "or ask with one_shot=True (--one-shot)"
    if not method.in_one_step:
        raise ShrinkbenchError(
            f"'{method.name}' prunes over a training (schedule {method.schedule.name}), and prune() trains "
            f"nothing; a sweep or, in your own loop, a Pruner carries it out; {ask} for masks by its score and "
            "allocation alone"
        )
    if mode.weights != "kept":
        done = "rewinds weights" if mode.weights == "rewound" else "trains weights that it draws anew"
        raise ShrinkbenchError(
            f"'{method.name}' {done} after pruning (fine-tuning {mode.name}), and prune() leaves them as they "
            f"are; a sweep carries it out; {ask} for its masks alone"
        )


def _in_rounds(
    module: nn.Module,
    method: PruningMethod,
    steps: Sequence[Amount],
    generator: torch.Generator | None,
    settings: dict[str, Any],
) -> Masks:
    """All rounds of ``method`` on a copy of ``module``, without training."""
    generator = generator or torch.Generator().manual_seed(0)
    proportions = None
    if method.like is not None:
        same = torch.Generator(generator.device)  # what the method itself would draw from
        same.set_state(generator.get_state())
        ended = _in_rounds(module, method.like, steps, same, settings)
        proportions = proportions_of(method.like, module, ended, **_where(settings))
    network, masks = copy_of(module), Masks({})
    for number, step in enumerate(steps):
        masks = prune_once(
            network,
            method,
            amount=step,
            masks=masks,
            iteration=number,
            generator=generator,
            proportions=progressed(proportions, step, steps[-1]),
            **settings,
        )
        masks.apply(network)
    return masks


def _where(settings: dict[str, Any]) -> dict[str, Any]:
    names = ("input_shape", "prune_classifier", "prune_biases", "prune_embeddings")
    return {**{name: settings[name] for name in names}, "ignore": settings["constraints"].ignore}


def rounds_of(
    module: nn.Module,
    method: PruningMethod,
    amount: Amount,
    *,
    input_shape: Example | None,
    prune_classifier: bool = False,
    prune_biases: bool = False,
    prune_embeddings: bool = False,
    constraints: Constraints = UNCONSTRAINED,
) -> tuple[Amount, ...]:
    """How much is pruned in each round of ``method``, ``amount`` in the last.

    Of the parameters that its structure can remove from ``module``, every round takes the share that the
    schedule says. Raises ``CannotMeetTargetError`` where ``amount`` itself is out of reach, as far as that can
    be told without scores.
    """
    own = method.like or method
    if not isinstance(amount, Compression | Speedup) or amount == UNPRUNED:
        return (amount,)
    names = prunable_names(
        module,
        input_shape=input_shape,
        prune_classifier=prune_classifier,
        prune_biases=prune_biases,
        prune_embeddings=prune_embeddings,
        ignore=constraints.ignore,
    )
    require_structure_takes(own.structure, module, names)
    ctx = PruneContext(
        module,
        names,
        input_shape=input_shape,
        amount=amount,
        structure=own.structure,
        constraints=constraints,
    )
    if isinstance(amount, Speedup):
        if not _decides_all(own):
            require_speedup_in_reach(own, _equal_units(own, ctx), ctx, amount)
        return (amount,)
    with largest_named(partial(_require_reach, own, ctx), amount):
        if own.in_one_step and own.schedule.rounds == 1 and "allocation" in own.decides:
            budget_for(own, module, names, amount)  # how much a layer has to keep its round tells
            return (amount,)
        _require_reach(own, ctx, amount)
    if method.schedule.rounds == 1 or method.schedule.during is not None:
        return (amount,)
    return steps_to(method, amount, total=ctx.total, prunable=_removable(own, ctx))


def _require_reach(method: PruningMethod, ctx: PruneContext, amount: Compression) -> None:
    """Raise ``CannotMeetTargetError`` where ``amount`` is out of reach, whatever the scores will be."""
    budget = budget_for(method, ctx.module, tuple(ctx.weights), amount)
    if _decides_all(method) or budget is None:
        return
    ctx = copy.copy(ctx)
    ctx.amount, ctx.budget = amount, budget
    if "data" in method.allocation.needs:  # which are not at hand; of its proportions any sum can be reached
        method = replace(method, allocation=global_)
    allocate(method, _equal_units(method, ctx), ctx)


def _decides_all(method: PruningMethod) -> bool:
    """Whether the score returns masks of which nothing is known beforehand."""
    return {"structure", "allocation"} <= set(method.decides)


def _equal_units(method: PruningMethod, ctx: PruneContext) -> Grouping:
    """The units of the network, with equal scores."""
    return method.structure.group(ctx, {name: torch.ones_like(w) for name, w in ctx.weights.items()})


def _removable(method: PruningMethod, ctx: PruneContext) -> int:
    """Parameters that belong to some unit of the method's structure."""
    if _decides_all(method):
        return ctx.total
    grouping = constrained(_equal_units(method, ctx), ctx.constraints)
    removed: dict[str, Tensor] = {}
    for last in (False, True):  # some have to stay, but none in particular
        keep = {}
        for name, units in grouping.units.items():
            kept = torch.zeros(units.scores.numel(), dtype=torch.bool, device=units.scores.device)
            kept[len(kept) - units.least if last else 0 : len(kept) if last else units.least] = True
            keep[name] = kept.reshape(units.scores.shape)
        for name, mask in grouping.expand(keep).items():
            removed[name] = removed[name] | ~mask if name in removed else ~mask
    return sum(int(mask.sum()) for mask in removed.values())


def proportions_of(
    method: PruningMethod,
    module: nn.Module,
    masks: Masks,
    *,
    input_shape: Example | None,
    prune_classifier: bool = False,
    prune_biases: bool = False,
    prune_embeddings: bool = False,
    ignore: Sequence[str] = (),
) -> Proportions:
    """How many weights of each group of units the final ``masks`` of ``method`` keep."""
    names = prunable_names(
        module,
        input_shape=input_shape,
        prune_classifier=prune_classifier,
        prune_biases=prune_biases,
        prune_embeddings=prune_embeddings,
        ignore=ignore,
    )
    ctx = PruneContext(module, names, input_shape=input_shape, structure=method.structure)
    return Proportions(kept_by_group(method, ctx, masks))


def progressed(proportions: Proportions | None, amount: Amount, last: Amount) -> Proportions | None:
    """``proportions`` in the round of ``amount``: each layer has lost one share of what goes in all."""
    if proportions is None or amount == last:
        return proportions
    return replace(proportions, progress=(1 - 1 / ratio_of(amount)) / (1 - 1 / ratio_of(last)))
