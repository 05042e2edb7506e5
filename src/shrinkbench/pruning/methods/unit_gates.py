"""Gates of channels and neurons that are trained beside the weights: five papers, one mechanism.

Gates multiply what the layers behind read. Residual streams and hidden layers alike have them, wherever linear
layers and convolutions alone read the units; such groups are the structure ``gated-channels``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch.special import log_ndtr, ndtr, ndtri
from torch.utils.hooks import RemovableHandle

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.view import NetworkView
from shrinkbench.network.weights import layer_of
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.methods.variational_dropout import divergence
from shrinkbench.pruning.schedules.beside import Beside, GatedUnits, Layer, gated_groups, noisy_outputs
from shrinkbench.pruning.schedules.schedule import register_penalised
from shrinkbench.pruning.structures.channels import channels
from shrinkbench.pruning.units import STRUCTURES, Grouping, Scores, Structure, UnitScores

_TINY = 1e-8


class HardConcrete(GatedUnits):
    """``z = clip(s (zeta - gamma) + gamma)`` with s from a binary concrete distribution (Louizos et al. 2018).

    The penalty is ``strength`` times the share of parameters in units whose gate is expected to be open.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {
        **Beside.CONSTANTS,
        "warm_up": 0.0,
        "strength": 0.5,
        "dropped": 0.3,
        "beta": 2 / 3,
        "gamma": -0.1,
        "zeta": 1.1,
    }

    def add_gates(self, name: str, units: int, *, at: str) -> None:
        """``log alpha``, for a gate that is open with the probability 0.7 of the concrete variable."""
        dropped = self.CONSTANTS["dropped"]
        self.add("open", name, (units,), math.log(1 - dropped) - math.log(dropped), at=at)

    def stretched(self, concrete: Tensor) -> Tensor:
        """From (0, 1) to (gamma, zeta), clipped to [0, 1]."""
        gamma, zeta = self.CONSTANTS["gamma"], self.CONSTANTS["zeta"]
        return (concrete * (zeta - gamma) + gamma).clamp(0, 1)

    def sample(self, name: str, rows: int) -> Tensor:
        """``sigmoid((log u - log(1 - u) + log alpha) / beta)``, stretched."""
        log_alpha = self.of("open", name)
        u = self.draw(name, (rows, len(log_alpha)), log_alpha, normal=False).clamp(1e-6, 1 - 1e-6)
        return self.stretched(torch.sigmoid((torch.logit(u) + log_alpha) / self.CONSTANTS["beta"]))

    def mean(self, name: str) -> Tensor:
        """``sigmoid(log alpha)``, stretched, as the paper tests."""
        return self.stretched(torch.sigmoid(self.of("open", name)))

    def chance(self, name: str) -> Tensor:
        """Probability that a gate is not zero: ``sigmoid(log alpha - beta log(-gamma / zeta))``."""
        beta, gamma, zeta = (self.CONSTANTS[key] for key in ("beta", "gamma", "zeta"))
        return torch.sigmoid(self.of("open", name) - beta * math.log(-gamma / zeta))

    def penalty(self) -> Tensor:
        """``strength`` times the expected share of parameters whose gate is open."""
        sizes = self.sizes
        total = sum(
            size * group.units for size, group in zip(sizes.values(), self.groups.values(), strict=True)
        )
        expected = torch.stack([self.chance(name).sum() * size for name, size in sizes.items()]).sum()
        return self.CONSTANTS["strength"] * expected / total

    def learned(self) -> Mapping[str, Tensor]:
        """``log alpha`` of every unit."""
        return {name: self.of("open", name).detach().cpu() for name in self.groups}


class GaussianGates(GatedUnits):
    """``z ~ N(mean, exp(spread))``, from mean 1 and variance ``exp(-9)`` on."""

    def add_gates(self, name: str, units: int, *, at: str) -> None:
        """Mean and log variance."""
        self.add("mean", name, (units,), 1.0, at=at)
        self.add("spread", name, (units,), -9.0, at=at)

    def sample(self, name: str, rows: int) -> Tensor:
        """``mean + sigma * noise``."""
        mean, spread = self.of("mean", name), self.of("spread", name)
        return mean + (spread / 2).exp() * self.draw(name, (rows, len(mean)), mean)

    def mean(self, name: str) -> Tensor:
        """The mean."""
        return self.of("mean", name)

    def log_alpha(self, name: str) -> Tensor:
        """``log(sigma^2 / mean^2)``."""
        return self.of("spread", name) - (self.of("mean", name).square() + _TINY).log()

    def learned(self) -> Mapping[str, Tensor]:
        """``-log alpha`` of every unit."""
        return {name: -self.log_alpha(name).detach().cpu() for name in self.groups}


class InformationBottleneck(GaussianGates):
    """The penalty is ``sum of log(1 + mean^2 / sigma^2) / 2`` over the number of examples (Dai et al. 2018)."""

    def penalty(self) -> Tensor:
        """How much the gates let through, in nats."""
        through = [softplus(-self.log_alpha(name)).sum() / 2 for name in self.groups]
        return torch.stack(through).sum() / self.examples


class NormalJeffreys(GaussianGates):
    """Bayesian compression with the normal-Jeffreys prior (Louizos et al. 2017).

    Gates have the divergence of variational dropout, the weights that read them are N(w, sigma^2) with a
    standard normal prior.
    """

    def place(self) -> None:
        """Gates, and the variances of the weights behind them."""
        super().place()
        self._readers = list(
            dict.fromkeys(s.tensor for g in self.groups.values() for s in g.slices if s.role == "consumes")
        )
        for name in self._readers:
            self.add("noise", name, self.setting.module.get_parameter(name).shape, -9.0, at=name)

    def attach(self) -> list[RemovableHandle]:
        """Gates in front of the readers, noise behind them."""
        behind = [
            self.setting.module.get_submodule(layer_of(name)).register_forward_hook(
                partial(self._add_noise, name)
            )
            for name in self._readers
        ]
        return super().attach() + behind

    def _add_noise(self, name: str, layer: Layer, args: tuple[Tensor, ...], outputs: Tensor) -> Tensor | None:
        if not layer.training:
            return None
        return noisy_outputs(self, name, layer, args[0], outputs, {"weight": self.of("noise", name).exp()})

    def penalty(self) -> Tensor:
        """Both divergences, over the number of training examples."""
        total = torch.stack([divergence(self.log_alpha(name)).sum() for name in self.groups]).sum()
        for name in self._readers:
            log_variance, weight = self.of("noise", name), self.setting.module.get_parameter(name).float()
            total = total + 0.5 * (log_variance.exp() + weight.square() - 1 - log_variance).sum()
        return total / self.examples


class LogNormal(GatedUnits):
    """``log z`` from a normal distribution truncated to [-20, 0] (Neklyudov et al. 2017)."""

    CONSTANTS: ClassVar[Mapping[str, float]] = {**Beside.CONSTANTS, "lowest": -20.0, "highest": 0.0}

    def add_gates(self, name: str, units: int, *, at: str) -> None:
        """Mean and log deviation of the normal distribution before it is truncated."""
        self.add("mean", name, (units,), 0.0, at=at)
        self.add("spread", name, (units,), -5.0, at=at)

    def _bounds(self, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, deviation, and the bounds in deviations, in double precision."""
        mean = self.of("mean", name).double().clamp(-20, 5)
        deviation = self.of("spread", name).double().clamp(-20, 5).exp()
        low, high = (self.CONSTANTS[key] for key in ("lowest", "highest"))
        return mean, deviation, (low - mean) / deviation, (high - mean) / deviation

    def sample(self, name: str, rows: int) -> Tensor:
        """The quantile at which a uniform number lies."""
        mean, deviation, low, high = self._bounds(name)
        u = self.draw(name, (rows, len(mean)), mean.float(), normal=False).double()
        place = ndtr(low) + u * (ndtr(high) - ndtr(low))
        quantile = ndtri(place.clamp(1e-12, 1 - 1e-12)) * deviation + mean
        found: Tensor = quantile.clamp(self.CONSTANTS["lowest"], self.CONSTANTS["highest"]).exp().float()
        return found

    def moment(self, name: str, order: int) -> Tensor:
        """Expectation of ``z^order``."""
        mean, deviation, low, high = self._bounds(name)
        shift = order * deviation
        # In logarithms: the ratio of two small probabilities is exact far from the mean too.
        inside = _log_between(low - shift, high - shift) - _log_between(low, high)
        found: Tensor = (order * mean + shift.square() / 2 + inside).exp()
        return found

    def mean(self, name: str) -> Tensor:
        """Expectation of the gate."""
        return self.moment(name, 1).float()

    def divergence(self, name: str) -> Tensor:
        """KL divergence from the log-uniform distribution on the same interval."""
        _, deviation, low, high = self._bounds(name)
        log_inside = _log_between(low, high)
        width = math.log(self.CONSTANTS["highest"] - self.CONSTANTS["lowest"])
        edge = (
            low * _log_density(low).sub(log_inside).exp() - high * _log_density(high).sub(log_inside).exp()
        ) / 2
        found: Tensor = width - 0.5 * math.log(2 * math.pi * math.e) - deviation.log() - log_inside - edge
        return found

    def penalty(self) -> Tensor:
        """The divergence of all gates, over the number of training examples."""
        return torch.stack([self.divergence(name).sum() for name in self.groups]).sum().float() / self.examples

    def learned(self) -> Mapping[str, Tensor]:
        """Signal-to-noise ratio ``E z / sqrt(Var z)`` of every unit."""
        found = {}
        for name in self.groups:
            first, second = self.moment(name, 1), self.moment(name, 2)
            variance = (second - first.square()).clamp_min(1e-30)
            found[name] = (first / variance.sqrt()).detach().float().cpu()
        return found


def _log_density(x: Tensor) -> Tensor:
    return -x.square() / 2 - 0.5 * math.log(2 * math.pi)


def _log_between(low: Tensor, high: Tensor) -> Tensor:
    """Logarithm of the probability between two numbers of deviations, by whichever tail is exact."""
    flip = low > 0
    near, far = torch.where(flip, -low, high), torch.where(flip, -high, low)
    larger: Tensor = log_ndtr(near)
    ratio = (log_ndtr(far) - larger).clamp_max(-1e-12)
    return larger + torch.log1p(-ratio.exp())


def _group(ctx: NetworkView, scores: Scores) -> Grouping:
    gated = {group.layer for group in gated_groups(ctx.module, ctx.example, frozenset(ctx.weights))}
    whole = channels.group(ctx, scores)
    units = {layer: found for layer, found in whole.units.items() if layer in gated}
    if not units:
        raise ShrinkbenchError(
            "no channels of this network are read by linear layers and convolutions alone; choose a method of "
            "structure 'channels'"
        )
    return Grouping(units, whole.expand)


gated_channels = STRUCTURES.add(
    "gated-channels",
    Structure(
        "gated-channels",
        "channels and neurons that linear layers and convolutions alone read; heads stay whole",
        _group,
        overlapping=True,
        unit="channel",
    ),
)


@pruning_method(
    "l0_hard_concrete",
    structure=gated_channels,
    schedule=register_penalised(
        "hard-concrete",
        "train with hard-concrete gates and a penalty on the share that is open; prune, fine-tune",
        HardConcrete,
        from_scratch=True,
    ),
    reference="louizos2018learning",
)
@pruning_method(
    "bayesian_compression",
    structure=gated_channels,
    schedule=register_penalised(
        "normal-jeffreys",
        "train with Gaussian gates and noise on the weights behind them; prune, fine-tune",
        NormalJeffreys,
    ),
    reference="louizos2017bayesian",
)
@pruning_method(
    "structured_bayesian_pruning",
    structure=gated_channels,
    schedule=register_penalised("log-normal-noise", "train with log-normal gates; prune, fine-tune", LogNormal),
    reference="neklyudov2017structured",
)
@pruning_method(
    "variational_information_bottleneck",
    structure=gated_channels,
    schedule=register_penalised(
        "information-bottleneck",
        "train with Gaussian gates and a penalty on what they let through; prune, fine-tune",
        InformationBottleneck,
    ),
    reference="dai2018compressing",
)
@decides("structure")
def open_gates(ctx: PruneContext) -> Scores | UnitScores:
    """What the gate of a unit has learned; without such a training, the mean square of the unit's weights."""
    if ctx.learned is not None:
        return UnitScores(ctx.learned)
    return {name: w.square() for name, w in ctx.weights.items()}
