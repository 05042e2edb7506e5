"""STUB."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shrinkbench.pruning.units import Keep, Units


def counts_per_layer(
    units: Mapping[str, Units], fraction: float, rounding: str, *, skip: Collection[str] = ()
) -> dict[str, int]:
    """STUB."""
    raise NotImplementedError


def keep_of_all(units: Mapping[str, Units], fraction: float) -> Keep:
    """STUB."""
    raise NotImplementedError
