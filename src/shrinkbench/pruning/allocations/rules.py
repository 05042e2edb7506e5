"""How many units stay in which layer.

An allocation sees the scores of all units and a budget in weights, and returns which units stay. Every one of
them but ``independent`` spends the budget exactly, up to one unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.top_k import keep_highest
from shrinkbench.pruning.units import Keep, Units
from shrinkbench.registry import Registry
from shrinkbench.spec.axes import Scope

Allocate = Callable[[Mapping[str, Units], int, PruneContext], Keep]
Shares = Callable[[Mapping[str, Units], int, PruneContext], Mapping[str, float]]
Limits = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Allocation:
    """A named rule ``(units, budget in weights, context) -> units that stay``; ``exact``: to the budget.

    ``scope`` and ``uniform`` are those of :class:`shrinkbench.spec.AllocationSpec`; ``fixed``: what stays does
    not depend on the budget; ``by_values``: how much of a layer stays depends on its weights. ``needs`` names
    what the rule looks at beyond weights and scores (``data``). ``version`` is raised when the rule changes.
    """

    name: str
    description: str
    decide: Allocate
    exact: bool = True
    fixed: bool = False
    by_values: bool = False
    scope: Scope = "free"
    uniform: bool = False
    version: int = 1
    needs: tuple[str, ...] = ()

    def __call__(self, units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Keep:
        """Which units stay, as boolean tensors of the scores' shape."""
        return self.decide(units, budget, ctx)


ALLOCATIONS: Registry[Allocation] = Registry("allocation", of=Allocation)


def allocation(
    name: str, *, scope: Scope = "free", exact: bool = True, version: int = 1
) -> Callable[[Allocate], Allocation]:
    """Register a function as the allocation ``name``; its first docstring line describes it."""

    def register(decide: Allocate) -> Allocation:
        description = (decide.__doc__ or "").strip().splitlines()[0]
        found = Allocation(name, description, decide, exact, scope=scope, version=version)
        return ALLOCATIONS.add(name, found)

    return register


def by_layer(
    name: str,
    *,
    uniform: bool = False,
    by_values: bool = False,
    version: int = 1,
    needs: tuple[str, ...] = (),
) -> Callable[[Shares], Allocation]:
    """Register a rule ``(units, budget, context) -> weights per layer`` as the allocation ``name``.

    Within a layer, the highest scores stay. Of single weights every layer keeps one at least, as by rounding
    down what is removed. ``uniform``: the rule keeps the same fraction of every layer, up to exceptions that it
    names. ``needs`` is what the rule looks at beyond weights and scores.
    """

    def register(shares: Shares) -> Allocation:
        def decide(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Keep:
            units = {n: keep_at_least(u, 1) if u.single else u for n, u in units.items()}
            require_budget(units, budget, ctx, f"{name} keeps a unit of every layer")
            return keep_counts(units, whole_units(units, shares(units, budget, ctx), budget))

        description = (shares.__doc__ or "").strip().splitlines()[0]
        found = Allocation(
            name,
            description,
            decide,
            by_values=by_values,
            scope="layerwise",
            uniform=uniform,
            version=version,
            needs=needs,
        )
        return ALLOCATIONS.add(name, found)

    return register


def keep_at_least(units: Units, least: int) -> Units:
    """``units`` of which ``least`` have to stay, or all that earlier rounds have left."""
    return replace(units, least=max(units.least, min(least, int((units.scores > -math.inf).sum()))))


def require_budget(units: Mapping[str, Units], budget: int, ctx: PruneContext, reason: str) -> None:
    """Raise ``CannotMeetTargetError`` where layers have to keep more than ``budget`` weights in all."""
    least = sum(low for low, _ in limits_of(units).values())
    if least > budget:
        kept = ctx.total - sum(u.total for u in units.values()) + least
        raise CannotMeetTargetError.because(
            f"{reason}, {least:,} weights in all", compression=ctx.target, total=ctx.total, least=kept
        )


def fill(
    weights: Mapping[str, float], limits: Mapping[str, tuple[float, float]], budget: float
) -> dict[str, float]:
    """Split ``budget`` in proportion to ``weights``, each part within its limits (lowest, highest).

    Parts that would leave their limits are set to them and the rest is shared anew, as Erdos-Renyi kernels do.

    >>> fill({"a": 1, "b": 1, "c": 2}, {"a": (0, 9), "b": (0, 9), "c": (0, 4)}, 12)
    {'c': 4, 'a': 4.0, 'b': 4.0}
    """
    parts: dict[str, float] = {}
    open_ = dict(weights)
    left = float(budget)
    while open_:
        scale = left / sum(open_.values())
        over = {n: limits[n][1] for n, w in open_.items() if w * scale > limits[n][1]}
        under = {n: limits[n][0] for n, w in open_.items() if w * scale < limits[n][0]}
        # Setting both kinds at once could leave the budget; the larger violation is mended first.
        excess = sum(open_[n] * scale - limit for n, limit in over.items())
        lack = sum(limit - open_[n] * scale for n, limit in under.items())
        fixed = over if excess >= lack else under
        if not fixed:
            return parts | {n: w * scale for n, w in open_.items()}
        parts.update(fixed)
        left = max(left - sum(fixed.values()), 0.0)
        open_ = {n: w for n, w in open_.items() if n not in fixed}
    return parts


def whole_units(units: Mapping[str, Units], shares: Mapping[str, float], budget: float) -> dict[str, int]:
    """Units per layer that come to its share of weights; what rounding leaves goes where it is missed most."""
    ladders = {name: _Ladder(u) for name, u in units.items()}
    counts = {
        name: max(ladder.count_within(shares[name]), units[name].least) for name, ladder in ladders.items()
    }
    used = {name: ladders[name].weight(count) for name, count in counts.items()}
    left = budget - sum(used.values())
    while True:
        steps = {name: ladder.weight(counts[name] + 1) - used[name] for name, ladder in ladders.items()}
        fitting = [name for name, step in steps.items() if 0 < step <= left]
        if not fitting:
            return counts
        short = {name: (shares[name] - used[name]) / steps[name] for name in fitting}
        for name in sorted(fitting, key=lambda name: -short[name]):
            if steps[name] <= left:
                counts[name] += 1
                used[name] += steps[name]
                left -= steps[name]


class _Ladder:
    """How many weights the best so many units of a layer hold; those that are gone already do not count."""

    def __init__(self, units: Units) -> None:
        self._number = int((units.scores > -math.inf).sum())
        self._size = units.size
        if isinstance(units.size, Tensor):
            order = units.scores.reshape(-1).argsort(descending=True, stable=True)
            self._sums = units.size.reshape(-1)[order].cumsum(0)

    def weight(self, count: int) -> int:
        count = min(count, self._number)
        if isinstance(self._size, int):
            return self._size * count
        return int(self._sums[count - 1]) if count else 0

    def count_within(self, weights: float) -> int:
        weights += 1e-6  # a share that is whole but for rounding
        if isinstance(self._size, int):
            return min(int(weights / self._size), self._number)
        return min(int(torch.searchsorted(self._sums, weights, right=True)), self._number)


def keep_counts(units: Mapping[str, Units], counts: Mapping[str, int]) -> Keep:
    """The best ``counts`` units of each layer."""
    return {name: keep_best({name: u}, counts[name])[name] for name, u in units.items()}


def keep_best(units: Mapping[str, Units], count: int) -> Keep:
    """The ``count`` highest scores of all layers together; units marked ``first`` come before the others."""
    scores = {name: u.scores for name, u in units.items()}
    if all(u.first is None for u in units.values()):
        return keep_highest(scores, count)
    first = {
        name: torch.zeros_like(u.scores, dtype=torch.bool) if u.first is None else u.first
        for name, u in units.items()
    }
    left = count
    keep = {name: torch.zeros_like(mask) for name, mask in first.items()}
    for tier in (first, {name: ~mask for name, mask in first.items()}):
        chosen = keep_highest({name: scores[name][tier[name]] for name in scores}, max(left, 0))
        for name, mask in chosen.items():
            keep[name][tier[name]] = mask
        left -= sum(mask.numel() for mask in chosen.values())
    return keep


@allocation("global", scope="global")
def global_(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Keep:
    """Compare all units of the network with one another."""
    if any(u.least for u in units.values()):
        units = _with_least_first(units)
    sizes = {0 if isinstance(u.size, Tensor) else u.size for u in units.values()}
    if len(sizes) == 1 and 0 not in sizes:
        return keep_best(units, budget // sizes.pop())
    low, high = 0, sum(u.scores.numel() for u in units.values())
    while low < high:  # the largest number of units that fits
        middle = (low + high + 1) // 2
        keep = keep_best(units, middle)
        if sum(u.weight_of(keep[name]) for name, u in units.items()) <= budget:
            low = middle
        else:
            high = middle - 1
    return keep_best(units, low)


def _with_least_first(units: Mapping[str, Units]) -> dict[str, Units]:
    return {
        name: Units(u.scores, u.size, first=keep_highest({name: u.scores}, u.least)[name])
        for name, u in units.items()
    }


def limits_of(units: Mapping[str, Units]) -> Limits:
    """Least and most weights that a layer can keep: what an earlier round removed does not come back."""
    most = {name: u.weight_of(u.scores > -math.inf) for name, u in units.items()}
    return {name: (min(u.least_weight, most[name]), most[name]) for name, u in units.items()}


@by_layer("layerwise", uniform=True, version=2)
def layerwise(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Mapping[str, float]:
    """Keep the same fraction of every layer's weights."""
    return fill({name: u.total for name, u in units.items()}, limits_of(units), budget)


@by_layer("uniform-plus", uniform=True, version=3)
def uniform_plus(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Mapping[str, float]:
    """Layerwise; the first convolution stays whole and the last layer keeps a fifth (Gale et al. 2019)."""
    dimensions = {name: weight_of(name, ctx, "uniform-plus").dim() for name in units}
    apart = {}
    first = next((name for name in ctx.flow.order if dimensions.get(name, 0) > 2), None)
    if first is not None:
        apart[first] = keep_at_least(units[first], units[first].scores.numel())
    for name in sorted(ctx.flow.logits & units.keys() - {first}):
        apart[name] = keep_at_least(units[name], math.ceil(0.2 * units[name].scores.numel()))
    bounded = {**units, **apart}
    kept = ["the first convolution whole"] if first is not None else []
    kept += ["a fifth of the last layer"] if apart.keys() - {first} else []
    kept += ["something of every layer"] if all(u.least for u in units.values()) else []
    require_budget(bounded, budget, ctx, f"uniform-plus keeps {' and '.join(kept)}")
    return fill({name: u.total for name, u in units.items()}, limits_of(bounded), budget)


@by_layer("erdos-renyi-kernel", version=2)
def erdos_renyi_kernel(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Mapping[str, float]:
    """Density of a layer in proportion to (sum of its dimensions) / (their product) (Evci et al. 2020)."""
    return erdos_renyi_shares(units, budget, ctx)


def erdos_renyi_shares(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> dict[str, float]:
    """Weights to keep in each layer by :func:`erdos_renyi_kernel`, ``budget`` in all."""
    weights = {name: sum(weight_of(name, ctx, "erdos-renyi-kernel").shape) for name in units}
    return fill(weights, limits_of(units), budget)


@by_layer("lamp", by_values=True, version=2)
def lamp_shares(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Mapping[str, float]:
    """Give each layer as many weights as global pruning by LAMP scores of |w| would (Lee et al. 2021)."""
    scores = {}
    for name, u in units.items():
        weight_of(name, ctx, "lamp")
        if not u.single:
            raise ShrinkbenchError("allocation 'lamp' ranks single weights; use it with structure 'weights'")
        scores[name] = lamp_score(ctx.weights[name]).masked_fill(ctx.removed(name), -torch.inf)
    shares = {name: max(float(mask.sum()), 1e-9) for name, mask in keep_highest(scores, budget).items()}
    return fill(shares, limits_of(units), budget)


def lamp_score(weight: Tensor) -> Tensor:
    """``w_i^2 / sum of w_j^2 over all j with |w_j| >= |w_i|`` in one layer, ties in order of position.

    >>> lamp_score(torch.tensor([1.0, -2.0, 2.0, 3.0]))
    tensor([0.0556, 0.2353, 0.3077, 1.0000])
    """
    squares = weight.detach().reshape(-1).double().square()
    ascending, order = squares.sort(stable=True)
    at_least = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = torch.where(ascending > 0, ascending / at_least, 0.0)
    return scores.reshape(weight.shape).float()


def weight_of(name: str, ctx: PruneContext, rule: str) -> Tensor:
    """The weights that ``name`` is the only group of; ``rule`` is told that there are none."""
    if name not in ctx.weights:
        raise ShrinkbenchError(
            f"allocation '{rule}' needs one group per weight tensor, and '{name}' is none; choose global or "
            "layerwise"
        )
    return ctx.weights[name]


def layerwise_counts(
    units: Mapping[str, Units], budget: int, ctx: PruneContext, reason: str, shares: Shares | None = None
) -> dict[str, int]:
    """Weights per layer when every layer keeps the same fraction, or as ``shares`` says.

    ``reason`` says why each layer has to keep some.
    """
    require_budget(units, budget, ctx, reason)
    wanted = {name: u.total for name, u in units.items()} if shares is None else shares(units, budget, ctx)
    return whole_units(units, fill(wanted, limits_of(units), budget), budget)


@allocation("independent", scope="global", exact=False)
def independent(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Keep:
    """Keep each unit on its own with probability budget / total; the scores are uniform on [0, 1)."""
    if any(u.first is not None for u in units.values()):
        raise ShrinkbenchError(
            "the allocation 'independent' drops weights by chance, which leaves no N:M pattern; choose another"
        )
    probability = budget / sum(u.weight_of(u.scores > -math.inf) for u in units.values())
    return {name: u.scores >= 1 - probability for name, u in units.items()}


def given(
    name: str,
    weights: Callable[[Mapping[str, Units], PruneContext], Mapping[str, float]],
    description: str = "the layerwise proportions of another method",
) -> Allocation:
    """The allocation ``name`` that keeps ``weights(units, context)`` weights in each layer."""

    def decide(units: Mapping[str, Units], budget: int, ctx: PruneContext) -> Keep:
        shares = weights(units, ctx)
        return keep_counts(units, whole_units(units, shares, sum(shares.values())))

    return Allocation(name, description, decide, fixed=True, scope="given", version=3)
