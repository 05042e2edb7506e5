"""Pruning read as architecture search: where a method leaves channels and weights (Liu et al. 2019, Section 5).

A stage is the layers whose outputs have the same size. A pattern is the share that is kept in each stage, of
channels or of weights at each position of a kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Example
from shrinkbench.network.stages import stages_of
from shrinkbench.spec.measures import LayerDensity

_Conv = nn.modules.conv._ConvNd
_BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class LayerWidth:
    """Channels of one layer: in which stage (from 1), how many, and how many are kept."""

    layer: str
    stage: int
    channels: int
    kept: int


def layer_widths(
    module: nn.Module,
    masks: Mapping[str, Tensor] | Mapping[str, LayerDensity],
    input_shape: Example,
    *,
    of: Literal["filters", "scales"] = "filters",
) -> list[LayerWidth]:
    """Kept ``filters`` of every convolution, or kept batch-norm ``scales``, as network slimming counts them.

    ``masks`` may be the layers of a stored result.
    """
    kind = _Conv if of == "filters" else _BatchNorm
    found = []
    for path, stage in stages_of(module, input_shape).items():
        layer = module.get_submodule(path)
        if not isinstance(layer, kind) or not isinstance(layer.weight, Tensor):
            continue
        total = layer.weight.shape[0]
        found.append(LayerWidth(path, stage, total, _outputs(masks.get(f"{path}.weight"), total)))
    return found


def _outputs(kept: Tensor | LayerDensity | None, total: int) -> int:
    if isinstance(kept, LayerDensity):
        if kept.outputs is None:
            raise ShrinkbenchError(
                "these results do not count filters; run the sweep again to have them counted"
            )
        return kept.outputs
    if kept is None:
        return total
    return int(kept.flatten(1).any(1).sum() if kept.dim() > 1 else kept.sum())


def stage_pattern(widths: Iterable[LayerWidth]) -> dict[int, float]:
    """Stage -> kept channels / channels, over all its layers.

    >>> stage_pattern([LayerWidth("a", 1, 10, 5), LayerWidth("b", 1, 30, 15), LayerWidth("c", 2, 8, 8)])
    {1: 0.5, 2: 1.0}
    """
    kept: dict[int, int] = {}
    total: dict[int, int] = {}
    for width in widths:
        kept[width.stage] = kept.get(width.stage, 0) + width.kept
        total[width.stage] = total.get(width.stage, 0) + width.channels
    return {stage: kept[stage] / total[stage] for stage in sorted(total)}


def kernel_pattern(
    module: nn.Module,
    masks: Mapping[str, Tensor] | Mapping[str, LayerDensity],
    input_shape: Example,
    *,
    size: int = 3,
) -> dict[int, Tensor]:
    """Stage -> share of weights kept at each position of its ``size`` x ``size`` kernels, (size, size).

    ``masks`` may be the layers of a stored result.
    """
    kept: dict[int, Tensor] = {}
    total: dict[int, int] = {}
    for path, stage in stages_of(module, input_shape).items():
        layer = module.get_submodule(path)
        if not isinstance(layer, nn.Conv2d) or layer.kernel_size != (size, size):
            continue
        here = _positions(masks.get(f"{path}.weight"), layer.weight)
        kept[stage] = kept.get(stage, torch.zeros(size, size)) + here
        total[stage] = total.get(stage, 0) + layer.weight.shape[0] * layer.weight.shape[1]
    if not kept:
        raise ShrinkbenchError(f"this network has no {size}x{size} convolutions; ask for another kernel size")
    return {stage: kept[stage] / total[stage] for stage in sorted(kept)}


def counted(
    module: nn.Module,
    layers: Mapping[str, LayerDensity],
    *,
    input_shape: Example,
    of: Literal["filters", "scales", "kernels"],
    by_layer: bool = False,
) -> dict[tuple[object, ...], float]:
    """What one pruned network kept, by place.

    (stage, channels) -> kept share; ``by_layer``: (layer, stage, channels) -> kept channels; of kernels:
    (stage, row, column) -> kept share, rows and columns of a kernel counted from 1.
    """
    if of == "kernels":
        return {
            (stage, row + 1, column + 1): float(share)
            for stage, kernel in kernel_pattern(module, layers, input_shape).items()
            for row, line in enumerate(kernel)
            for column, share in enumerate(line)
        }
    widths = layer_widths(module, layers, input_shape, of=of)
    if by_layer:
        return {(w.layer, w.stage, w.channels): float(w.kept) for w in widths}
    return {
        (stage, sum(w.channels for w in widths if w.stage == stage)): share
        for stage, share in stage_pattern(widths).items()
    }


def _positions(kept: Tensor | LayerDensity | None, weight: Tensor) -> Tensor:
    if isinstance(kept, LayerDensity):
        if not kept.positions:
            raise ShrinkbenchError(
                "these results do not count weights by position; run the sweep again to have them counted"
            )
        return torch.tensor(kept.positions, dtype=torch.float32).reshape(weight.shape[2:])
    mask = torch.ones_like(weight, dtype=torch.bool) if kept is None else kept
    return mask.flatten(0, 1).sum(0).cpu()
