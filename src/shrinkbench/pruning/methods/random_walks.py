"""PHEW (Patil and Dovrolis 2021): what random walks between inputs and outputs pass stays.

Many walks are taken at a time: the layers are gone through once in order of execution, and each draws the next
weight of all walks that have come to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from shrinkbench.network.unit_paths import Edge, PathLayer, read_paths, unpassed_error
from shrinkbench.network.weights import layer_of
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.schedules.before_training import at_initialisation
from shrinkbench.pruning.scores.untrained import density_of
from shrinkbench.pruning.units import Scores

_WALKS = 1024  # of each direction at a time, at least
_SHARE = 64  # parts in which the weights that stay are looked for
_YIELD = 1e-3  # new weights per walk below which walks end
_NEVER = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class _Draw:
    """Chances of the entries of consecutive runs of ``length``, one run for each unit."""

    sums: Tensor
    length: int

    @classmethod
    def of(cls, sizes: Tensor, alive: Tensor) -> _Draw:
        """In proportion to ``sizes`` (units, entries); where all of a unit are 0, equal for what is alive."""
        sizes = torch.where(sizes.sum(1, keepdim=True) > 0, sizes, alive.to(sizes))
        sums = torch.cat([sizes.new_zeros(1), sizes.flatten().cumsum(0)])
        return cls(sums, sizes.shape[1])

    def __call__(self, units: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        """One entry of the run of each of ``units``, and whether it has any."""
        start = units * self.length
        low, high = self.sums[start], self.sums[start + self.length]
        at = torch.searchsorted(self.sums, low + chance * (high - low), right=True) - 1
        # What has no chance is stepped over in either direction: its sums are those of its neighbours.
        at = torch.minimum(at, torch.searchsorted(self.sums, high) - 1).clamp_min(start)
        return at - start, high > low


@dataclass
class _Walked:
    """A layer with both draws, and in which place of which walk each of its weights was first passed."""

    layer: PathLayer
    forward: _Draw
    backward: _Draw
    counts: bool
    alive: Tensor
    first: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.first = torch.full((self.alive.numel(),), _NEVER)

    @classmethod
    def of(cls, layer: PathLayer, weight: Tensor, gone: Tensor | None) -> _Walked:
        """With chances in proportion to magnitudes; ``gone``: what earlier rounds removed, of prunable ones."""
        sizes = layer.rows(weight.abs().double())
        alive = torch.ones_like(sizes, dtype=torch.bool) if gone is None else ~layer.rows(gone)
        sizes = sizes * alive
        return cls(
            layer,
            _Draw.of(layer.by_input(sizes), layer.by_input(alive)),
            _Draw.of(sizes.flatten(1), alive.flatten(1)),
            gone is not None,
            alive,
        )

    def on(self, inputs: Tensor, chance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From inputs to outputs: outputs, places of the weights between, and whether there was a way."""
        entry, found = self.forward(inputs, chance)
        layer = self.layer
        output = inputs // layer.width * layer.height + entry // layer.kernel
        at = (output * layer.width + inputs % layer.width) * layer.kernel + entry % layer.kernel
        return output, at, found

    def back(self, outputs: Tensor, chance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From outputs to inputs, likewise."""
        entry, found = self.backward(outputs, chance)
        layer = self.layer
        return (
            outputs // layer.height * layer.width + entry // layer.kernel,
            outputs * layer.width * layer.kernel + entry,
            found,
        )


class Walks:
    """Walks over the paths of a network, and the order in which they passed its weights."""

    def __init__(self, ctx: PruneContext) -> None:
        self._ctx = ctx
        parameters = dict(ctx.module.named_parameters())
        self._layers = [
            _Walked.of(layer, parameters[name].detach(), ctx.removed(name) if name in ctx.weights else None)
            for name, layer in read_paths(ctx.module, ctx.example).items()
        ]
        self._place = {walked.layer.name: place for place, walked in enumerate(self._layers)}
        self._taken = 0

    @property
    def passed(self) -> int:
        """Prunable weights that walks have passed."""
        return sum(int((walked.first < _NEVER).sum()) for walked in self._layers if walked.counts)

    def _chance(self, count: int) -> Tensor:
        return self._ctx.uniform(torch.empty(count)).double().cpu()

    def take(self, count: int) -> None:
        """``count`` walks from the inputs and as many from the outputs, in turn."""
        number = self._taken + torch.arange(count)
        for direction, starts in enumerate((self._entries(), self._exits())):
            self._go(2 * number + direction, self._begin(number, starts), forward=direction == 0)
        self._taken += count

    def _entries(self) -> list[tuple[int, int]]:
        entries = [(i, w.layer.inputs) for i, w in enumerate(self._layers) if not w.layer.sources]
        return [(place, unit) for place, units in entries for unit in range(units)]

    def _exits(self) -> list[tuple[int, int]]:
        exits = [(i, w.layer.outputs) for i, w in enumerate(self._layers) if w.layer.last]
        return [(place, unit) for place, units in exits for unit in range(units)]

    @staticmethod
    def _begin(number: Tensor, starts: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Walks begin at one unit after another."""
        places, units = torch.tensor(starts).unbind(1)
        return places[number % len(starts)].clone(), units[number % len(starts)].clone()

    def _go(self, number: Tensor, begin: tuple[Tensor, Tensor], *, forward: bool) -> None:
        """Lead walks to the end and note what those that reach it have passed first."""
        place, unit = begin
        steps: list[tuple[_Walked, Tensor, Tensor, Tensor]] = []
        complete = torch.ones_like(number, dtype=torch.bool)
        for count, walked in enumerate(self._layers if forward else reversed(self._layers)):
            here = (place == self._place[walked.layer.name]).nonzero().squeeze(1)
            if not len(here):
                continue
            draw = walked.on if forward else walked.back
            after, at, found = draw(unit[here], self._chance(len(here)))
            steps.append((walked, here, at, number[here] * len(self._layers) + count))
            edges = walked.layer.readers if forward else walked.layer.sources
            place[here], unit[here] = self._choose(edges, after, forward=forward)
            if forward:  # backwards, what no layer made is an input of the network
                found = found & ((place[here] >= 0) | walked.layer.last)
            complete[here] &= found
        for walked, here, at, order in steps:
            done = complete[here]
            walked.first.scatter_reduce_(0, at[done], order[done], "amin")

    def _choose(self, edges: Sequence[Edge], unit: Tensor, *, forward: bool) -> tuple[Tensor, Tensor]:
        """One of the layers that read (or made) each unit, and the unit there; -1 where there is none."""
        place, there = torch.full_like(unit, -1), torch.full_like(unit, -1)
        if not edges:
            return place, there
        ways = torch.stack([(e.reached if forward else e.made).of(unit) for e in edges])
        pick = (self._chance(len(unit)) * (ways > 0).sum(0)).long()
        within = self._chance(len(unit))
        rank = (ways > 0).cumsum(0) - 1
        for edge, count, number in zip(edges, ways, rank, strict=True):
            mine = ((count > 0) & (number == pick)).nonzero().squeeze(1)
            link = edge.reached if forward else edge.made
            place[mine] = self._place[edge.reader if forward else edge.source]
            there[mine] = link.take(unit[mine], (within[mine] * count[mine]).long())
        return place, there

    def orders(self) -> Iterator[tuple[str, Tensor]]:
        """Of each prunable weight, in the shape of its tensor, when it was first passed."""
        for walked in self._layers:
            if walked.counts:
                yield walked.layer.name, walked.layer.restore(walked.first)


@pruning_method("phew", kind="other", schedule=at_initialisation, reference="patil2021phew")
def first_passed(ctx: PruneContext) -> Scores:
    """The earlier a walk passes a weight the higher; steps are as probable as |w| / sum |w|.

    Walks start at inputs and outputs in turn, at one unit after another; from the inputs the sum is over all
    weights that read a unit, backwards over those that make it. They end when they have passed as many weights
    as stay, of the last walk only the first ones; a unit that several layers read or make goes on in each with
    the same chance. Should walks hardly find anything new, |w| decides on the rest.
    """
    walks = Walks(ctx)
    total = sum(w.numel() for w in ctx.weights.values())
    wanted = min(round(density_of(ctx, total) * total), total)
    at_once = max(_WALKS, wanted // _SHARE)
    passed = 0
    while passed < wanted:
        before = passed
        walks.take(at_once)
        passed = walks.passed
        if passed - before < 2 * at_once * _YIELD:
            break
    return _ranked(ctx, dict(walks.orders()))


def _ranked(ctx: PruneContext, orders: dict[str, Tensor]) -> Scores:
    """0 for what was passed first, falling; below all of it, what was never passed, by magnitude."""
    last = max((int(o[o < _NEVER].max()) + 1 for o in orders.values() if bool((o < _NEVER).any())), default=0)
    largest = max((float(w.abs().max()) for w in ctx.weights.values() if w.numel()), default=0.0) or 1.0
    scores = {}
    for name, w in ctx.weights.items():
        rest = w.abs().double() / largest - 2.0 - last
        order = _order_of(ctx, name, orders).to(w.device)
        scores[name] = torch.where(order < _NEVER, -order.double(), rest)
    return scores


def _order_of(ctx: PruneContext, name: str, orders: dict[str, Tensor]) -> Tensor:
    """When a weight was first passed; a bias is passed with its unit."""
    if name in orders:
        return orders[name]
    weight = f"{layer_of(name)}.weight"
    if weight not in orders or ctx.weights[name].dim() > 1:
        raise unpassed_error(ctx.module, name)
    return ctx.geometry(weight).rows(orders[weight]).flatten(1).amin(1)
