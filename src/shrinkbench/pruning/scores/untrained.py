"""Scores of networks before any training."""

from __future__ import annotations

import torch
from torch import Tensor

from shrinkbench.network.calling import call_with
from shrinkbench.network.derivatives import HESSIAN_PARTS, random_state_kept
from shrinkbench.network.probe import evaluation_mode, first_tensor
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.schedules import before_training as scheduling
from shrinkbench.pruning.units import Scores

_NEEDS = ("data", "labels", "gradients")
_TEMPERATURE = 200.0


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
def synflow(ctx: PruneContext) -> Scores:
    """Synaptic flow ``|dR/d|w| * |w|| / R`` with R the sum of outputs for an input of ones and weights |w|.

    All floating-point parameters and buffers are taken absolute, in double precision: R grows with the
    product of all layers. No data.
    """
    module = ctx.module
    leaves = {name: p.detach().requires_grad_() for name, p in ctx.weights.items()}
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    others = {name: t.detach().clone() for name, t in tensors.items() if name not in leaves}
    others = {name: t.abs().double() if t.is_floating_point() else t for name, t in others.items()}
    ones = torch.ones((1, *ctx.input_shape), dtype=torch.float64, device=ctx.device)
    with evaluation_mode(module), random_state_kept(ctx.device), torch.enable_grad():
        doubled = {name: leaf.abs().double() for name, leaf in leaves.items()}
        flow = first_tensor(call_with(module, {**others, **doubled}, (ones,))).sum()
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
