"""Sizes and computation of networks: one definition each (docs/metrics.md)."""

from shrinkbench.metrics.connectivity import Connectivity, linear_connectivity
from shrinkbench.metrics.multiply_adds import count_multiply_adds, measure_size
from shrinkbench.metrics.size import count_kept, count_parameters, layer_densities

__all__ = [
    "Connectivity",
    "count_kept",
    "count_multiply_adds",
    "count_parameters",
    "layer_densities",
    "linear_connectivity",
    "measure_size",
]
