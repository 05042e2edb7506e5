"""Measured latency of a run's network beside the unpruned one."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import count_multiply_adds
from shrinkbench.metrics.latency import Conditions, measure_latency
from shrinkbench.network.inputs import Example
from shrinkbench.network.weights import copy_of
from shrinkbench.pruning import Masks
from shrinkbench.runner.workspace import Workspace
from shrinkbench.spec import RunSpec
from shrinkbench.spec.measures import Latency
from shrinkbench.surgery.shrinking import shrink


def latencies(
    spec: RunSpec, workspace: Workspace, module: nn.Module, masks: Masks, input_shape: Example
) -> tuple[Latency, ...]:
    """Wall times at the batch sizes of ``workspace.latency``, dense and pruned in turn; none for the control.

    With several workers the other processes share the machine, and only the ratio of the two is of use.
    """
    if not workspace.latency or not len(masks):
        return ()
    dense = copy_of(module)  # zeros take as long as other values
    pruned, form = _as_deployed(copy_of(module), masks, input_shape)  # timing lays networks out anew
    return tuple(
        measure_latency(
            dense,
            pruned,
            input_shape,
            Conditions(batch_size, torch.get_num_threads(), spec.recipe.precision, workspace.device),
            form=form,
            rounds=5,
            seconds_per_round=0.1,
        )
        for batch_size in workspace.latency
    )


def _as_deployed(
    module: nn.Module, masks: Masks, input_shape: Example
) -> tuple[nn.Module, Literal["masked", "small"]]:
    """The physically smaller network where surgery takes something out, else the masked one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # channels left whole are told of where they are pruned
        try:
            small = shrink(module, masks, input_shape)
        except ShrinkbenchError:  # a network that cannot be followed is timed with its masks
            return module, "masked"
    if count_multiply_adds(small, input_shape) == count_multiply_adds(module, input_shape):
        return module, "masked"
    return small, "small"
