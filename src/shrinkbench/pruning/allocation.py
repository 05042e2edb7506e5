"""How many units stay in which layer.

An allocation sees the scores of all units and a budget in weights, and returns which units stay. Every one of
them but ``independent`` spends the budget exactly, up to one unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from shrinkbench.pruning.selection import keep_highest
from shrinkbench.pruning.structure import Units
from shrinkbench.registry import Registry

Keep = dict[str, Tensor]
Decide = Callable[[Mapping[str, Units], int], Keep]


@dataclass(frozen=True)
class Allocation:
    """A named rule ``(units, budget in weights) -> which units stay``; ``exact``: the budget is met."""

    name: str
    description: str
    decide: Decide
    exact: bool = True

    def __call__(self, units: Mapping[str, Units], budget: int) -> Keep:
        """Which units stay, as boolean tensors of the scores' shape."""
        return self.decide(units, budget)


ALLOCATIONS: Registry[Allocation] = Registry("allocation")


def allocation(name: str, *, exact: bool = True) -> Callable[[Decide], Allocation]:
    """Register a function as the allocation ``name``; its first docstring line describes it."""

    def register(decide: Decide) -> Allocation:
        description = (decide.__doc__ or "").strip().splitlines()[0]
        return ALLOCATIONS.add(name, Allocation(name, description, decide, exact))

    return register


def apportion(sizes: Mapping[str, int], budget: int) -> dict[str, int]:
    """Split ``budget`` in proportion to ``sizes`` in whole numbers that sum to it (largest remainders).

    >>> apportion({"a": 3, "b": 7}, 5)
    {'a': 2, 'b': 3}
    """
    total = sum(sizes.values())
    shares = {name: budget * size / total for name, size in sizes.items()}
    parts = {name: int(share) for name, share in shares.items()}
    missing = budget - sum(parts.values())
    by_remainder = sorted(shares, key=lambda name: parts[name] - shares[name])
    for name in by_remainder[:missing]:
        parts[name] += 1
    return parts


@allocation("global")
def global_(units: Mapping[str, Units], budget: int) -> Keep:
    """Compare all units of the network with one another."""
    sizes = {u.size for u in units.values()}
    if len(sizes) == 1:
        return keep_highest({name: u.scores for name, u in units.items()}, budget // sizes.pop())
    return _global_of_unequal_sizes(units, budget)


def _global_of_unequal_sizes(units: Mapping[str, Units], budget: int) -> Keep:
    """Keep units from the highest score down while the budget lasts: the largest count that fits."""
    low, high = 0, sum(u.scores.numel() for u in units.values())
    scores = {name: u.scores for name, u in units.items()}
    while low < high:
        middle = (low + high + 1) // 2
        keep = keep_highest(scores, middle)
        if sum(int(keep[name].sum()) * u.size for name, u in units.items()) <= budget:
            low = middle
        else:
            high = middle - 1
    return keep_highest(scores, low)


@allocation("layerwise")
def layerwise(units: Mapping[str, Units], budget: int) -> Keep:
    """Keep the same fraction of every layer's weights."""
    parts = apportion({name: u.total for name, u in units.items()}, budget)
    return {
        name: keep_highest({name: u.scores}, round(parts[name] / u.size))[name] for name, u in units.items()
    }


@allocation("independent", exact=False)
def independent(units: Mapping[str, Units], budget: int) -> Keep:
    """Keep each unit on its own with probability budget / total; the scores are uniform on [0, 1)."""
    probability = budget / sum(u.total for u in units.values())
    return {name: u.scores < probability for name, u in units.items()}
