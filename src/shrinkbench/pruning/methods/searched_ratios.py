"""Ratios of layers found by search (AMC, He et al. 2018), by the cross-entropy method in place of an agent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import and_

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import Coupling, couple
from shrinkbench.network.derivatives import loss_of, outputs_of
from shrinkbench.network.inputs import Batch
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.structures.channel_masks import masks_of_units
from shrinkbench.pruning.structures.channels import channels
from shrinkbench.pruning.units import UnitScores
from shrinkbench.spec import Compression, Speedup

_GENERATIONS = 4
_POPULATION = 8
_ELITE = 3
_DEVIATION = 1.0  # of the logarithm of a layer's density, before the first generation
_LEVELS = 12  # halvings of the level at which a candidate meets the target


@dataclass(frozen=True)
class _Network:
    """What candidates are judged on."""

    ctx: PruneContext
    coupling: Coupling
    ranks: Mapping[str, Tensor]  # of each unit in its group, from 0 for the best to below 1
    batches: list[Batch]
    kept: float  # parameters

    @cached_property
    def tensors(self) -> list[tuple[int, list[list[tuple[str, Tensor, Tensor]]]]]:
        """Of each parameter its size and, by dimension, the unit at each position, and where there is none."""
        dims: dict[str, dict[int, list[tuple[str, Tensor, Tensor]]]] = {}
        for layer in self.ranks:
            for piece in self.coupling.group_of(layer).slices:
                entry = (layer, piece.unit.clamp_min(0), piece.unit < 0)
                dims.setdefault(piece.tensor, {}).setdefault(piece.dim, []).append(entry)
        return [
            (parameter.numel(), list(dims.get(name, {}).values()))
            for name, parameter in self.ctx.module.named_parameters()
        ]

    def keep_at(self, scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
        return {name: (values >= -level) | (self.ranks[name] == 0) for name, values in scores.items()}

    def parameters(self, keep: Mapping[str, Tensor]) -> float:
        """Parameters of the network in which ``keep`` stays."""
        total = 0.0
        for numbers, dims in self.tensors:
            share = 1.0
            for pieces in dims:
                stays = [keep[layer][unit] | apart for layer, unit, apart in pieces]
                share *= float(reduce(and_, stays).double().mean())
            total += numbers * share
        return total

    def keep_of(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The units of the largest network by ``scores`` that meets the target."""
        low, high = 0.0, max(float(-values.min()) for values in scores.values())
        for _ in range(_LEVELS):
            middle = (low + high) / 2
            fits = self.parameters(self.keep_at(scores, middle)) <= self.kept
            low, high = (middle, high) if fits else (low, middle)
        return self.keep_at(scores, low)

    def loss_of(self, keep: Mapping[str, Tensor]) -> float:
        """Mean loss over the batches of the network in which ``keep`` stays, not trained again."""
        masks = masks_of_units(self.ctx.module, self.coupling, keep)
        parameters = dict(self.ctx.module.named_parameters())
        leaves = {name: parameters[name].detach() * mask for name, mask in masks.items()}
        total = 0.0
        with torch.no_grad():
            for batch in self.batches:
                outputs = outputs_of(self.ctx.module, leaves, batch.inputs)
                total += float(loss_of(self.ctx.loss, outputs, batch.targets)) * len(batch)
        return total / sum(map(len, self.batches)) if total == total else float("inf")


def scores_of(ranks: Mapping[str, Tensor], policy: Tensor) -> dict[str, Tensor]:
    """Scores by which a level keeps of each group a share in proportion to ``exp(policy)``, best first."""
    factors = (-policy).exp()
    return {name: -rank * factors[i] for i, (name, rank) in enumerate(ranks.items())}


def search(network: _Network, groups: int, generator: torch.Generator) -> Tensor:
    """The best policy of all generations; the first candidate keeps the same share of every group."""
    mean, deviation = torch.zeros(groups), torch.full((groups,), _DEVIATION)
    best, least = mean, float("inf")
    for _ in range(_GENERATIONS):
        noise = torch.randn(_POPULATION - 1, groups, generator=generator)
        policies = torch.cat([mean[None], mean + deviation * noise])
        losses = [network.loss_of(network.keep_of(scores_of(network.ranks, p))) for p in policies]
        order = torch.tensor(losses).argsort(stable=True)
        elite = policies[order[:_ELITE]]
        if losses[int(order[0])] < least:
            best, least = policies[order[0]], losses[int(order[0])]
        mean, deviation = elite.mean(0), elite.std(0, unbiased=False)
    return best


@pruning_method(
    "amc",
    structure=channels,
    needs=("data", "labels"),
    batch_count=2,
    reference="he2018amc",
)
@decides("structure")
def searched_ratios(ctx: PruneContext) -> UnitScores:
    """Magnitude within layers; how much of which is searched for the least loss at the target, untrained."""
    batches = list(ctx.each_batch())
    squares = {name: w.abs() for name, w in ctx.weights.items()}
    units = channels.group(ctx, squares).units
    ranks = {
        name: u.scores.argsort(descending=True, stable=True).argsort().float() / len(u.scores)
        for name, u in units.items()
    }
    ratio = ctx.amount.ratio if isinstance(ctx.amount, Compression | Speedup) else 2.0
    network = _Network(ctx, couple(ctx.module, ctx.example), ranks, batches, ctx.total / ratio)
    everything = {name: torch.ones_like(rank, dtype=torch.bool) for name, rank in ranks.items()}
    if not math.isfinite(network.loss_of(everything)):
        raise ShrinkbenchError(
            "the loss of the whole network is not finite on batches=, so that no ratio is better by it; give "
            "other data or check the network's weights and statistics"
        )
    generator = torch.Generator().manual_seed(int(torch.randint(2**62, (1,), generator=ctx.generator)))
    return UnitScores(scores_of(ranks, search(network, len(ranks), generator)))
