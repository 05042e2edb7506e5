"""Scores of the weights alone: their size, or chance."""

from __future__ import annotations

import math

import torch

from shrinkbench.pruning import finetunings as finetuning
from shrinkbench.pruning.allocations.rules import (
    erdos_renyi_kernel,
    independent,
    lamp_score,
    layerwise,
    uniform_plus,
)
from shrinkbench.pruning.allocations.spectra import alpha_hill
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import PerLayer, pruning_method
from shrinkbench.pruning.schedules import before_training as scheduling
from shrinkbench.pruning.schedules import dense_beneath as beneath
from shrinkbench.pruning.schedules import dynamic as during
from shrinkbench.pruning.schedules import gated
from shrinkbench.pruning.structures.by_dataflow import heads, neurons
from shrinkbench.pruning.structures.permuted import permuted_two_of_four
from shrinkbench.pruning.structures.single import (
    blocks_4x4,
    filters,
    four_of_eight,
    input_channels,
    kernels,
    two_of_four,
)
from shrinkbench.pruning.units import Scores


@pruning_method(
    "soft_threshold_reparameterization", schedule=gated.soft_threshold, reference="kusupati2020soft"
)
@pruning_method("continuous_sparsification", schedule=gated.sigmoid_gates, reference="savarese2020winning")
@pruning_method("spartan", schedule=gated.soft_top_k_training, reference="tai2022spartan")
@pruning_method(
    "sr_ste",
    structure=two_of_four,
    allocation=layerwise,
    schedule=beneath.refined,
    reference="zhou2021learning",
)
@pruning_method("permuted_magnitude_2_4", structure=permuted_two_of_four, reference="pool2021channel")
@pruning_method(
    "set_itop", allocation=erdos_renyi_kernel, schedule=during.in_time_by_chance, reference="liu2021itop"
)
@pruning_method("rigl_itop", allocation=erdos_renyi_kernel, schedule=during.in_time, reference="liu2021itop")
@pruning_method("alpha_pruning", allocation=alpha_hill, reference="lu2024alphapruning")
@pruning_method("ac_dc", schedule=beneath.alternating, reference="peste2021acdc")
@pruning_method("top_kast", allocation=layerwise, schedule=beneath.top_kast, reference="jayakumar2020topkast")
@pruning_method(
    "dynamic_network_surgery", allocation=layerwise, schedule=beneath.surgery, reference="guo2016dynamic"
)
@pruning_method("dynamic_pruning_with_feedback", schedule=beneath.feedback, reference="lin2020dynamic")
@pruning_method("granet", allocation=erdos_renyi_kernel, schedule=during.regenerated, reference="liu2021sparse")
@pruning_method(
    "mest", allocation=erdos_renyi_kernel, schedule=during.elastic_mutation, reference="yuan2021mest"
)
@pruning_method("rigl", allocation=erdos_renyi_kernel, schedule=during.rigged, reference="evci2020rigging")
@pruning_method(
    "sparse_evolutionary_training",
    allocation=erdos_renyi_kernel,
    schedule=during.sparse_evolution,
    reference="mocanu2018scalable",
)
@pruning_method("magnitude_without_finetuning", finetuning=finetuning.none, reference="blalock2020state")
@pruning_method("rescaled_reinitialisation", finetuning=finetuning.scratch_e, reference="liu2019rethinking")
@pruning_method("random_reinitialisation", finetuning=finetuning.reinitialise, reference="frankle2019lottery")
@pruning_method(
    "learning_rate_rewinding",
    schedule=scheduling.iterative_20,
    finetuning=finetuning.repeat_schedule,
    reference="renda2020comparing",
)
@pruning_method(
    "weight_rewinding",
    schedule=scheduling.iterative_20,
    finetuning=finetuning.rewind_to_5,
    reference="frankle2019stabilizing",
)
@pruning_method("one_shot_lottery_ticket", finetuning=finetuning.rewind_to_start, reference="liu2019rethinking")
@pruning_method(
    "lottery_ticket",
    schedule=scheduling.iterative_20,
    finetuning=finetuning.rewind_to_start,
    reference="frankle2019lottery",
)
@pruning_method("gradual_magnitude", allocation=layerwise, schedule=during.gradual, reference="zhu2018prune")
@pruning_method("iterative_magnitude", schedule=scheduling.iterative_50, reference="han2015learning")
@pruning_method("neuron_magnitude", structure=neurons, reference="li2017pruning")
@pruning_method("head_magnitude", structure=heads, reference="michel2019sixteen")
@pruning_method("input_channel_l1", structure=input_channels, allocation=layerwise, reference="he2017channel")
@pruning_method("global_filter_l1", structure=filters, reference="li2017pruning")
@pruning_method("filter_l1", structure=filters, allocation=layerwise, reference="li2017pruning")
@pruning_method("magnitude_4_8", structure=four_of_eight, reference="mishra2021accelerating")
@pruning_method("magnitude_2_4", structure=two_of_four, reference="mishra2021accelerating")
@pruning_method("kernel_magnitude", structure=kernels, reference="mao2017exploring")
@pruning_method("block_magnitude", structure=blocks_4x4, reference="narang2017block")
@pruning_method("erk_magnitude", allocation=erdos_renyi_kernel, reference="evci2020rigging")
@pruning_method("uniform_plus_magnitude", allocation=uniform_plus, reference="gale2019state")
@pruning_method("layerwise_magnitude", allocation=layerwise, reference="blalock2020state")
@pruning_method("global_magnitude", kind="magnitude", reference="blalock2020state")
def magnitude(ctx: PruneContext) -> Scores:
    """Absolute value ``|w|``; of a filter, its L1 norm per weight."""
    return {name: w.abs() for name, w in ctx.weights.items()}


_AS_HE = PerLayer(projections=False)


@pruning_method(
    "soft_filter_pruning_pretrained",
    per_layer=_AS_HE,
    structure=filters,
    allocation=layerwise,
    schedule=during.soft,
    reference="he2018soft",
)
@pruning_method(
    "soft_filter_pruning",
    per_layer=_AS_HE,
    structure=filters,
    allocation=layerwise,
    schedule=during.soft_from_scratch,
    reference="he2018soft",
)
@pruning_method(
    "filter_l2", kind="magnitude", structure=filters, allocation=layerwise, reference="li2017pruning"
)
def square(ctx: PruneContext) -> Scores:
    """Square ``w^2``; of a filter, its squared L2 norm per weight."""
    return {name: w.square() for name, w in ctx.weights.items()}


@pruning_method("iterative_layer_deviation", schedule=scheduling.iterative_50, reference="han2015learning")
@pruning_method("layer_deviation", kind="magnitude", reference="han2015learning")
def layer_deviation(ctx: PruneContext) -> Scores:
    """``|w| / sigma``, sigma the standard deviation of the layer's weights: one threshold for all layers.

    Han et al. 2015 prune below that parameter times sigma and set it by hand; here it follows from the target.
    In later rounds sigma is that of the weights that are left.
    """
    scores = {}
    for name, w in ctx.weights.items():
        left = w[~ctx.removed(name)].double()
        deviation = left.std(correction=0).item() if left.numel() else 0.0
        scores[name] = w.abs() / deviation if deviation > 0 else torch.full_like(w, math.inf)
    return scores


@pruning_method("gradual_lamp", schedule=during.gradual, reference="lee2021layer")
@pruning_method("lamp", kind="magnitude", reference="lee2021layer")
def lamp(ctx: PruneContext) -> Scores:
    """Layer-adaptive magnitude ``w_i^2 / sum of w_j^2 over |w_j| >= |w_i|`` within the layer."""
    return {name: lamp_score(w) for name, w in ctx.weights.items()}


@pruning_method("random_filters", structure=filters, allocation=layerwise, reference="mittal2018recovering")
@pruning_method(
    "erk_random_at_initialisation",
    allocation=erdos_renyi_kernel,
    schedule=scheduling.at_initialisation,
    reference="liu2022unreasonable",
)
@pruning_method("layerwise_random", allocation=layerwise, reference="blalock2020state")
@pruning_method("random", kind="random", allocation=independent, reference="blalock2020state")
def random(ctx: PruneContext) -> Scores:
    """Uniform noise: chance alone decides."""
    return {name: ctx.uniform(w) for name, w in ctx.weights.items()}
