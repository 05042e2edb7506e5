"""Constraints on how many units a layer keeps, stated as units that any allocation understands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.method import PruningMethod
from shrinkbench.pruning.units import Grouping, Units
from shrinkbench.spec import Amount, Constraints, FractionPerLayer, PublishedWidths, parse_value
from shrinkbench.spec.axes import CHANNELS


def constraints_for(
    method: PruningMethod,
    amount: Amount,
    *,
    round_to: int | None,
    ignore: Sequence[str],
    max_ratio: float | None,
) -> Constraints:
    """The constraints as a value; raises ``ShrinkbenchError`` where they are none or ``amount`` breaks them."""
    given = {
        "round_to": round_to,
        "ignore": (ignore,) if isinstance(ignore, str) else tuple(ignore),
        "max_ratio": max_ratio,
    }
    constraints = parse_value(Constraints, given, where=f"method '{method.name}'")
    return check_constraints(method, constraints, amount)


def check_constraints(method: PruningMethod, constraints: Constraints, amount: Amount) -> Constraints:
    """``constraints``, or an error where ``method`` cannot keep to them or ``amount`` breaks them."""
    structure, largest = method.structure, constraints.max_ratio
    if isinstance(amount, FractionPerLayer) and largest is not None and amount.fraction > largest:
        raise ShrinkbenchError(
            f"{amount.label} is more than max_ratio={largest:g} lets go; ask for a fraction of at most "
            f"{largest:g}"
        )
    if isinstance(amount, PublishedWidths) and constraints.ignore:
        raise ShrinkbenchError(
            f"'{method.name}' keeps the widths that were published, so that ignore={list(constraints.ignore)} "
            "has no say; leave it out or choose another method"
        )
    if constraints.round_to is not None and structure.unit not in CHANNELS:
        raise ShrinkbenchError(
            f"round_to={constraints.round_to} counts channels, and '{method.name}' removes units of structure "
            f"'{structure.name}', which are no channels; leave it out, or choose a method over channels"
        )
    if not constraints.on_units:
        return constraints
    if "allocation" in (method.like or method).decides:
        raise ShrinkbenchError(
            f"'{method.name}' decides itself how much of every layer stays, so that round_to and max_ratio "
            "have no say; leave them out or choose another method"
        )
    if constraints.max_ratio is not None and (structure.one_per_layer or structure.pattern):
        raise ShrinkbenchError(
            f"max_ratio={constraints.max_ratio:g} bounds a fraction of a layer, and the structure "
            f"'{structure.name}' of '{method.name}' leaves no choice of one; leave it out"
        )
    if not method.allocation.exact:
        raise ShrinkbenchError(
            f"the allocation '{method.allocation.name}' of '{method.name}' draws by chance, and chance keeps "
            "no bound; leave round_to and max_ratio out or choose another allocation"
        )
    return constraints


def constrained(grouping: Grouping, constraints: Constraints) -> Grouping:
    """``grouping`` with units of which any allocation leaves as many as ``constraints`` allow.

    With ``round_to = n`` the n best units of a layer are one unit that stays, the n next another, and so on;
    what is left over, fewer than n, are the lowest.
    """
    if not constraints.on_units:
        return grouping
    units = {name: _with_least(u, constraints.max_ratio) for name, u in grouping.units.items()}
    if constraints.round_to is None:
        return Grouping(units, grouping.expand)
    step = constraints.round_to
    orders = {name: u.scores.reshape(-1).argsort(descending=True, stable=True) for name, u in units.items()}

    def expand(keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
        single = {}
        for name, order in orders.items():
            stays = torch.zeros(len(order), dtype=torch.bool, device=order.device)
            stays[order] = keep[name].to(order.device).repeat_interleave(step)[: len(order)]
            single[name] = stays.reshape(units[name].scores.shape)
        return grouping.expand(single)

    return Grouping({name: _in_steps(u, orders[name], step) for name, u in units.items()}, expand)


def _with_least(units: Units, max_ratio: float | None) -> Units:
    if max_ratio is None:
        return units
    number = units.scores.numel()
    least = number - math.floor(number * max_ratio + 1e-9)
    alive = int((units.scores > -math.inf).sum())
    return replace(units, least=max(units.least, min(least, alive)))


def _in_steps(units: Units, order: Tensor, step: int) -> Units:
    scores = units.scores.reshape(-1)[order].float()
    sizes = units.size if isinstance(units.size, Tensor) else torch.full_like(order, units.size)
    sizes = sizes.reshape(-1).to(order.device)[order]
    summed = torch.stack([part.sum() for part in sizes.split(step)])
    means = torch.stack([part.mean() for part in scores.split(step)])
    size = int(summed[0]) if bool((summed == summed[0]).all()) else summed
    return Units(means, size, least=max(1, math.ceil(units.least / step)))


def channels_in(grouping: Grouping, constraints: Constraints, plain: Grouping) -> dict[str, Units]:
    """The units of ``grouping``, their sizes counted in units of ``plain``, from which they were made."""
    step = constraints.round_to or 1
    return {
        name: replace(
            u,
            size=torch.tensor(
                [min(step, plain.units[name].scores.numel() - at * step) for at in range(u.scores.numel())]
            ).reshape(u.scores.shape),
            scored=None,
        )
        for name, u in grouping.units.items()
    }


def channels_left(units: Mapping[str, Units], fraction: float) -> int:
    """How many channels may stay when ``fraction`` of all is removed; an error where more have to."""
    total, least = sum(u.total for u in units.values()), sum(u.least_weight for u in units.values())
    left = total - math.ceil(total * fraction - 1e-9)
    if left < least:
        raise ShrinkbenchError(
            f"a fraction of {fraction:g} of all {total:,} channels cannot be removed: {least:,} have to stay "
            f"in their layers; name at most {math.floor(1e4 * (1 - least / total)) / 1e4:g}"
        )
    return left


def check_score_takes(method: PruningMethod, constraints: Constraints) -> None:
    """Raise where ``method``, whose score has returned masks, was to keep to bounds that it does not know."""
    if constraints.on_units:
        raise ShrinkbenchError(
            f"the score of '{method.name}' returns masks, so that round_to and max_ratio have no say; leave "
            "them out or choose another method"
        )
