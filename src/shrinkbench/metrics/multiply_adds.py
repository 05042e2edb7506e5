"""Multiply-adds and theoretical speedup.

One multiply-add (MAC) is one multiplication with its addition. Counted are convolutions, linear layers and the
products of attention, for one input; biases, normalisation, activations and pooling are not, which is the
convention of the papers and of torchvision's published figures. "FLOPs" of other sources may mean twice this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from shrinkbench.metrics.size import count_kept, count_parameters
from shrinkbench.network.probe import Trace, trace
from shrinkbench.spec.measures import Size


def count_multiply_adds(module: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-adds of one input of ``input_shape`` (channels, height, width).

    >>> count_multiply_adds(nn.Conv2d(3, 8, 3, padding=1), (3, 4, 4))
    3456
    """
    return trace(module, input_shape).multiply_adds


def kept_multiply_adds(traced: Trace, masks: Mapping[str, Tensor]) -> int:
    """Multiply-adds that are left when those of masked weights are skipped.

    Every weight of a layer takes part in equally many products, so a layer with density d keeps d of its
    multiply-adds. Products of attention scores involve no weight and stay.
    """
    by_parameter = traced.by_parameter
    skipped = 0
    for name, mask in masks.items():
        pruned = mask.numel() - int(mask.sum())
        skipped += by_parameter.get(name, 0) * pruned // max(mask.numel(), 1)
    return traced.multiply_adds - skipped


def measure_size(module: nn.Module, input_shape: Sequence[int], masks: Mapping[str, Tensor]) -> Size:
    """Size and computation of ``module`` under ``masks``, beside those of the whole network.

    compression = parameters / parameters kept; theoretical speedup = multiply-adds / multiply-adds kept.
    """
    traced = trace(module, input_shape)
    parameters, parameters_kept = count_parameters(module), count_kept(module, masks)
    multiply_adds, multiply_adds_kept = traced.multiply_adds, kept_multiply_adds(traced, masks)
    return Size(
        parameters=parameters,
        parameters_kept=parameters_kept,
        compression=parameters / max(parameters_kept, 1),
        multiply_adds=multiply_adds,
        multiply_adds_kept=multiply_adds_kept,
        theoretical_speedup=multiply_adds / max(multiply_adds_kept, 1),
    )
