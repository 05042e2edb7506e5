"""Schedules that train noise or gates beside the weights, and prune by what these have learned.

While the network trains, hooks on its layers multiply inputs by random gates or add random noise to outputs;
what they are drawn from is trained along, by Adam and a penalty. In evaluation the network computes with the
mean of its gates. After the last epoch the hooks go, means are folded into the weights, and masks are decided.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.utils.hooks import RemovableHandle

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import Group, couple
from shrinkbench.network.inputs import Example
from shrinkbench.network.probe import trace
from shrinkbench.network.weights import layer_of, weight_parameters
from shrinkbench.pruning.schedules.hook import Setting
from shrinkbench.pruning.schedules.penalised import Penalised
from shrinkbench.seeds import stream

_TINY = 1e-8
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class CopiedGatesWarning(UserWarning):
    """A copy of a network holds gates that stay as they were."""


class Beside(Penalised):
    """Trains what subclasses ``add`` beside the weights.

    Each number moves by Adam, at a rate with which it can go by ``travel`` in the whole training (means:
    ``travel_of_means``). The penalty counts fully after the share ``warm_up`` of all steps, rising linearly.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {"travel": 10.0, "travel_of_means": 1.0, "warm_up": 0.5}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, penalty=1.0)
        self._numbers: dict[str, Tensor] = {}
        self._places: dict[str, str] = {}  # the parameter on whose device the numbers are
        self._handles: list[RemovableHandle] = []
        self._examples = 0 if setting.batch_size is None else setting.batch_size * setting.steps_per_epoch
        self._rows: dict[str, int] = {}
        self._step = 0
        self.place()
        self._optimizer = self._make_optimizer()

    def __deepcopy__(self, memo: dict[int, Any]) -> Beside:
        """With a copy of the network, which has hooks of its own; nothing trains or folds them."""
        warnings.warn(
            "a copy of a network that is trained with gates or noise keeps those of now, and no training "
            "reaches them; copy or average it after finish()",
            CopiedGatesWarning,
            stacklevel=2,
        )
        copied = memo[id(self)] = object.__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """No file has room for hooks."""
        raise ShrinkbenchError(
            "a network that is trained with gates or noise holds hooks, which no file keeps; save its "
            "state_dict() and that of the Pruner, or save it after finish()"
        )

    def place(self) -> None:
        """``add`` all numbers; raises ``ShrinkbenchError`` where the network has no place for them."""
        raise NotImplementedError

    def attach(self) -> list[RemovableHandle]:
        """Hooks on the layers of the network."""
        raise NotImplementedError

    def penalty(self) -> Tensor:
        """What is added to the loss, in nats of one example."""
        raise NotImplementedError

    def learned(self) -> Mapping[str, Tensor]:
        """What the score is given in the end."""
        raise NotImplementedError

    def fold(self) -> None:
        """Put means of gates into the weights."""

    def add(self, kind: str, name: str, shape: torch.Size | tuple[int, ...], value: float, *, at: str) -> None:
        """Train a tensor of ``kind`` for ``name`` from ``value`` on, where the parameter ``at`` is."""
        self._places[f"{kind}/{name}"] = at
        device = self.setting.module.get_parameter(at).device
        self._numbers[f"{kind}/{name}"] = torch.full(shape, value, device=device, requires_grad=True)

    def of(self, kind: str, name: str) -> Tensor:
        """The numbers of ``kind`` for ``name``."""
        return self._numbers[f"{kind}/{name}"]

    def draw(self, purpose: str, shape: tuple[int, ...], like: Tensor, *, normal: bool = True) -> Tensor:
        """Noise of this step and ``purpose``, the same whenever it is asked for."""
        generator = torch.Generator(like.device)
        generator.manual_seed(stream(self.setting.seed, "noise", purpose, self._step))
        draw = torch.randn if normal else torch.rand
        found: Tensor = draw(shape, generator=generator, device=like.device)
        return found

    @property
    def beside(self) -> tuple[Tensor, ...]:
        """All numbers, until the training with them is over."""
        return () if self._done else tuple(self._numbers.values())

    @property
    def examples(self) -> int:
        """Training examples of an epoch, a last batch that is smaller counted as a whole one."""
        if not self._examples:
            raise ShrinkbenchError(
                "no layer with gates or noise was called in training mode before this step, which so has "
                "no examples; call model.train() first"
            )
        return self._examples

    def see(self, path: str, inputs: Tensor) -> None:
        """Count the examples of the first step, which may be of several batches, where nobody said them."""
        recomputed = torch._C._current_graph_task_id() != -1  # by a checkpoint, in the backward pass
        if not self._examples and not recomputed:
            self._rows[path] = self._rows.get(path, 0) + len(inputs)

    def unscale(self, scale: float) -> None:
        """Divide what all numbers have been given by the loss."""
        for numbers in self._numbers.values():
            if numbers.grad is not None:
                numbers.grad = None if math.isinf(scale) else numbers.grad / scale

    def leave_out(self) -> None:
        """Drop the gradients, and the examples that gave them."""
        self.unscale(math.inf)
        self._rows.clear()

    def before_step(self, step: int) -> None:
        """Put the hooks in place before the first step."""
        self._step = step
        if not self._handles and not self._done:
            self._handles = self.attach()

    def after_backward(self, step: int) -> None:
        """Add the penalty's gradients, and move the numbers."""
        if self._done:
            return
        if not self._examples and self._rows:  # a layer may be called several times
            self._examples = min(self._rows.values()) * self.setting.steps_per_epoch
        parameters = [p for p in self.setting.parameters.values() if p.requires_grad]
        wanted = [*self._numbers.values(), *parameters]
        share = min(step / max(self.CONSTANTS["warm_up"] * self.setting.steps, 1), 1.0)
        with torch.enable_grad():
            found = torch.autograd.grad(self.penalty() * share, wanted, allow_unused=True)
        for tensor, gradient in zip(wanted, found, strict=True):
            if gradient is not None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad.add_(gradient)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def finish(self) -> Mapping[str, Tensor]:
        """Take the hooks off, and fold what stays into the weights."""
        self._detach()
        with torch.no_grad():
            learned = self.learned()
            self.fold()
        return learned

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _make_optimizer(self) -> torch.optim.Adam:
        steps, constants = self.setting.steps, self.CONSTANTS
        kinds: dict[bool, list[Tensor]] = {True: [], False: []}
        for name, numbers in self._numbers.items():
            kinds[name.startswith("mean/")].append(numbers)
        rates = {True: constants["travel_of_means"] / steps, False: constants["travel"] / steps}
        return torch.optim.Adam([{"params": kinds[k], "lr": rates[k]} for k in kinds if kinds[k]])

    def state_dict(self) -> dict[str, Any]:
        """Masks, numbers, and the moments of their gradients."""
        numbers = {name: numbers.detach() for name, numbers in self._numbers.items()}
        moments = self._optimizer.state_dict()
        return {**super().state_dict(), "numbers": numbers, "moments": moments, "examples": self._examples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        for name, numbers in state["numbers"].items():
            device = self.setting.module.get_parameter(self._places[name]).device
            self._numbers[name] = numbers.detach().to(device, copy=True).requires_grad_()
        self._optimizer = self._make_optimizer()
        self._optimizer.load_state_dict(state["moments"])
        self._examples = state["examples"]
        if self._done:
            self._detach()


def is_noisy(layer: nn.Module) -> bool:
    """Whether noise of its weights can be brought to the outputs of ``layer``."""
    return isinstance(layer, Layer) and not isinstance(layer, NonDynamicallyQuantizableLinear)


def noisy_outputs(
    hook: Beside, path: str, layer: Layer, inputs: Tensor, outputs: Tensor, variances: Mapping[str, Tensor]
) -> Tensor:
    """``outputs`` as if each example had weights of its own, with ``variances`` of weight and bias.

    Local reparametrisation (Kingma et al. 2015): noise of variance ``x^2 * sigma^2`` is added to outputs.
    """
    weight, bias = variances.get("weight"), variances.get("bias")
    if weight is None:
        weight = torch.zeros_like(layer.weight)
    squares = inputs.square()
    if isinstance(layer, nn.Linear):
        variance = nn.functional.linear(squares, weight.to(squares.dtype), bias)
    else:
        variance = layer._conv_forward(squares, weight.to(squares.dtype), bias)
    noise = hook.draw(path, tuple(outputs.shape), outputs)
    return outputs + noise.to(outputs.dtype) * (variance + _TINY).sqrt().to(outputs.dtype)


class NoisyWeights(Beside):
    """Every prunable weight has a variance ``exp(noise)``, which reaches the outputs of its layer."""

    INITIAL: ClassVar[float] = -10.0

    def place(self) -> None:
        """One number for each prunable weight."""
        module = self.setting.module
        unread = set(self.setting.names) - _called(module, self.setting.example)
        for name in self.setting.names:
            if not is_noisy(module.get_submodule(layer_of(name))) or name in unread:
                raise ShrinkbenchError(
                    f"'{name}' is not that of a linear layer or convolution which is called as a module, so "
                    "that no noise of it can be learned; name its layer in ignore=, or choose another method"
                )
            self.add("noise", name, self.setting.parameters[name].shape, self.INITIAL, at=name)

    def attach(self) -> list[RemovableHandle]:
        """Noise behind every layer."""
        paths = dict.fromkeys(layer_of(name) for name in self.setting.names)
        return [
            self.setting.module.get_submodule(path).register_forward_hook(partial(self._add_noise, path))
            for path in paths
        ]

    def _add_noise(self, path: str, layer: Layer, args: tuple[Tensor, ...], outputs: Tensor) -> Tensor | None:
        if not layer.training:
            return None
        self.see(path, args[0])
        prefix = f"{path}." if path else ""
        found = {kind: self._numbers.get(f"noise/{prefix}{kind}") for kind in ("weight", "bias")}
        variances = {kind: numbers.exp() for kind, numbers in found.items() if numbers is not None}
        return noisy_outputs(self, path, layer, args[0], outputs, variances)


def gated_groups(module: nn.Module, example: Example, names: frozenset[str]) -> list[Group]:
    """Groups of channels that linear layers and convolutions alone read, and whose filters are in ``names``."""
    found = []
    whole = weight_parameters(module).keys() - names
    for group in couple(module, example).free:
        filters = [s.tensor for s in group.slices if s.role == "produces" and s.tensor.endswith("weight")]
        readers = [s for s in group.slices if s.role == "consumes"]
        carried = [s.tensor for s in group.slices if s.role == "carries" and s.tensor in whole]
        if carried or not (filters and readers and all(name in names for name in filters)):
            continue
        layers = [module.get_submodule(layer_of(s.tensor)) for s in readers]
        plain = all(is_noisy(layer) and getattr(layer, "groups", 1) == 1 for layer in layers)
        if plain and all(s.dim == 1 and s.tensor.endswith("weight") for s in readers):
            found.append(group)
    return found


class GatedUnits(Beside):
    """Every channel or neuron has a gate, drawn for each example, by which those who read it multiply it."""

    def place(self) -> None:
        """Numbers for each gate."""
        module = self.setting.module
        self.groups = {g.layer: g for g in gated_groups(module, self.setting.example, self._names)}
        for group in self.groups.values():
            readers = [s.tensor for s in group.slices if s.role == "consumes"]
            self.add_gates(group.layer, group.units, at=readers[0])

    @property
    def _names(self) -> frozenset[str]:
        return frozenset(self.setting.names)

    def add_gates(self, name: str, units: int, *, at: str) -> None:
        """``add`` the numbers from which the gates of a group are drawn."""
        raise NotImplementedError

    def sample(self, name: str, rows: int) -> Tensor:
        """Gates (rows, units) of a group."""
        raise NotImplementedError

    def mean(self, name: str) -> Tensor:
        """What stands for the gates of a group in evaluation, and is folded into the weights."""
        raise NotImplementedError

    def attach(self) -> list[RemovableHandle]:
        """Gates in front of every layer that reads a group."""
        readers: dict[str, list[tuple[str, Tensor]]] = {}
        for name, group in self.groups.items():
            for piece in group.slices:
                if piece.role == "consumes":
                    readers.setdefault(layer_of(piece.tensor), []).append((name, piece.unit))
        return [
            self.setting.module.get_submodule(path).register_forward_pre_hook(partial(self._gate, pieces))
            for path, pieces in readers.items()
        ]

    def _gate(
        self, pieces: list[tuple[str, Tensor]], layer: Layer, args: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        inputs = args[0]
        if layer.training:
            self.see(pieces[0][0], inputs)
        for name, unit in pieces:
            gates = self.sample(name, len(inputs)) if layer.training else self.mean(name).unsqueeze(0)
            inputs = inputs * spread(gates, unit, inputs, last=isinstance(layer, nn.Linear))
        return (inputs, *args[1:])

    def fold(self) -> None:
        """Multiply what reads a unit by the mean of its gate."""
        for name, group in self.groups.items():
            for piece in group.slices:
                if piece.role == "consumes":
                    weight = self.setting.module.get_parameter(piece.tensor)
                    weight.mul_(spread(self.mean(name).unsqueeze(0), piece.unit, weight, last=False))

    @property
    def sizes(self) -> dict[str, int]:
        """Parameters that leave with a unit of each group."""
        parameters = dict(self.setting.module.named_parameters())
        return {
            name: sum(
                parameters[s.tensor].numel() // parameters[s.tensor].shape[s.dim] * len(s.unit)
                for s in group.slices
                if s.tensor in parameters
            )
            // group.units
            for name, group in self.groups.items()
        }


def spread(gates: Tensor, unit: Tensor, like: Tensor, *, last: bool) -> Tensor:
    """Gates (rows, units) along the channels of ``like``; 1 where a channel belongs to another group."""
    here = unit.to(gates.device)
    values = gates[:, here.clamp_min(0)]
    values = torch.where(here >= 0, values, torch.ones_like(values)).to(like.dtype)
    between = [1] * (like.dim() - 2)
    return values.view(len(gates), *between, -1) if last else values.view(len(gates), -1, *between)


def _called(module: nn.Module, example: Example) -> frozenset[str]:
    """Parameters of the modules whose ``forward`` runs when ``module`` is evaluated."""
    found: set[str] = set()

    def note(path: str, child: nn.Module, *_: object) -> None:
        found.update(f"{path}.{name}" if path else name for name in child._parameters)

    handles = [child.register_forward_hook(partial(note, path)) for path, child in module.named_modules()]
    try:
        trace(module, example)
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(found)
