"""Synaptic Strength (Lin et al. 2018): norms of kernels, times the scales of the inputs that they read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import couple
from shrinkbench.network.inputs import Example
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.schedules.hook import Setting
from shrinkbench.pruning.schedules.penalised import Penalised
from shrinkbench.pruning.schedules.schedule import SCHEDULES, Schedule, once
from shrinkbench.pruning.structures.single import kernels
from shrinkbench.pruning.units import Scores

_PENALTY = 1e-4
_TINY = 1e-12


def scales_in_front(module: nn.Module, example: Example, names: frozenset[str]) -> Mapping[str, str]:
    """The scale of the batch norm that feeds it, by the name of each convolution's weight in ``names``.

    Of convolutions without groups: in grouped ones an input channel is another one in each group. Raises
    ``ShrinkbenchError`` where there is none.
    """
    found = {}
    for layer, norm in couple(module, example).feeding_norm.items():
        name = f"{layer}.weight"
        convolution = module.get_submodule(layer)
        plain = isinstance(convolution, nn.Conv1d | nn.Conv2d | nn.Conv3d) and convolution.groups == 1
        scaled = getattr(module.get_submodule(norm), "weight", None)
        if name in names and plain and scaled is not None and len(scaled) == convolution.in_channels:
            found[name] = f"{norm}.weight"
    if not found:
        raise ShrinkbenchError(
            "no convolution of this network reads what one batch norm gives it, so that its kernels have no "
            "strength beyond their norm; choose a network with batch norm or another method"
        )
    return found


def kernel_norms(weight: Tensor) -> Tensor:
    """Frobenius norm of each kernel, (outputs, inputs)."""
    return weight.flatten(2).norm(dim=2) if weight.dim() > 2 else weight.abs()


def along_inputs(values: Tensor, weight: Tensor) -> Tensor:
    """One value per input channel, in a shape that broadcasts to ``weight``."""
    return values.view(1, -1, *[1] * (weight.dim() - 2))


class SparseStrengths(Penalised):
    """Train with ``penalty * sum |scale| * norm`` over the kernels that batch norms feed."""

    def __init__(self, setting: Setting, *, penalty: float) -> None:
        super().__init__(setting, penalty=penalty)
        self._scales = scales_in_front(setting.module, setting.example, frozenset(setting.names))

    @torch.no_grad()
    def add_penalty(self) -> None:
        """``penalty |scale| w / norm`` for weights, ``penalty sign(scale) * sum of norms`` for scales."""
        for name, scale_name in self._scales.items():
            weight = self.setting.module.get_parameter(name)
            scale = self.setting.module.get_parameter(scale_name)
            norms = kernel_norms(weight)
            if weight.grad is not None:
                length = norms.reshape(*norms.shape, *[1] * (weight.dim() - 2))
                push = torch.where(length > _TINY, weight / length, 0) * along_inputs(scale.abs(), weight)
                weight.grad.add_(push, alpha=self._penalty)
            if scale.grad is not None:
                scale.grad.add_(scale.sign() * norms.sum(0), alpha=self._penalty)


sparse_strengths = SCHEDULES.add(
    "sparse-strengths",
    Schedule(
        "sparse-strengths",
        f"train with {_PENALTY:g} x the strengths of all kernels that batch norms feed, prune, fine-tune",
        once,
        start="initialisation",
        during=partial(SparseStrengths, penalty=_PENALTY),
        train_after=True,
        decided_last=True,
        parameters={"penalty": _PENALTY},
    ),
)


@pruning_method(
    "synaptic_strength",
    kind="magnitude",
    structure=kernels,
    schedule=sparse_strengths,
    reference="lin2018synaptic",
)
def kernel_strength(ctx: PruneContext) -> Scores:
    """``|scale of the input's batch norm| * norm of the kernel``; where no batch norm feeds a layer, the norm.

    The scale is the deviation of what the batch norm gives, so that a strength is how much of the output's
    deviation a connection carries (Lin et al. 2018, who train the product in place of its factors).
    """
    scales = scales_in_front(ctx.module, ctx.example, frozenset(ctx.weights))
    parameters = dict(ctx.module.named_parameters())
    scores = {}
    for name, w in ctx.weights.items():
        if w.dim() < 2:  # a bias is no connection
            scores[name] = w.abs()
            continue
        norms = kernel_norms(w)
        strength = norms.reshape(*norms.shape, *[1] * (w.dim() - 2)).expand_as(w)
        if name in scales:
            strength = strength * along_inputs(parameters[scales[name]].detach().abs().to(w), w)
        scores[name] = strength
    return scores
