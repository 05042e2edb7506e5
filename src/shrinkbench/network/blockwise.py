"""Looking at a network block by block, each run on its own on the states that arrive at it.

The states of one place between two blocks are held, those of all batches; a block is run once for each look
at its layers and once to go on, in place of the network from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.blocks import BlockCall, first_state, fresh, placed
from shrinkbench.network.derivatives import random_state_kept
from shrinkbench.network.following import Call, Follower
from shrinkbench.network.inputs import Inputs, form_of, split_batch
from shrinkbench.network.observation import Product, awaited, product_of, unseen_error
from shrinkbench.network.probe import follow
from shrinkbench.network.view import Batches, NetworkView


class _ArrivedError(Exception):
    """The first block has been reached; the rest of the pass is not needed."""


class _SeenAllError(Exception):
    """Everything of interest in the block has been seen."""


class BlockByBlock:
    """Shows the products of one block's weights after another's; blocks behind are not gone back to."""

    def __init__(self, module: nn.Module, chain: Sequence[BlockCall], batches: Callable[[], Batches]) -> None:
        self._module = module
        self._paths = [call.path for call in chain]
        self._place = chain[0].place
        self._batches = batches
        self._at = -1  # nothing has arrived yet
        self._arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._forms: list[str] = []  # of the batches
        self.images = 0

    def shows(self, names: Iterable[str]) -> bool:
        """Whether all ``names`` are weights of one block that still lies ahead."""
        blocks = {self._block_of(name) for name in names}
        return len(blocks) == 1 and None not in blocks and max(b or 0 for b in blocks) >= self._at

    def observe(
        self,
        ctx: NetworkView,
        visit: Callable[[Product], None],
        *,
        names: Iterable[str],
        values: Mapping[str, Tensor] | None,
    ) -> int:
        """As ``observe_products`` does; ``values`` are used in this block and those before it."""
        wanted = set(names)
        number = max(self._block_of(name) or 0 for name in wanted)
        values = values or {}
        self._arrive(values)
        while self._at < number:
            self._go_on(values)
        seen = self._watch(ctx, visit, wanted, values)
        unseen = sorted(wanted - seen)
        if unseen:
            raise unseen_error(ctx.module, unseen[0])
        return self.images

    def _block_of(self, name: str) -> int | None:
        return next((i for i, path in enumerate(self._paths) if name.startswith(f"{path}.")), None)

    def _arrive(self, values: Mapping[str, Tensor]) -> None:
        """Hold what the first block is given for every batch."""
        if self._at >= 0:
            return
        tensors = {name: p.detach() for name, p in self._module.named_parameters()}
        tensors |= {
            name: values[name].to(tensors[name].dtype) for name in values if self._block_of(name) is None
        }
        first = self._module.get_submodule(self._paths[0])

        def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._arguments.append((args, kwargs))
            raise _ArrivedError

        for batch in map(split_batch, self._batches()):  # forms are tried on the whole network
            handle = first.register_forward_pre_hook(stop, with_kwargs=True)
            try:
                _run(self._module, batch.inputs, tensors, tensors)
            finally:
                handle.remove()
            self._forms.append(form_of(batch.inputs))
            self.images += len(batch)
        self._at = 0

    def _go_on(self, values: Mapping[str, Tensor]) -> None:
        """Run the block at hand with ``values``, and hold what the next one is given."""
        path = self._paths[self._at]
        block, tensors = self._module.get_submodule(path), self._tensors(path, values)
        for number, (args, kwargs) in enumerate(self._arguments):
            output = _run(block, Inputs(fresh(args), fresh(kwargs)), tensors, tensors)
            state = first_state(output)
            if state is None:
                raise ShrinkbenchError(f"the block '{path}' gave out no state this time; report this network")
            self._arguments[number] = placed(args, kwargs, self._place, state)
        self._at += 1

    def _tensors(self, path: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters of a block by their names in it, with those of ``values`` in their place."""
        found = {}
        for name, parameter in self._module.get_submodule(path).named_parameters():
            full = f"{path}.{name}"
            found[name] = values[full].to(parameter.dtype) if full in values else parameter.detach()
        return found

    def _watch(
        self,
        ctx: NetworkView,
        visit: Callable[[Product], None],
        wanted: set[str],
        values: Mapping[str, Tensor],
    ) -> set[str]:
        path = self._paths[self._at]
        tensors = self._tensors(path, values)
        full = {f"{path}.{name}": tensor for name, tensor in tensors.items()}
        seen: set[str] = set()
        for (args, kwargs), form in zip(self._arguments, self._forms, strict=True):
            awaiting = awaited(ctx, wanted, form)

            def watch(call: Call, left: set[str] = awaiting) -> None:
                if call.parameter not in wanted:
                    return
                visit(product_of(call, full[call.parameter], ctx.geometry(call.parameter)))
                seen.add(call.parameter)
                if call.parameter in left:
                    left.remove(call.parameter)
                    if not left:
                        raise _SeenAllError

            block = self._module.get_submodule(path)
            _run(block, Inputs(fresh(args), fresh(kwargs)), tensors, full, watch)
        return seen


def _run(
    module: nn.Module,
    inputs: Inputs,
    tensors: Mapping[str, Tensor],
    known: Mapping[str, Tensor],
    watch: Callable[[Call], None] | None = None,
) -> Any:
    """The output of ``module`` with ``tensors`` as its parameters, ``None`` where the pass was stopped.

    ``known`` are the tensors by the names that ``watch`` is told.
    """
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    follower = Follower(known, list(buffers.values()), watch)
    with random_state_kept(inputs.device):
        try:
            return follow(module, inputs, {**tensors, **buffers}, follower)
        except (_ArrivedError, _SeenAllError):
            return None
