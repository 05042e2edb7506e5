"""Gates that are computed from the maps that they gate: attention statistics, and codes of a batch.

Two papers train small layers that look at what a layer reads and say which of its channels matter: PCAS
(Yamamoto and Maeno 2018) an attention for each example, AutoPruner (Luo and Wu 2018) a code for each batch that
becomes binary while it trains. Both leave the network's streams whole, and leave it without their layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from shrinkbench.network.coupling import couple
from shrinkbench.network.probe import trace
from shrinkbench.network.weights import is_transposed_linear, layer_of
from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.methods.unit_gates import open_gates
from shrinkbench.pruning.schedules.beside import Beside, Layer, spread
from shrinkbench.pruning.schedules.hook import Setting
from shrinkbench.pruning.schedules.schedule import register_penalised
from shrinkbench.pruning.structures.channel_masks import units_without_filters
from shrinkbench.pruning.structures.channels import Reader, chained_channels, readers

_BatchNorm = nn.modules.batchnorm._BatchNorm


class MapGates(Beside):
    """A layer's inputs are multiplied by gates that ``gates`` computes from them, while it trains.

    What ``note`` is given in a step comes back from ``noted``, as the mean over the processes that train
    together: it goes the way of gradients.
    """

    def place(self) -> None:
        """Numbers for the gates of each group of channels that one layer reads."""
        setting = self.setting
        ctx = PruneContext(setting.module, setting.names, input_shape=setting.example)
        self.readers = {r.key: r for r in readers(ctx, couple(setting.module, setting.example))}
        self._slots: dict[str, Tensor] = {}
        shapes = _input_shapes(setting, {layer_of(r.weight) for r in self.readers.values()})
        self.shapes = {name: shapes[layer_of(reader.weight)] for name, reader in self.readers.items()}
        for name, reader in self.readers.items():
            self._slots[name] = torch.zeros((), device=self.device_of(name), requires_grad=True)
            self.add_gates(name, reader)

    def add_gates(self, name: str, reader: Reader) -> None:
        """``add_drawn`` the numbers of a group; its reader takes inputs of the shape ``shapes[name]``."""
        raise NotImplementedError

    def gates(self, name: str, maps: Tensor) -> Tensor:
        """Gates (rows or 1, units) of a group, for what its reader is given."""
        raise NotImplementedError

    def add_drawn(self, kind: str, name: str, shape: tuple[int, int], deviation: float) -> None:
        """``add`` a matrix of normal numbers."""
        self.add(kind, name, shape, 0.0, at=self.readers[name].weight)
        drawn = torch.randn(shape, generator=self.setting.generator("gates", kind, name)) * deviation
        with torch.no_grad():
            self.of(kind, name).copy_(drawn)

    def attach(self) -> list[RemovableHandle]:
        """Gates in front of every reader."""
        return [
            self.setting.module.get_submodule(layer_of(reader.weight)).register_forward_pre_hook(
                partial(self._gate, name)
            )
            for name, reader in self.readers.items()
        ]

    def _gate(self, name: str, layer: Layer, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps = args[0]
        gates = self.gates(name, maps)
        factors = spread(gates, self.readers[name].unit, maps, last=self.is_linear(name))
        return (maps * factors, *args[1:])

    def device_of(self, name: str) -> torch.device:
        """Where the reader of a group is now."""
        return self.setting.module.get_parameter(self.readers[name].weight).device

    def is_linear(self, name: str) -> bool:
        """Whether the channels of what the group's reader is given are its last dimension."""
        layer = self.setting.module.get_submodule(layer_of(self.readers[name].weight))
        return isinstance(layer, nn.Linear) or is_transposed_linear(layer)

    def is_training(self, name: str) -> bool:
        """Whether the reader of a group is in training mode."""
        return self.setting.module.get_submodule(layer_of(self.readers[name].weight)).training

    @property
    def beside(self) -> tuple[Tensor, ...]:
        """All numbers, and what was noted in this step."""
        return () if self._done else (*self._numbers.values(), *self._slots.values())

    def note(self, name: str, values: Tensor) -> None:
        """Keep ``values`` of a group for the end of this step."""
        slot = torch.zeros_like(values).requires_grad_()
        slot.grad = values.detach().clone()
        self._slots[name] = slot

    def noted(self) -> dict[str, Tensor]:
        """What was noted in this step, by group."""
        found = {name: slot.grad for name, slot in self._slots.items() if slot.grad is not None}
        for slot in self._slots.values():
            slot.grad = None
        return found


def _input_shapes(setting: Setting, paths: set[str]) -> dict[str, torch.Size]:
    """Shapes of what the layers at ``paths`` are given."""
    found: dict[str, torch.Size] = {}

    def see(path: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        found[path] = args[0].shape

    handles = [
        setting.module.get_submodule(path).register_forward_pre_hook(partial(see, path)) for path in paths
    ]
    try:
        trace(setting.module, setting.example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def unit_means(maps: Tensor, unit: Tensor, units: int, *, last: bool) -> Tensor:
    """Mean of each unit over its positions, for every example: (rows, units).

    >>> unit_means(torch.tensor([[1.0, 3.0, 5.0, 7.0]]), torch.tensor([0, 0, 1, 1]), 2, last=True)
    tensor([[2., 6.]])
    """
    maps = maps.float()
    if last:
        channels = maps.flatten(1, -2).mean(1) if maps.dim() > 2 else maps
    else:
        channels = maps.flatten(2).mean(2) if maps.dim() > 2 else maps
    here = unit.to(maps.device)
    counts = torch.bincount(here, minlength=units).clamp(min=1)
    return channels.new_zeros(len(channels), units).index_add(1, here, channels) / counts


class ChannelAttention(MapGates):
    """``sigmoid(B relu(A z + a) + b)`` of the channels' means z gates each example (Yamamoto and Maeno 2018).

    The network stays as it is while the attention trains; for the last quarter of the steps that stays too, and
    its mean over the examples is what decides.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {
        "travel": 1.0,
        "travel_of_means": 1.0,
        "until": 0.75,
        "reduction": 4.0,
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._end = int(self.CONSTANTS["until"] * setting.steps)
        self._sums = {
            name: torch.zeros(reader.units, device=self.device_of(name))
            for name, reader in self.readers.items()
        }

    def add_gates(self, name: str, reader: Reader) -> None:
        """Two layers with a quarter of the units between them."""
        units, between = reader.units, max(int(reader.units // self.CONSTANTS["reduction"]), 1)
        self.add_drawn("first", name, (between, units), (2 / units) ** 0.5)
        self.add_drawn("second", name, (units, between), (1 / between) ** 0.5)
        self.add("first-bias", name, (between,), 0.0, at=reader.weight)
        self.add("second-bias", name, (units,), 0.0, at=reader.weight)

    def gates(self, name: str, maps: Tensor) -> Tensor:
        """The attention of each example to each unit."""
        reader = self.readers[name]
        means = unit_means(maps, reader.unit, reader.units, last=self.is_linear(name))
        between = F.linear(means, self.of("first", name), self.of("first-bias", name)).relu()
        found = F.linear(between, self.of("second", name), self.of("second-bias", name)).sigmoid()
        if self.is_training(name):
            self.note(name, found.mean(0))
        return found

    def attach(self) -> list[RemovableHandle]:
        """Batch norms compute as in evaluation, whatever mode a loop has put them in."""
        return [*super().attach(), self.setting.module.register_forward_pre_hook(self._fix)]

    def _fix(self, module: nn.Module, _: object) -> None:
        if module.training:
            self._normalise_as_in(training=False)

    def _normalise_as_in(self, *, training: bool) -> None:
        for child in self.setting.module.modules():
            if isinstance(child, _BatchNorm):
                child.train(training)

    def after_backward(self, step: int) -> None:
        """Move the attention, or look at it; the network does not move."""
        if self._done:
            return
        noted = self.noted()
        if step <= self._end:
            self._optimizer.step()
        else:
            for name, attention in noted.items():
                self._sums[name] += attention
        self._optimizer.zero_grad(set_to_none=True)
        for parameter in self.setting.module.parameters():
            parameter.grad = None

    def finish(self) -> Mapping[str, Tensor]:
        """Take the attention away."""
        learned = super().finish()
        self._normalise_as_in(training=self.setting.module.training)
        return learned

    def learned(self) -> Mapping[str, Tensor]:
        """Mean attention to each unit, over the steps in which it was looked at."""
        looked = max(self.setting.steps - self._end, 1)
        return {name: (total / looked).cpu() for name, total in self._sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """What else is kept, and the attention so far."""
        return {**super().state_dict(), "attention": self._sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._sums = {name: t.to(self._sums[name].device, copy=True) for name, t in state["attention"].items()}


class BatchCodes(MapGates):
    """``sigmoid(alpha A x / s)`` of the batch's mean x, pooled, gates all its examples (Luo and Wu 2018).

    alpha goes from 1 to 100, by equal factors; s is the mean of ``|A x|`` in the first step. The penalty is
    ``100 |o - r| (mean code - r)^2`` of every layer, o the share of codes above a half and r the share of
    channels that is to stay.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {
        "travel": 60.0,
        "travel_of_means": 1.0,
        "warm_up": 0.0,
        "sharpest": 100.0,
        "strength": 100.0,
        "memory": 0.9,
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._logits: dict[str, Tensor] = {}
        self._scales: dict[str, Tensor] = {}
        self._pooled: dict[str, Tensor] = {}
        sizes = {name: p.detach().abs() for name, p in setting.parameters.items()}
        masks = setting.decide(setting.amount, scores=sizes)
        self.shares = {
            name: float((~units_without_filters(reader.group, masks)).float().mean())
            for name, reader in self.readers.items()
            if reader.group is not None
        }

    def add_gates(self, name: str, reader: Reader) -> None:
        """One layer from all pooled positions to a logit for each unit."""
        inputs = len(reader.unit) * math.prod(self.pooled_size(name))
        self.add_drawn("code", name, (reader.units, inputs), 10 * (2 / inputs) ** 0.5)

    def pooled_size(self, name: str) -> tuple[int, ...]:
        """Half as many positions in every direction, as far as there are any."""
        return () if self.is_linear(name) else tuple(max(n // 2, 1) for n in self.shapes[name][2:])

    @property
    def sharpness(self) -> float:
        """``alpha`` in this step."""
        return float(self.CONSTANTS["sharpest"] ** min(self._step / self.setting.steps, 1.0))

    def codes(self, name: str, logits: Tensor) -> Tensor:
        """``sigmoid(alpha logits / s)``; before the first step is over s is that of ``logits``."""
        scale = self._scales.get(name, logits.detach().abs().mean())
        return (self.sharpness * logits / scale.clamp_min(1e-12)).sigmoid()

    def pooled(self, name: str, maps: Tensor) -> Tensor:
        """The mean over the batch, and the largest of two by two positions of it, in one row."""
        mean = maps.float().mean(0, keepdim=True)
        size = self.pooled_size(name)
        if self.is_linear(name):
            return mean.flatten(1, -2).mean(1).flatten() if mean.dim() > 2 else mean.flatten()
        if not size:
            return mean.flatten()
        pool = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[len(size) - 1]
        found: Tensor = pool(mean, size)
        return found.flatten()

    def gates(self, name: str, maps: Tensor) -> Tensor:
        """The code of this batch; in evaluation, that of the running mean of logits."""
        if self.is_training(name):
            pooled = self.pooled(name, maps)
            self.note(name, pooled)
            logits = self.of("code", name) @ pooled
        elif name in self._logits:
            logits = self._logits[name]
        else:
            return maps.new_ones(1, self.readers[name].units)
        return self.codes(name, logits).unsqueeze(0)

    def after_backward(self, step: int) -> None:
        """Move the codes by the loss and the penalty."""
        if self._done:
            return
        self._pooled = self.noted()
        memory = self.CONSTANTS["memory"]
        with torch.no_grad():
            for name, pooled in self._pooled.items():
                new = self.of("code", name) @ pooled
                self._scales.setdefault(name, new.abs().mean())
                old = self._logits.get(name, new)
                self._logits[name] = memory * old + (1 - memory) * new
        super().after_backward(step)

    def penalty(self) -> Tensor:
        """The squared distance of the mean code from the share that is to stay, the farther the stronger."""
        total = 0 * next(iter(self._numbers.values())).sum()
        for name, pooled in self._pooled.items():
            codes = self.codes(name, self.of("code", name) @ pooled)
            share = self.shares[name]
            strength = self.CONSTANTS["strength"] * (float((codes > 0.5).float().mean()) - share)
            total = total + abs(strength) * (codes.mean() - share).square()
        return total

    def _make_optimizer(self) -> torch.optim.Adam:
        # A logit sums up all positions: what each weight may move is the less, the more there are.
        rate = self.CONSTANTS["travel"] / self.setting.steps
        groups = [{"params": [numbers], "lr": rate / numbers.shape[1]} for numbers in self._numbers.values()]
        return torch.optim.Adam(groups)

    def learned(self) -> Mapping[str, Tensor]:
        """The running mean of logits: above 0 where the code is 1."""
        return {
            name: self._logits.get(name, torch.zeros(reader.units)).cpu()
            for name, reader in self.readers.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """What else is kept, and the running means."""
        own = {"logits": self._logits, "scales": self._scales, "step": self._step}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._logits, self._scales = (
            {name: t.to(self.device_of(name), copy=True) for name, t in state[key].items()}
            for key in ("logits", "scales")
        )
        self._step = state["step"]


pruning_method(
    "pcas",
    structure=chained_channels,
    schedule=register_penalised(
        "channel-attention",
        "train attention to channels on the network as it is; the least attended go, fine-tune",
        ChannelAttention,
    ),
    reference="yamamoto2018pcas",
)(open_gates)
pruning_method(
    "autopruner",
    structure=chained_channels,
    allocation=layerwise,
    schedule=register_penalised(
        "batch-codes",
        "train with codes of each batch that become binary; channels of the least go, fine-tune",
        BatchCodes,
    ),
    reference="luo2018autopruner",
)(open_gates)
