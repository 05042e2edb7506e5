"""Sizes and computation of networks: one definition each (docs/metrics.md)."""

from shrinkbench.metrics.multiply_adds import count_multiply_adds, measure_size
from shrinkbench.metrics.size import count_kept, count_parameters, layer_densities

__all__ = [
    "count_kept",
    "count_multiply_adds",
    "count_parameters",
    "layer_densities",
    "measure_size",
]
