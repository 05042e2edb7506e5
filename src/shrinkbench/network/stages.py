"""The stages of a network: layers that work at one size of feature map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Example, Inputs
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.network.watching import watching

_WATCHED = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)


def stages_of(module: nn.Module, example: Example) -> dict[str, int]:
    """Convolutions and batch norms of images -> stage, from 1, in order of execution."""
    sizes: dict[str, tuple[int, ...]] = {}

    def note(path: str, _: Any, output: Tensor) -> None:
        if output.dim() > 2:
            sizes.setdefault(path, tuple(output.shape[2:]))

    like = next(module.parameters())
    layers = {path: layer for path, layer in module.named_modules() if isinstance(layer, _WATCHED)}
    with watching(layers, note), evaluation_mode(module), torch.no_grad():
        Inputs.of(example).part(0, 1).filled(0).to(like.device, like.dtype).call(module)
    if not sizes:
        raise ShrinkbenchError("this network has no convolutions, and so no stages; choose another network")
    order = list(dict.fromkeys(sizes.values()))
    return {path: order.index(size) + 1 for path, size in sizes.items()}


def same_stages(stages: Mapping[str, int], pattern: Mapping[int, Any]) -> None:
    """Refuse a pattern of more or fewer stages than the network has."""
    here = sorted(set(stages.values()))
    if here != sorted(pattern):
        raise ShrinkbenchError(
            f"the pattern is of {len(pattern)} stages, this network has {len(here)}; take one with as many"
        )
