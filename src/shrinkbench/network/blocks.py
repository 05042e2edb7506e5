"""The blocks that a network is a chain of, such as those of a transformer, seen on one pass.

A block is a part of an ``nn.Sequential`` or ``nn.ModuleList`` with several weighted layers, called once, that
gives out a tensor of the shape that it takes in: its hidden state. No name is looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.network.calling import call_with
from shrinkbench.network.derivatives import random_state_kept
from shrinkbench.network.inputs import Inputs
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.network.watching import fused_layers_off
from shrinkbench.network.weights import copy_of, weight_parameters


@dataclass(frozen=True)
class BlockCall:
    """One call of the block at ``path``: its arguments, and the state that came out.

    ``place`` is where among the arguments the state lies that goes in: a number or a name. ``before`` are the
    arguments as they were before the call, which may write to some (caches).
    """

    path: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    place: int | str
    state_out: Tensor
    before: tuple[tuple[Any, ...], Mapping[str, Any]]

    @property
    def state_in(self) -> Tensor:
        """The hidden state that went in."""
        return state_at(self.args, self.kwargs, self.place)

    @property
    def others(self) -> tuple[object, ...]:
        """All other arguments, each by its identity."""
        named = [*enumerate(self.args), *self.kwargs.items()]
        return tuple((name, id(value)) for name, value in named if name != self.place)


def state_at(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int | str) -> Tensor:
    """The tensor at ``place`` among arguments."""
    found: Tensor = args[place] if isinstance(place, int) else kwargs[place]
    return found


def fresh(tree: Any) -> Any:
    """Arguments for one more call: tensors as they are, objects that a call may write to (caches) copied."""
    if isinstance(tree, dict):
        return {key: fresh(value) for key, value in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(fresh(value) for value in tree)
    plain = isinstance(tree, Tensor | str | int | float | bool | nn.Module) or tree is None or callable(tree)
    return tree if plain else copy.deepcopy(tree)


def first_state(output: Any) -> Tensor | None:
    """The floating tensor that a block gives out, or the first of several."""
    output = output[0] if isinstance(output, tuple | list) and output else output
    return output if isinstance(output, Tensor) and output.is_floating_point() else None


def candidates(module: nn.Module) -> dict[str, nn.Module]:
    """Parts that may be blocks, outermost first: of a list, not a list, two weights or more of their own."""
    weights = weight_parameters(module)
    found: dict[str, nn.Module] = {}
    for path, child in module.named_modules():
        if not isinstance(child, nn.Sequential | nn.ModuleList):
            continue
        for name, part in child.named_children():
            at = f"{path}.{name}" if path else name
            listed = isinstance(part, nn.Sequential | nn.ModuleList)
            inside = any(at.startswith(f"{outer}.") for outer in found)
            if not listed and not inside and sum(weight.startswith(f"{at}.") for weight in weights) > 1:
                found[at] = part
    return found


def watch_blocks(
    module: nn.Module, inputs: Inputs, visit: Callable[[BlockCall], None], *, only: frozenset[str] | None = None
) -> None:
    """Run ``module`` in evaluation mode and call ``visit`` after every call of a candidate (of ``only``)."""
    before: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def hooks(path: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            before[path] = (fresh(args), fresh(kwargs))

        def tell(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            state = first_state(output)
            place = None if state is None else _place_of(args, kwargs, state.shape)
            if state is not None and place is not None:
                visit(BlockCall(path, args, kwargs, place, state, before.pop(path)))

        return note, tell

    with ExitStack() as stack:
        for path, part in candidates(module).items():
            if only is None or path in only:
                note, tell = hooks(path)
                stack.callback(part.register_forward_pre_hook(note, with_kwargs=True).remove)
                stack.callback(part.register_forward_hook(tell, with_kwargs=True).remove)
        stack.enter_context(random_state_kept(inputs.device))
        stack.enter_context(fused_layers_off())
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(evaluation_mode(module))
        stack.enter_context(torch.no_grad())
        tensors = {name: p.detach() for name, p in module.named_parameters()}
        tensors |= {name: b.clone() for name, b in module.named_buffers()}  # a pass may write to them
        call_with(module, tensors, *inputs.bound(module))


def _place_of(args: tuple[Any, ...], kwargs: Mapping[str, Any], shape: torch.Size) -> int | str | None:
    """The first floating argument, if it has ``shape``."""
    named: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for place, value in named:
        if isinstance(value, Tensor) and value.is_floating_point():
            return place if value.shape == shape else None
    return None


def read_blocks(module: nn.Module, inputs: Inputs) -> tuple[BlockCall, ...]:
    """The blocks of ``module`` in the order in which they run; empty where it has none.

    ``inputs`` have values. Parts that are called twice are none.
    """
    calls: list[BlockCall] = []
    watch_blocks(module, inputs, calls.append)
    paths = [call.path for call in calls]
    return tuple(call for call in calls if paths.count(call.path) == 1)


def chain_of(module: nn.Module, inputs: Inputs) -> tuple[BlockCall, ...]:
    """The longest run of blocks of which each is given the state of the one before, and else the same.

    Blocks that share parameters with other parts are left out; empty where fewer than two are left.
    """
    own = {name for name, _ in module.named_parameters()}
    best: list[BlockCall] = []
    run: list[BlockCall] = []
    for call in read_blocks(module, inputs):
        block = module.get_submodule(call.path)
        alone = all(f"{call.path}.{name}" in own for name, _ in block.named_parameters())
        follows = bool(run) and (
            call.state_in is run[-1].state_out and call.others == run[-1].others and call.place == run[-1].place
        )
        run = ([*run, call] if follows else [call]) if alone else []
        best = run if len(run) > len(best) else best
    return tuple(best) if len(best) > 1 else ()


def passes_on(module: nn.Module, call: BlockCall) -> bool:
    """Whether the block gives out what it is given once all its parameters are zero, beside a shortcut."""
    block = copy_of(module.get_submodule(call.path))
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(call.state_in.shape, generator=generator).to(call.state_in)
    with evaluation_mode(block), torch.inference_mode(mode=False), torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        args, kwargs = placed(*call.before, call.place, state)
        found = first_state(block(*args, **kwargs))
    return found is not None and torch.equal(found, state)


def placed(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int | str, state: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with ``state`` as the hidden state."""
    if isinstance(place, int):
        return (*args[:place], state, *args[place + 1 :]), dict(kwargs)
    return args, {**kwargs, place: state}
