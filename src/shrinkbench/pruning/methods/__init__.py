"""Whole methods of pruning, a paper's family a file; reading this package registers every method.

The order of registration is that of listings.
"""

# isort: skip_file
from shrinkbench.pruning.scores import magnitude as _magnitude
from shrinkbench.pruning.scores import gradient as _gradient
from shrinkbench.pruning.scores import untrained as _untrained
from shrinkbench.pruning.methods import random_walks as _random_walks
from shrinkbench.pruning.methods import node_path_balancing as _node_path_balancing
from shrinkbench.pruning.scores import curvature as _curvature
from shrinkbench.pruning.methods import optimal_brain_surgeon as _optimal_brain_surgeon
from shrinkbench.pruning.scores import activation as _activation
from shrinkbench.pruning.methods import wanda_sparsegpt as _wanda_sparsegpt
from shrinkbench.pruning.methods import optimal_brain_compression as _optimal_brain_compression
from shrinkbench.pruning.methods import calibrated as _calibrated
from shrinkbench.pruning.methods import block_influence as _block_influence
from shrinkbench.pruning.scores import filters as _filters
from shrinkbench.pruning.methods import over_channels as _over_channels
from shrinkbench.pruning.methods import thinet_and_regression as _thinet_and_regression
from shrinkbench.pruning.methods import neuron_merging as _neuron_merging
from shrinkbench.pruning.methods import collaborative_channels as _collaborative_channels
from shrinkbench.pruning.methods import importance_propagation as _importance_propagation
from shrinkbench.pruning.methods import searched_ratios as _searched_ratios
from shrinkbench.pruning.methods import sparse_structure_selection as _sparse_structure_selection
from shrinkbench.pruning.methods import network_slimming as _network_slimming
from shrinkbench.pruning.methods import synaptic_strength as _synaptic_strength
from shrinkbench.pruning.methods import group_lasso as _group_lasso
from shrinkbench.pruning.methods import group_sparse_learning as _group_sparse_learning
from shrinkbench.pruning.methods import variational_dropout as _variational_dropout
from shrinkbench.pruning.methods import unit_gates as _unit_gates
from shrinkbench.pruning.methods import gates_of_maps as _gates_of_maps
from shrinkbench.pruning.methods import discrimination_aware as _discrimination_aware
from shrinkbench.pruning.methods import published_widths as _published_widths

__all__: list[str] = []

_FAMILIES = (
    _magnitude,
    _gradient,
    _untrained,
    _random_walks,
    _node_path_balancing,
    _curvature,
    _optimal_brain_surgeon,
    _activation,
    _wanda_sparsegpt,
    _optimal_brain_compression,
    _calibrated,
    _block_influence,
    _filters,
    _over_channels,
    _thinet_and_regression,
    _neuron_merging,
    _collaborative_channels,
    _importance_propagation,
    _searched_ratios,
    _sparse_structure_selection,
    _network_slimming,
    _synaptic_strength,
    _group_lasso,
    _group_sparse_learning,
    _variational_dropout,
    _unit_gates,
    _gates_of_maps,
    _discrimination_aware,
    _published_widths,
)
