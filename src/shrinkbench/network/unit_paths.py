"""Which inputs of which layers read each output of a layer: what paths through single weights need.

It is seen, not guessed: layers put out constants in place of what they compute, one of them a pattern over its
channels, and the pattern is looked for in what the others read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.calling import call_with
from shrinkbench.network.dataflow import Flow, Geometry, read_flow, read_geometry
from shrinkbench.network.derivatives import random_state_kept
from shrinkbench.network.inputs import Example, Inputs
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.network.weights import is_transposed_linear, layer_of, looked_up, recurrent_weights

_OTHER = "choose a method that scores weights one by one, such as synflow"
_LOW, _HIGH = 0.1, 0.2  # positive, and below the bounds of activation functions that have some
_SEEN = 1e-5


@dataclass(frozen=True)
class Link:
    """For each unit on one side those on the other, as consecutive runs of ``items``."""

    starts: Tensor
    counts: Tensor
    items: Tensor

    @classmethod
    def of_pairs(cls, units: Tensor, others: Tensor, count: int) -> Link:
        """From pairs of a unit, of ``count``, and one on the other side."""
        order = units.argsort(stable=True)
        counts = torch.bincount(units, minlength=count)
        return cls(counts.cumsum(0) - counts, counts, others[order])

    def of(self, units: Tensor) -> Tensor:
        """How many there are on the other side of each of ``units``."""
        return self.counts[units]

    def take(self, units: Tensor, which: Tensor) -> Tensor:
        """The one of number ``which`` of each of ``units``."""
        return self.items[self.starts[units] + torch.minimum(which, self.counts[units] - 1)]


@dataclass(frozen=True)
class Edge:
    """Outputs of ``source`` that ``reader`` reads: ``reached`` from there, ``made`` from here."""

    source: str
    reader: str
    reached: Link
    made: Link


@dataclass(frozen=True)
class PathLayer:
    """A weight as (outputs, inputs per group, kernel positions), what it reads, and what reads it.

    ``width`` and ``height`` are inputs and outputs per group; ``last``: it makes an output of the network.
    """

    name: str
    geometry: Geometry
    shape: torch.Size
    last: bool
    sources: list[Edge] = field(default_factory=list)
    readers: list[Edge] = field(default_factory=list)

    @property
    def outputs(self) -> int:
        """Outputs of all groups."""
        return self.shape[0]

    @property
    def width(self) -> int:
        """Inputs per group."""
        return self.shape[1]

    @property
    def inputs(self) -> int:
        """Inputs of all groups."""
        return self.width * self.geometry.groups

    @property
    def height(self) -> int:
        """Outputs per group."""
        return self.outputs // self.geometry.groups

    @property
    def kernel(self) -> int:
        """Kernel positions."""
        return self.shape[2:].numel()

    def rows(self, tensor: Tensor) -> Tensor:
        """A tensor of the weight's shape as (outputs, inputs per group, kernel positions), on the CPU."""
        return self.geometry.rows(tensor).reshape(self.outputs, self.width, self.kernel).cpu()

    def restore(self, rows: Tensor) -> Tensor:
        """The inverse of :meth:`rows`, of as many entries in any shape."""
        return self.geometry.restore(rows.reshape(self.shape)).contiguous()

    def by_input(self, rows: Tensor) -> Tensor:
        """(inputs, outputs per group x kernel positions) of what is (outputs, inputs per group, positions)."""
        groups = rows.reshape(self.geometry.groups, self.height, self.width, self.kernel)
        return groups.transpose(1, 2).reshape(self.inputs, self.height * self.kernel)


def read_paths(module: nn.Module, example: Example) -> Mapping[str, PathLayer]:
    """Every weighted product in order of execution, with what each of its units reads and is read by.

    Raises ``ShrinkbenchError`` for networks with recurrent layers, attention, weights that are used several
    times, and layers behind which an input is made of several channels (as behind a layer norm).
    """
    recurrent = recurrent_weights(module)
    if recurrent:
        raise ShrinkbenchError(
            f"no path of single weights leads through the recurrent layer of '{recurrent[0]}', whose gates "
            f"multiply one another; {_OTHER}"
        )
    flow = read_flow(module, example)
    _require_single_paths(flow)
    geometries = read_geometry(module)
    parameters = dict(module.named_parameters())
    found: dict[str, PathLayer] = {}
    for name in flow.order:
        geometry = geometries.get(name, Geometry())
        shape = geometry.rows(parameters[name].detach()).shape
        found[name] = PathLayer(name, geometry, shape, name in flow.logits)
    seen = _Signals(module, Inputs.of(example), found)
    places = {name: place for place, name in enumerate(found)}
    readers = {name: [s.parameter for s in flow.steps if name in s.sources] for name in found}
    for source in found.values():
        inputs = seen.inputs_behind(source, readers[source.name])
        for reader in sorted(readers[source.name], key=places.__getitem__):
            edge = _edge(source, found[reader], inputs[reader])
            source.readers.append(edge)
            found[reader].sources.append(edge)
    return found


def _require_single_paths(flow: Flow) -> None:
    heads = next((step.parameter for step in flow.steps if step.head_size is not None), None)
    if heads is not None:
        raise ShrinkbenchError(
            f"no path of single weights leads through the attention in front of '{layer_of(heads)}', which "
            f"multiplies activations by activations; {_OTHER}"
        )
    often = [name for name, uses in Counter(step.parameter for step in flow.steps).items() if uses > 1]
    if often:
        raise ShrinkbenchError(
            f"'{often[0]}' is used several times in one pass, and a path of single weights has one place for "
            f"each; {_OTHER}"
        )


def _patterns(channels: int) -> Tensor:
    """Nothing, each binary digit of the channel's number, and the complement of each: (rows, channels)."""
    digits = max((channels - 1).bit_length(), 1)
    ones = torch.stack([torch.arange(channels) >> digit & 1 for digit in range(digits)]).bool()
    return torch.cat([torch.zeros(1, channels, dtype=torch.bool), ones, ~ones])


def _edge(source: PathLayer, reader: PathLayer, read: Tensor) -> Edge:
    """From what the inputs of ``reader`` show of the patterns of ``source``: (rows, inputs)."""
    ones, others = (read[1:] - read[0]).abs().gt(_SEEN).chunk(2)
    touched, alone = (ones | others).any(0), (ones ^ others).all(0)
    if bool((touched & ~alone).any()) or not bool(touched.any()):
        raise ShrinkbenchError(
            f"inputs of '{layer_of(reader.name)}' are not made of one channel of '{layer_of(source.name)}' "
            f"each, as paths of single weights need it; {_OTHER}"
        )
    numbers = sum(digit.long() << place for place, digit in enumerate(ones))
    inputs = touched.nonzero().squeeze(1)
    outputs = torch.as_tensor(numbers)[inputs]
    reached = Link.of_pairs(outputs, inputs, source.outputs)
    return Edge(source.name, reader.name, reached, Link.of_pairs(inputs, outputs, reader.inputs))


class _Signals:
    """A network whose weighted layers put out what they are told, and whose batch norms pass it on."""

    def __init__(self, module: nn.Module, example: Inputs, layers: Mapping[str, PathLayer]) -> None:
        self._module = module
        self._inputs = example.filled(1.0).repeated(1).part(0, 1)
        self._layers = {name: _layer_of(module, name) for name in layers}
        self._neutral = dict(_neutral(module))
        self._shapes: dict[str, torch.Size] = {}

        def compute(name: str, layer: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
            output: Tensor = type(layer).forward(layer, *args)
            self._shapes[name] = output.shape
            return output

        self._run(compute, 1)
        missing = [name for name in layers if name not in self._shapes]
        if missing:
            raise ShrinkbenchError(
                f"'{missing[0]}' is multiplied outside of its layer, where paths cannot be followed; {_OTHER}"
            )

    def inputs_behind(self, source: PathLayer, readers: list[str]) -> dict[str, Tensor]:
        """What ``readers`` get of each pattern of ``source``: (rows, inputs)."""
        patterns = _patterns(source.outputs)
        found: dict[str, Tensor] = {}

        def answer(name: str, layer: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
            if name in readers:
                found[name] = _by_input(args[0], layer, len(patterns))
            pattern = patterns if name == source.name else torch.zeros(len(patterns), 1, dtype=torch.bool)
            return _signal(pattern, self._shapes[name], layer).to(args[0])

        if readers:
            self._run(answer, len(patterns))
        return found

    def _run(self, answer: Callable[[str, nn.Module, tuple[Tensor, ...]], Tensor], rows: int) -> None:
        device = next(self._module.parameters()).device
        given = self._inputs.repeated(rows).to(device, next(self._module.parameters()).dtype)
        args, kwargs = given.bound(self._module)
        with (
            torch.no_grad(),
            evaluation_mode(self._module),
            random_state_kept(device),
            _answering(self._layers, answer),
        ):
            call_with(self._module, self._neutral, args, kwargs)


def _layer_of(module: nn.Module, name: str) -> nn.Module:
    layer = module.get_submodule(layer_of(name))
    if not (isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) or is_transposed_linear(layer)):
        raise ShrinkbenchError(
            f"no path of single weights leads through '{layer_of(name)}', a {type(layer).__name__}; {_OTHER}"
        )
    return layer


def _neutral(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors with which batch norms do nothing, so that no sign of theirs hides a signal."""
    values = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    for path, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._NormBase):
            for kind, value in values.items():
                tensor = getattr(child, kind)
                if tensor is not None:
                    yield f"{path}.{kind}" if path else kind, torch.full_like(tensor, value)


@contextmanager
def _answering(
    layers: Mapping[str, nn.Module], answer: Callable[[str, nn.Module, tuple[Tensor, ...]], Tensor]
) -> Iterator[None]:
    """Layers put out ``answer(name, layer, arguments)``; their own way of computing is as before afterwards."""

    def told(name: str, layer: nn.Module) -> Callable[..., Tensor]:
        return lambda *args, **named: answer(name, layer, (*args, *named.values()))

    before = {name: layer.__dict__.get("forward") for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.__dict__["forward"] = told(name, layer)
        yield
    finally:
        for name, layer in layers.items():
            own = before[name]
            if own is None:
                layer.__dict__.pop("forward", None)
            else:
                layer.__dict__["forward"] = own


def _signal(pattern: Tensor, shape: torch.Size, layer: nn.Module) -> Tensor:
    """A tensor of ``shape``, as often as there are rows in ``pattern`` (rows, channels or 1)."""
    values = torch.where(pattern, _HIGH, _LOW).repeat_interleave(shape[0], 0)
    between = [1] * (len(shape) - 2)
    convolution = isinstance(layer, nn.modules.conv._ConvNd)
    placed = values.reshape(len(values), *((-1, *between) if convolution else (*between, -1)))
    return placed.expand(len(values), *shape[1:]).contiguous()


def _by_input(tensor: Tensor, layer: nn.Module, rows: int) -> Tensor:
    """(rows, inputs): of what a layer reads, for each row of the batch, the mean over all positions."""
    channels = tensor.movedim(1, -1) if isinstance(layer, nn.modules.conv._ConvNd) else tensor
    return channels.double().reshape(rows, -1, channels.shape[-1]).mean(1).cpu()


def unpassed_error(module: nn.Module, name: str) -> ShrinkbenchError:
    """Why no path from inputs to outputs leads over the weight ``name``."""
    if name in looked_up(module):
        return ShrinkbenchError(
            f"'{name}' is an embedding, which is looked up and is the weight of no layer that multiplies, so "
            "that no path leads over it; leave prune_embeddings out (or ignore it), or choose another method"
        )
    return ShrinkbenchError(
        f"no path leads over '{name}', which multiplies nothing on the way from inputs to outputs; choose a "
        "method that scores weights one by one, such as synflow"
    )
