"""Scores of networks before any training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from shrinkbench.network.calling import call_with
from shrinkbench.network.derivatives import (
    HESSIAN_PARTS,
    independent_loss,
    loss_of,
    mean_gradients,
    outputs_of,
    random_state_kept,
)
from shrinkbench.network.inputs import Batch, Inputs
from shrinkbench.network.probe import evaluation_mode, first_tensor
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import differentiates, in_rounds, pruning_method
from shrinkbench.pruning.schedules import before_training as scheduling
from shrinkbench.pruning.top_k import keep_highest
from shrinkbench.pruning.units import Scores
from shrinkbench.spec.amount import ChannelFraction, FractionPerLayer, Speedup

_NEEDS = ("data", "labels", "gradients")
_TEMPERATURE = 200.0
_FORCE_ROUNDS = 60
_PROSPR_STEPS, _PROSPR_RATE = 3, 0.1


@pruning_method(
    "iterative_snip",
    schedule=scheduling.at_initialisation_100,
    needs=_NEEDS,
    reference="dejorge2021progressive",
)
@pruning_method(
    "snip", kind="gradient", schedule=scheduling.at_initialisation, needs=_NEEDS, reference="lee2019snip"
)
def snip(ctx: PruneContext) -> Scores:
    """Connection sensitivity ``|dL/dm| = |w * dL/dw|`` over its sum, on one minibatch of an untrained network.

    Batch norm works on the statistics of the batch, as it does in the training to come. The authors draw
    weights by variance scaling and prune biases too; here weights are the network's own, and biases an option.
    """
    gradients = ctx.mean_gradients(batch_statistics=True)
    sensitivities = {name: (w * gradients[name]).abs() for name, w in ctx.weights.items()}
    total = torch.stack([s.sum() for s in sensitivities.values()]).sum().clamp(min=1e-30)
    return {name: s / total for name, s in sensitivities.items()}


@pruning_method(
    "force",
    kind="gradient",
    version=2,
    schedule=scheduling.at_initialisation,
    needs=_NEEDS,
    reference="dejorge2021progressive",
)
@in_rounds(_FORCE_ROUNDS)
def force(ctx: PruneContext) -> Scores:
    """``|w * dL/dw at the masked network|`` in 60 rounds, none of which binds the next (FORCE).

    Density falls by a constant factor per round, all layers compared; weights that are masked have gradients
    and may come back. The last round's scores are returned. The same data serve all rounds, where the authors
    draw anew.
    """
    total = sum(w.numel() for w in ctx.weights.values())
    density = density_of(ctx, total)
    masks = {name: ~ctx.removed(name) for name in ctx.weights}
    scores: dict[str, Tensor] = {}
    for number in range(1, _FORCE_ROUNDS + 1):
        masked = {name: p * masks[name] for name, p in ctx.parameters.items()}
        gradients = mean_gradients(ctx.module, masked, ctx.each_batch(), ctx.loss, batch_statistics=True)
        scores = {name: (w * gradients[name]).abs() for name, w in ctx.weights.items()}
        # Rounded down as by the authors: one weight more in a round makes other masks in those that follow.
        masks = keep_highest(scores, max(int(total * density ** (number / _FORCE_ROUNDS) + 1e-9), 1))
    return scores


def density_of(ctx: PruneContext, total: int) -> float:
    """The fraction of prunable weights that stays, as far as the amount says."""
    if isinstance(ctx.amount, FractionPerLayer | ChannelFraction):
        return 1 - ctx.amount.fraction
    if isinstance(ctx.amount, Speedup):
        return 1 / ctx.amount.ratio
    return max(ctx.budget, 1) / total


@pruning_method(
    "prospr",
    kind="gradient",
    version=2,
    schedule=scheduling.at_initialisation,
    needs=_NEEDS,
    batch_count=_PROSPR_STEPS + 1,
    reference="alizadeh2022prospect",
)
def prospr(ctx: PruneContext) -> Scores:
    """``|dL(w_3)/dm|`` with ``w_0 = m * w`` and three steps of gradient descent, each on its batch, rate 0.1.

    The loss is that of a fourth batch, the derivative is taken through the steps, at m = 1; where there are
    fewer batches they are taken in turn. The steps move whatever training moves, biases and normalisation too;
    they are without momentum. The first layer is no exception.
    """
    trained = {name: p.detach() for name, p in ctx.module.named_parameters() if p.requires_grad}
    leaves = {name: torch.ones_like(p).requires_grad_() for name, p in ctx.parameters.items()}
    batches = list(ctx.each_batch())
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        beside = {name: p.clone().requires_grad_() for name, p in trained.items() if name not in leaves}
        values = {**{name: p * leaves[name] for name, p in ctx.parameters.items()}, **beside}
        for number in range(_PROSPR_STEPS):
            loss = _loss_at(ctx, values, batches[number % len(batches)])
            if not loss.requires_grad:
                raise independent_loss()
            found = torch.autograd.grad(loss, list(values.values()), create_graph=True, allow_unused=True)
            moved = zip(values.items(), found, strict=True)
            values = {
                name: v if g is None or name not in trained else v - _PROSPR_RATE * g for (name, v), g in moved
            }
        last = _loss_at(ctx, values, batches[_PROSPR_STEPS % len(batches)])
        slopes = torch.autograd.grad(last, list(leaves.values()), allow_unused=True)
    if all(slope is None for slope in slopes):
        raise independent_loss()
    return {
        name: torch.zeros_like(ctx.weights[name])
        if slope is None
        else slope.detach().abs().to(ctx.weights[name])
        for name, slope in zip(leaves, slopes, strict=True)
    }


def _loss_at(ctx: PruneContext, values: dict[str, Tensor], batch: Batch) -> Tensor:
    return loss_of(ctx.loss, outputs_of(ctx.module, values, batch.inputs, batch_statistics=True), batch.targets)


@pruning_method(
    "grasp",
    kind="curvature",
    schedule=scheduling.at_initialisation,
    needs=_NEEDS,
    batch_count=2,
    reference="wang2020picking",
)
def grasp(ctx: PruneContext) -> Scores:
    """Gradient signal preservation ``w * (H g)``: where it is lowest, removal helps the gradient flow most.

    H and g are Hessian and gradient of the loss at temperature 200. The paper's S(-w) is the negative of
    this, and its highest are removed. Each batch is taken in four parts, where the authors halve 250 images
    drawn alike from all classes; linear layers are not drawn anew.
    """

    def tempered(logits: Tensor, labels: Tensor) -> Tensor:
        return ctx.loss(logits / _TEMPERATURE, labels)

    gradients = ctx.mean_gradients(loss=tempered, batch_statistics=True, parts=HESSIAN_PARTS)
    products = ctx.hessian_product(gradients, loss=tempered, batch_statistics=True)
    return {name: w * products[name] for name, w in ctx.weights.items()}


@pruning_method(
    "synflow", kind="gradient", schedule=scheduling.at_initialisation_100, reference="tanaka2020pruning"
)
@differentiates
def synflow(ctx: PruneContext) -> Scores:
    """Synaptic flow ``|dR/d|w| * |w|| / R`` with R the sum of outputs for inputs of ones and weights |w|.

    Inputs that are whole numbers stay as they are. All floating-point parameters and buffers are taken
    absolute, in double precision: R grows with the
    product of all layers. No data.
    """
    module = ctx.module
    leaves = {name: p.detach().requires_grad_() for name, p in ctx.weights.items()}
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    others = {name: t.detach().clone() for name, t in tensors.items() if name not in leaves}
    others = {name: t.abs().double() if t.is_floating_point() else t for name, t in others.items()}
    with evaluation_mode(module), random_state_kept(ctx.device), torch.enable_grad():
        doubled = {name: leaf.abs().double() for name, leaf in leaves.items()}
        flow = _flow(module, {**others, **doubled}, ctx.example.map(_of_ones).to(ctx.device, torch.float64))
        del doubled  # the graph alone holds them now, and lets them go one by one
        # Divided by the flow itself, gradients fit single precision; the order is the same.
        found = torch.autograd.grad(
            flow,
            list(leaves.values()),
            grad_outputs=1 / flow.detach().abs().clamp(min=1e-300),
            allow_unused=True,
        )
    return {
        name: torch.zeros_like(leaf) if g is None else (g * leaf.detach()).abs()
        for (name, leaf), g in zip(leaves.items(), found, strict=True)
    }


def _flow(module: nn.Module, tensors: Mapping[str, Tensor], example: Inputs) -> Tensor:
    """Sum of the outputs for the first example, or for all where it does not run without the others."""
    one = example.part(0, 1)
    try:
        return first_tensor(call_with(module, tensors, *one.bound(module))).sum()
    except (RuntimeError, IndexError):
        if example.fewest.rows == one.rows:
            raise
        return first_tensor(call_with(module, tensors, *example.bound(module))).sum()


def _of_ones(tensor: Tensor) -> Tensor:
    return torch.ones_like(tensor, device="cpu") if tensor.is_floating_point() else tensor
