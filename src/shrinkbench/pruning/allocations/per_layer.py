"""Ratios as papers state them: a fraction of the units of every layer, or of all units of the network.

Whatever a unit weighs, units are counted, so the compression follows and is not asked for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from fractions import Fraction

import torch

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.top_k import keep_highest
from shrinkbench.pruning.units import Keep, Units
from shrinkbench.spec.amount import Rounding


def counts_per_layer(
    units: Mapping[str, Units],
    fraction: float,
    rounding: Rounding,
    *,
    skip: Collection[str] = (),
) -> dict[str, int]:
    """Units to keep in each layer when ``fraction`` of them is removed; layers in ``skip`` stay whole.

    Of n units stay ``n - floor(n p)`` by ``remove-floor`` (He et al. 2018), ``floor(n (1 - p))`` by
    ``keep-floor`` (Li et al. 2017), ``floor(n (1 - p) + 1/2)`` by ``nearest``; one at least, and what the
    layer must keep. The fraction is taken as the decimal that it is written as: 10 x 0.7 is 7.

    >>> filters = {"conv": Units(torch.zeros(64))}
    >>> [counts_per_layer(filters, 0.3, how)["conv"] for how in ("remove-floor", "keep-floor", "nearest")]
    [45, 44, 45]
    """
    removed = _decimal(fraction)
    counts = {}
    for name, layer in units.items():
        number = layer.scores.numel()
        if name in skip:
            counts[name] = number
        else:
            counts[name] = min(number, max(_kept(number, removed, rounding), layer.least, 1))
    return counts


def _kept(number: int, removed: Fraction, rounding: Rounding) -> int:
    if rounding == "remove-floor":
        return number - math.floor(number * removed)
    half = Fraction(1, 2) if rounding == "nearest" else 0
    return math.floor(number * (1 - removed) + half)


def keep_of_all(units: Mapping[str, Units], fraction: float) -> Keep:
    """Which units stay when the lowest ``floor(n x fraction)`` of all n of the network are removed.

    Each layer keeps its highest unit, and as many as it must, whatever the others score (Liu et al. 2017).
    Raises ``ShrinkbenchError`` where these are more than may stay.
    """
    total = sum(layer.scores.numel() for layer in units.values())
    kept = total - math.floor(total * _decimal(fraction))
    raised = {}
    least = 0
    for name, layer in units.items():
        number = min(max(layer.least, 1), layer.scores.numel())
        must = keep_highest({name: layer.scores}, number)[name]
        raised[name] = layer.scores.masked_fill(must & (layer.scores > -torch.inf), torch.inf)
        least += number
    if kept < least:
        raise ShrinkbenchError(
            f"a fraction of {fraction:g} of all {total:,} units cannot be removed: {least:,} have to stay in "
            f"their layers; name at most {math.floor(1e4 * (1 - least / total)) / 1e4:g}"
        )
    return keep_highest(raised, kept)


def _decimal(fraction: float) -> Fraction:
    """``fraction`` to nine decimals, without what binary arithmetic adds to it."""
    if not 0 <= fraction < 1:
        raise ShrinkbenchError(
            f"a fraction of {fraction:g} cannot be removed; give one of at least 0 and below 1"
        )
    return Fraction(f"{fraction:.9f}")
