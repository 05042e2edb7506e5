"""A smaller network of which every value is known by its place in the masked one, and can be put back."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shrinkbench.errors import LeftWholeWarning, ShrinkbenchError
from shrinkbench.network.inputs import Example
from shrinkbench.network.weights import copy_of
from shrinkbench.pruning.masks import Masks
from shrinkbench.surgery.operation import Surgery, operate
from shrinkbench.surgery.shrinking import plan_and_shrink
from shrinkbench.surgery.stand_ins import ChannelSelect
from shrinkbench.surgery.whole_draws import draw_as_whole
from shrinkbench.training.hook import Hook


@dataclass(frozen=True)
class Place:
    """Where values lie in the masked network: in ``tensor``, at the positions ``index`` of it flattened."""

    tensor: str
    index: Tensor

    def read(self, whole: Tensor) -> Tensor:
        """The entries at this place of a tensor of the masked network's shape."""
        return whole.reshape(-1)[self.index.to(whole.device)]


@dataclass(frozen=True)
class SmallerNetwork:
    """What surgery makes of a masked network, the masks of what stays, and where everything came from.

    ``places`` has parameters and floating and counting buffers by their names in the smaller network. Weights
    that surgery takes out and no mask holds at zero are read by nothing, but an optimizer goes on moving them:
    they are the parameters ``unheard`` of the smaller network, which its forward pass does not use. ``digest``
    tells one correspondence from another.
    """

    module: nn.Module
    masks: Masks
    places: Mapping[str, Place]
    unheard: tuple[str, ...]
    digest: str

    def hook(self) -> Hook:
        """What takes part in a training of ``module``, so that ``unheard`` weights move as they would."""
        return _NoGradient([self.module.get_parameter(name) for name in self.unheard])

    @torch.no_grad()
    def write_back(self, masked: nn.Module) -> None:
        """Put all values into their places of ``masked``; what has none there stays as it is.

        That is zero for weights; a batch norm's statistics of channels that are gone, which nothing reads,
        stay those from before.
        """
        there, here = _tensors(masked), _tensors(self.module)
        for name, place in self.places.items():
            whole = there[place.tensor]
            flat = whole.reshape(-1).clone()
            flat[place.index.to(whole.device)] = here[name].reshape(-1).to(whole.device, whole.dtype)
            whole.copy_(flat.reshape(whole.shape))


def smaller_network(
    module: nn.Module, masks: Mapping[str, Tensor], example: Example, *, select_inputs: bool = True
) -> SmallerNetwork:
    """The smaller network whose training is that of ``module``, on which ``masks`` are, value by value.

    Raises ``NothingLeavesError`` where it would be the network itself, and ``ShrinkbenchError`` where surgery
    cannot be done or parts layers that share a weight.
    """
    upheld = Masks(dict(masks))  # values that the method chose are in the module by now
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftWholeWarning)
        small, surgery = plan_and_shrink(module, upheld, example, select_inputs=select_inputs)
    if surgery == Surgery():
        raise NothingLeavesError("no unit leaves the network whole")
    numbered, starts = _numbered(module)
    found = _tensors(operate(numbered, surgery))
    for name, tensor in _tensors(small).items():
        if name not in found or found[name].shape != tensor.shape:
            raise ShrinkbenchError(f"the entries of '{name}' cannot be followed through surgery")
    places = dict(_places(found, starts))
    own = {n: upheld[p.tensor] for n, p in places.items() if p.tensor in upheld}
    there = {n: places[n].read(mask).reshape(found[n].shape) for n, mask in own.items()}
    beside = _unheard(module, _removed(module, places), upheld)
    for name, place in beside.items():
        small.register_parameter(name, nn.Parameter(place.read(module.get_parameter(place.tensor).detach())))
    places |= beside
    result = SmallerNetwork(small, Masks(there), places, tuple(beside), _digest(places))
    _draw_alike(module, upheld, result, example)
    return result


class _NoGradient(Hook):
    """Gives parameters the gradient that weights have which nothing reads: zero, and not none."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters

    def after_backward(self, step: int) -> None:
        """Put zeros there."""
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)


def _draw_alike(module: nn.Module, masks: Masks, smaller: SmallerNetwork, example: Example) -> None:
    """Have dropout draw as in the whole network; what stayed is told apart by values drawn for that."""
    if not any(isinstance(child, nn.Dropout) for child in module.modules()):
        return
    values = copy_of(smaller.module)
    revealing = copy_of(module)
    masks.apply(revealing)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in values.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator).abs()  # no rectifier stays shut
            parameter.copy_(drawn + name.endswith("bias"))
        smaller.masks.apply(values)
    SmallerNetwork(values, smaller.masks, smaller.places, (), "").write_back(revealing)
    draw_as_whole(smaller.module, (revealing, values), example)


class NothingLeavesError(ShrinkbenchError):
    """The smaller network would be the network itself."""


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, and buffers that training may change, each of them once."""
    buffers = {n: b for n, b in module.named_buffers() if b.is_floating_point() or b.dtype == torch.int64}
    chosen = {n for n, child in module.named_modules() if isinstance(child, ChannelSelect)}
    own = {n: b for n, b in buffers.items() if n.rpartition(".")[0] not in chosen}
    return {**dict(module.named_parameters()), **own}


def _numbered(module: nn.Module) -> tuple[nn.Module, dict[str, tuple[int, int]]]:
    """A copy in which every entry of every tensor is another number, and the numbers of each tensor.

    Surgery moves values and computes none, so that a number tells where a value came from.
    """
    numbered = copy_of(module).cpu().double()
    starts: dict[str, tuple[int, int]] = {}
    start = 0
    for name, tensor in _tensors(numbered).items():
        stop = start + tensor.numel()
        tensor.data = torch.arange(start, stop, dtype=tensor.dtype).reshape(tensor.shape)
        starts[name] = (start, stop)
        start = stop
    return numbered, starts


def _places(found: Mapping[str, Tensor], starts: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, Place]]:
    for name, tensor in found.items():
        numbers = tensor.detach().reshape(-1).to(torch.int64)
        if not len(numbers):
            continue
        first, last = int(numbers.min()), int(numbers.max())
        source = next((n for n, (start, stop) in starts.items() if start <= first and last < stop), None)
        if source is None:
            raise ShrinkbenchError(f"the entries of '{name}' cannot be followed through surgery")
        yield name, Place(source, numbers - starts[source][0])


def _removed(module: nn.Module, places: Mapping[str, Place]) -> dict[str, Tensor]:
    """Of every parameter, the entries that have no place in the smaller network, as a boolean tensor."""
    gone = {n: torch.ones(p.numel(), dtype=torch.bool) for n, p in module.named_parameters()}
    for place in places.values():
        if place.tensor not in gone:
            continue
        if not bool(gone[place.tensor][place.index].all()):
            raise ShrinkbenchError(f"'{place.tensor}' is shared by layers that surgery parts")
        gone[place.tensor][place.index] = False
    shapes = {n: p.shape for n, p in module.named_parameters()}
    return {n: entries.reshape(shapes[n]) for n, entries in gone.items() if bool(entries.any())}


def _unheard(module: nn.Module, removed: Mapping[str, Tensor], masks: Masks) -> dict[str, Place]:
    """Of what is removed, the weights that train and no mask holds at zero, by the names they will have."""
    found: dict[str, Place] = {}
    for name, gone in removed.items():
        left = gone & masks[name].cpu() if name in masks else gone
        if bool(left.any()) and module.get_parameter(name).requires_grad:
            found[f"unheard_{len(found)}"] = Place(name, left.reshape(-1).nonzero().flatten())
    return found


def _digest(places: Mapping[str, Place]) -> str:
    found = hashlib.sha256()
    for name, place in places.items():
        found.update(json.dumps([name, place.tensor, len(place.index)]).encode())
        found.update(place.index.numpy().tobytes())
    return found.hexdigest()
