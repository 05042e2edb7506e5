"""Which weights stay: one boolean tensor per parameter."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from shrinkbench.errors import OtherCodeWarning, ShrinkbenchError
from shrinkbench.files import require_regular, write_atomically
from shrinkbench.metrics.size import require_shapes_of
from shrinkbench.models.card import code_of
from shrinkbench.network.calling import WhenCalled
from shrinkbench.sources.origin import is_own
from shrinkbench.training.hook import Hook


class Masks(Mapping[str, Tensor]):
    """Parameter name -> boolean tensor of the parameter's shape; ``True`` keeps the weight.

    Parameters without a mask are kept whole. ``new_weights`` holds values for methods that update what they
    keep (OBS and its relatives).

    >>> masks = Masks({"weight": torch.tensor([[True, False]])})
    >>> layer = nn.Linear(2, 1)
    >>> masks.apply(layer)
    >>> layer.weight[0, 1].item(), masks.kept, masks.total
    (0.0, 1, 2)
    """

    def __init__(self, masks: Mapping[str, Tensor], *, new_weights: Mapping[str, Tensor] | None = None) -> None:
        for name, mask in masks.items():
            if mask.dtype != torch.bool:
                raise ShrinkbenchError(f"the mask of '{name}' has type {mask.dtype}; give a boolean tensor")
        self._masks = dict(masks)
        self.new_weights: dict[str, Tensor] = dict(new_weights or {})

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    @property
    def total(self) -> int:
        """Weights that have a mask."""
        return sum(mask.numel() for mask in self._masks.values())

    @property
    def kept(self) -> int:
        """Weights that their mask keeps."""
        return sum(int(mask.sum()) for mask in self._masks.values())

    def equal(self, other: Masks) -> bool:
        """Whether both keep exactly the same weights, on whatever devices."""
        there = other.beside(self)
        return self.keys() == other.keys() and all(torch.equal(m, there[n]) for n, m in self.items())

    def beside(self, tensors: Mapping[str, Tensor]) -> Masks:
        """The same masks, each on the device of the tensor of its name, where there is one."""
        if all(n not in tensors or m.device == tensors[n].device for n, m in self.items()):
            return self
        moved = {n: m.to(tensors[n].device) if n in tensors else m for n, m in self.items()}
        return Masks(moved, new_weights=self.new_weights)

    def within(self, other: Masks) -> bool:
        """Whether every weight kept here is kept by ``other`` too (no mask keeps the whole tensor)."""
        there = other.beside(self)
        return all(bool((there[n] | ~m).all()) for n, m in self.items() if n in other) and all(
            n in self or bool(other[n].all()) for n in other
        )

    def intersect(self, other: Masks) -> Masks:
        """Keep what both keep."""
        there = other.beside(self)
        merged = {**there._masks, **self._masks}
        both = {n: m & there[n] if n in self and n in other else m for n, m in merged.items()}
        return Masks(both, new_weights=self.new_weights)

    def union(self, other: Masks) -> Masks:
        """Keep what either keeps (no mask keeps the whole tensor)."""
        there = other.beside(self)
        return Masks({n: m | there[n] for n, m in self.items() if n in there})

    def apply(self, module: nn.Module) -> None:
        """Set the new values, if any, and zero every pruned weight of ``module`` in place."""
        parameters = _match_parameters(module, self)
        with torch.no_grad():
            for name, value in self.new_weights.items():
                parameters[name].copy_(value)
            for name, mask in self._masks.items():
                parameters[name].masked_fill_(~mask.to(parameters[name].device), 0)

    @classmethod
    def from_module(cls, module: nn.Module) -> Masks:
        """The masks that ``module`` carries: those of ``torch.nn.utils.prune``, and zeros of other weights.

        Names are those that its parameters have now (``fc.weight_orig`` until ``prune.remove``, which leaves
        zeros). Weights are tensors of two or more dimensions. Raises ``ShrinkbenchError`` where nothing is
        pruned.

        >>> from torch.nn.utils.prune import l1_unstructured
        >>> layer = l1_unstructured(nn.Linear(2, 2), "weight", amount=1)
        >>> Masks.from_module(layer)
        Masks(1 tensors, 3 of 4 weights kept)
        """
        masks = dict(cls.of_torch(module))
        weights = {n: p.detach() != 0 for n, p in module.named_parameters() if p.dim() > 1 and n not in masks}
        masks = {n: mask for n, mask in (masks | weights).items() if not bool(mask.all())}
        if not masks:
            raise ShrinkbenchError(
                "the network has no masks of torch.nn.utils.prune and no weight that is 0; one that was made "
                "smaller (torch-pruning) has no masks either: measure it as the network that it is"
            )
        return cls(masks)

    @classmethod
    def of_torch(cls, module: nn.Module) -> Masks:
        """The masks of ``torch.nn.utils.prune`` that ``module`` carries, by the names of its parameters."""
        buffers = dict(module.named_buffers())
        pairs = {n: buffers.get(f"{n.removesuffix('_orig')}_mask") for n, _ in module.named_parameters()}
        return cls({n: m != 0 for n, m in pairs.items() if m is not None and n.endswith("_orig")})

    def save(self, path: Path | str, *, network: str | None = None) -> None:
        """Write the masks as safetensors: parameter name -> boolean tensor. The file appears whole or not.

        ``network`` is noted in the file, so that masks of another one are told apart: those of a small ResNet
        have names and shapes that a deeper one has too. So is the code from outside that makes it.
        """
        noted = {"network": network, "code": None if network is None else code_of(network)}
        save_tensors(self._masks, Path(path), metadata={k: v for k, v in noted.items() if v is not None})

    @classmethod
    def load(cls, path: Path | str, *, network: str | None = None) -> Masks:
        """Read masks written by :meth:`save`; an error where they were noted to be for another ``network``.

        An ``OtherCodeWarning`` tells that other code of that name made the network then.
        """
        from safetensors import SafetensorError, safe_open

        try:
            require_regular(Path(path))
            with safe_open(path, "pt") as file:
                stated = file.metadata() or {}
                masks = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        except (OSError, SafetensorError) as error:
            raise ShrinkbenchError(f"cannot read masks from {path}: {error}; give a safetensors file") from None
        noted = stated.get("network", network)
        if network is not None and noted != network:
            raise ShrinkbenchError(
                f"{path} holds masks for {noted}, not for {network}; name the network that they were made for"
            )
        code = None if network is None else stated.get("code")
        if network is not None and code not in (None, code_of(network)):
            warnings.warn(
                f"{path} holds masks for {network} as other code made it than there is now; they may fit by "
                "names and shapes alone: make them again, unless both are the same network",
                OtherCodeWarning,
                stacklevel=2,
            )
        return cls(masks)

    def __repr__(self) -> str:
        return f"Masks({len(self)} tensors, {self.kept:,} of {self.total:,} weights kept)"


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file in one step; an error says where the disk refused."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    layout = torch.contiguous_format
    plain = {n: t.detach().to("cpu", copy=True, memory_format=layout) for n, t in tensors.items()}
    try:
        write_atomically(path, lambda place: save_file(plain, place, dict(metadata or {})))
    except SafetensorError as error:  # its own kind, for a full disk too
        raise ShrinkbenchError(f"cannot write {path}: {error}; choose another place") from None


def _match_parameters(module: nn.Module, masks: Masks) -> dict[str, nn.Parameter]:
    """The parameters by name, of which those of the ``masks`` and of their new values have these shapes."""
    require_shapes_of(module, masks)
    require_shapes_of(module, masks.new_weights)
    return dict(module.named_parameters(remove_duplicate=False))


def optimizer_in(given: object) -> Optimizer:
    """The optimizer that ``given`` is, or that Lightning and Accelerate have wrapped in it."""
    inner = getattr(given, "optimizer", given)
    if not isinstance(inner, Optimizer):
        raise ShrinkbenchError(f"a {type(given).__name__} is no optimizer; attach to the one that trains")
    if not hasattr(inner, "_optimizer_step_post_hooks"):
        raise ShrinkbenchError(
            f"a {type(given).__name__} has no hooks of its steps, since its __init__ does not call that of "
            "torch.optim.Optimizer; call it there, or call an Upholder after every step"
        )
    return inner


def require_held(module: nn.Module, names: Collection[str], *optimizers: Optimizer) -> None:
    """Refuse ``optimizers`` of which none holds one of the parameters ``names`` that trains.

    Another optimizer, or none that anybody knows of, moves it, and its zeros hold until then only.
    """
    held = {id(p) for each in optimizers for group in each.param_groups for p in group["params"]}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    gone = [name for name in names if name not in parameters]
    if gone:
        raise ShrinkbenchError(
            f"the network no longer has the parameter '{gone[0]}', which can be pruned ({len(gone)} such): "
            "parametrizations and torch.nn.utils.prune rename it; let them come before the Pruner, or after"
        )
    lost = [name for name in names if parameters[name].requires_grad and id(parameters[name]) not in held]
    if lost:
        raise ShrinkbenchError(
            f"'{lost[0]}' can be pruned and is in no optimizer given ({len(lost)} such); give all that "
            "move the network as it is now, attach(first, second), or freeze it with requires_grad_(False)"
        )


class Handles:
    """What takes several hooks away again, once it has done a last thing."""

    def __init__(self, handles: Iterable[RemovableHandle], *, last: Callable[[], None]) -> None:
        self._handles = tuple(handles)
        self._last = last

    def remove(self) -> None:
        """Take all of them away."""
        if self._handles:
            self._last()
        for handle in self._handles:
            handle.remove()
        self._handles = ()


_WHOLE_NUMBERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits_of(weight: Tensor) -> Tensor:
    """The same storage as whole numbers, of which 0 times any is 0: of floats, infinity and NaN stay.

    Complex numbers have a dimension more, for their two parts.
    """
    parts = torch.view_as_real(weight) if weight.is_complex() else weight
    return parts.view(_WHOLE_NUMBERS[parts.element_size()])


class IdleWarning(UserWarning):
    """Something that should have kept pruned weights at zero has done nothing."""


class Upholder(Hook):
    """Keeps pruned weights at exactly zero: attach it to an optimizer once, or call it after every step.

    One fused multiplication over the bits of all masked weights, so that infinity and NaN go too. Zeroing
    gradients would not be enough: an optimizer with momentum, moments or weight decay moves a weight whose
    gradient is zero. Weights are looked up by name at each call, so casts, moves and
    ``load_state_dict(assign=True)`` change nothing; raises ``ShrinkbenchError`` where a masked weight is no
    longer there. One that is thrown away without having done anything warns.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    >>> masks = Masks({"weight": torch.tensor([[True, False]])})
    >>> _ = Upholder(layer, masks).attach(optimizer)
    >>> layer(torch.ones(1, 2)).sum().backward(); optimizer.step()
    >>> layer.weight[0, 1].item() == 0
    True
    """

    def __init__(self, module: nn.Module, masks: Masks) -> None:
        self._idle = False
        present = _match_parameters(module, masks)
        self._idle = not is_own(sys._getframe(1).f_globals.get("__name__"))  # own code makes some in advance
        self._module = module
        self._masks = {name: mask for name, mask in masks.items() if not bool(mask.all())}
        self._known: dict[str, Tensor] = {name: present[name] for name in self._masks}
        self._factors: dict[str, Tensor] = {}

    def attach(self, optimizer: Optimizer, *others: Optimizer) -> Handles:
        """Uphold the masks after every step of these optimizers, until the handle's ``remove()``.

        They are upheld before each call of the network, after it has loaded a state, and a last time in
        ``remove()`` too: what wraps an optimizer (Lookahead, an average) may move weights after its step. A
        network that was compiled does not tell of its calls: call the Upholder after each step of such a
        wrapper. Raises ``ShrinkbenchError`` where a pruned weight trains and none of them holds it.
        """
        inner = [optimizer_in(each) for each in (optimizer, *others)]
        require_held(self._module, self._masks, *inner)
        self._idle = False
        handles = [each.register_step_post_hook(lambda *_: self()) for each in inner]
        handles.append(self._module.register_forward_pre_hook(WhenCalled(self.before_call)))
        handles.append(self._module.register_load_state_dict_post_hook(WhenCalled(self)))
        return Handles(handles, last=self)

    def before_call(self) -> None:
        """Uphold the masks, unless the network is called with others in place of the tensors last upheld."""
        if all(self._present(name) is known for name, known in self._known.items()):
            self()

    @torch.no_grad()
    def __call__(self) -> None:
        """Zero the pruned weights, whatever they have become, in place."""
        self._idle = False
        bits = {name: _bits_of(self._weight(name)) for name in self._masks}
        if bits:
            factors = [self._factor(name, weight) for name, weight in bits.items()]
            torch._foreach_mul_(list(bits.values()), factors)

    def after_step(self, step: int) -> None:
        """Uphold the masks."""
        self()

    def __del__(self) -> None:
        if self._idle:
            warnings.warn(
                "an Upholder was thrown away without having kept anything at zero: attach it to the optimizer, "
                "once, Upholder(model, masks).attach(optimizer), or keep it and call it after every step",
                IdleWarning,
                stacklevel=2,
            )

    def _weight(self, name: str) -> Tensor:
        weight = self._present(name)
        if weight is None or weight.shape != self._masks[name].shape:
            raise ShrinkbenchError(
                f"the network no longer has the parameter '{name}' of shape {tuple(self._masks[name].shape)}, "
                "whose zeros are upheld; make a new Upholder for the network as it is"
            )
        self._known[name] = weight
        return weight.data  # autograd need not know: what a step has moved it has told, and zeros stay zeros

    def _present(self, name: str) -> Tensor | None:
        """The parameter that stands there now."""
        path, _, own = name.rpartition(".")
        try:
            return self._module.get_submodule(path)._parameters.get(own)
        except AttributeError:
            return None

    def _factor(self, name: str, weight: Tensor) -> Tensor:
        """The mask as numbers like the bits: in their memory layout too, since mixed ones are slower."""
        known = self._factors.get(name)
        if known is None or (known.dtype, known.device, known.stride()) != (
            weight.dtype,
            weight.device,
            weight.stride(),
        ):
            mask = self._masks[name].to(weight.device)
            mask = mask.unsqueeze(-1) if weight.dim() > mask.dim() else mask
            known = self._factors[name] = torch.empty_like(weight).copy_(mask)
        return known
