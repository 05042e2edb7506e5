"""Looking on while a network computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import nn


@contextmanager
def watching(layers: Mapping[str, nn.Module], visit: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """Call ``visit(name, inputs, output)`` after every call of one of ``layers`` inside; no hook stays."""

    def note(name: str, _: nn.Module, inputs: Any, output: Any) -> None:
        visit(name, inputs, output)

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(partial(note, name)).remove)
        yield
