"""Multiply-adds and theoretical speedup.

One multiply-add (MAC) is one multiplication with its addition. Counted are convolutions and products of
matrices and vectors, for one input, as they are executed, those of attention and of weights that the network
computes included, and those that are written as an element-wise product with a weight whose sum is taken next.
Biases, normalisation, activations, scales, gates and pooling are not, which is the convention of the papers and
of torchvision's published figures. "FLOPs" of other sources may mean twice this.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from shrinkbench.metrics.size import count_kept, count_parameters, require_masks_of
from shrinkbench.network.inputs import Example, required_example
from shrinkbench.network.probe import trace
from shrinkbench.spec.measures import Size

_NO_MASKS: Mapping[str, Tensor] = {}


def count_multiply_adds(
    module: nn.Module, input_shape: Example | None = None, *, example_inputs: Example | None = None
) -> int:
    """Multiply-adds of one input: of ``input_shape`` (channels, height, width), or of ``example_inputs``.

    These are a tensor, a tuple of arguments or a dictionary of named ones, with a row for each example: the
    first is counted.

    Raises ``ShrinkbenchError`` for an operation whose multiply-adds are not known.

    >>> count_multiply_adds(nn.Conv2d(3, 8, 3, padding=1), (3, 4, 4))
    3456
    """
    return trace(module, required_example(input_shape, example_inputs)).multiply_adds


def measure_size(
    module: nn.Module,
    input_shape: Example | None = None,
    masks: Mapping[str, Tensor] = _NO_MASKS,
    *,
    example_inputs: Example | None = None,
) -> Size:
    """Size and computation of ``module`` under ``masks``, beside those of the whole network.

    compression = parameters / parameters kept; theoretical speedup = multiply-adds / multiply-adds kept.
    Skipped are products by what the masks make zero in the tensor that multiplies, which is the masked
    parameter or is computed from it: of a weight that is standardised after masking, none. Inputs and
    what is raised are as for :func:`count_multiply_adds`.
    """
    require_masks_of(module, masks)
    traced = trace(module, required_example(input_shape, example_inputs), masks=masks)
    parameters, parameters_kept = count_parameters(module), count_kept(module, masks)
    multiply_adds, multiply_adds_kept = traced.multiply_adds, traced.kept
    return Size(
        parameters=parameters,
        parameters_kept=parameters_kept,
        compression=parameters / max(parameters_kept, 1),
        multiply_adds=multiply_adds,
        multiply_adds_kept=multiply_adds_kept,
        theoretical_speedup=multiply_adds / max(multiply_adds_kept, 1),
    )
