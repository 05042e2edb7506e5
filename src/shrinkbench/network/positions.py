"""How long blocks of tokens may be, where a network states it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Inputs


def require_positions(module: nn.Module, inputs: Inputs) -> None:
    """Refuse blocks of more tokens than ``module``'s configuration (Hugging Face) has positions.

    A table of positions raises there by itself. Rotary ones are computed for any length, and what comes out is
    of lengths that the network has never seen; kinds that stretch with the block, and ALiBi, are left alone.
    """
    config = getattr(module, "config", None)
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1 or getattr(config, "alibi", False):
        return
    if "dynamic" in _kinds(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)):
        return
    tokens = [t.shape[1] for t in inputs.tensors if t.dtype == torch.int64 and t.dim() == 2]
    if max(tokens, default=0) > most:
        raise ShrinkbenchError(
            f"a block of {max(tokens)} tokens is longer than the {most} positions that the network's "
            "configuration states (max_position_embeddings), and was never learned; give shorter blocks"
        )


def _kinds(rotary: Any) -> Iterator[Any]:
    """What ``rope_type`` says, of each kind of layer where they differ."""
    if isinstance(rotary, Mapping):
        yield rotary.get("rope_type", rotary.get("type"))
        for inner in rotary.values():
            yield from _kinds(inner)
