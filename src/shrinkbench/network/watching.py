"""Looking on while a network computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn


@contextmanager
def fused_layers_off() -> Iterator[None]:
    """Inside, transformer layers call their parts; torch's fused layers would pass these by."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def watching(layers: Mapping[str, nn.Module], visit: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """Call ``visit(name, inputs, output)`` after every call of one of ``layers`` inside; no hook stays."""

    def note(name: str, _: nn.Module, inputs: Any, output: Any) -> None:
        visit(name, inputs, output)

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(partial(note, name)).remove)
        yield


@contextmanager
def watching_calls(
    layers: Mapping[str, nn.Module], visit: Callable[[str, tuple[Any, ...], dict[str, Any]], None]
) -> Iterator[None]:
    """Call ``visit(name, arguments, named arguments)`` before every call of one of ``layers`` inside."""

    def note(name: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        visit(name, args, kwargs)

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(partial(note, name), with_kwargs=True).remove)
        yield
