"""Sparse Structure Selection (Huang and Wang 2018): scaling factors that are trained towards exact zeros.

Every residual branch is multiplied by a factor, at first 1, and the factors follow a modified accelerated
proximal gradient under an L1 penalty, so that some become zero while the network trains. What has a factor of
zero goes, other factors are folded into the weights, and there is no fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.attention import is_attention
from shrinkbench.network.dataflow import read_flow
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import pruning_method
from shrinkbench.pruning.schedules.hook import PruningHook, Setting
from shrinkbench.pruning.schedules.schedule import SCHEDULES, Schedule, once
from shrinkbench.pruning.structures.channels import branches
from shrinkbench.pruning.units import Scores

PENALTY = 0.01  # of the released configuration for ResNet-50


def proximal_step(
    factors: Tensor, velocity: Tensor, gradient: Tensor, *, rate: float, penalty: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """One step of the modified accelerated proximal gradient; returns factors and velocity.

    ``z = f - rate * g``, ``s = sign(z) max(|z| - rate * penalty, 0)``, ``v' = s - f + momentum * v`` and
    ``f' = max(s + momentum * v', 0)`` (Huang and Wang 2018, equations 10 to 12; factors stay non-negative).

    >>> old, still, slope = torch.tensor([0.05]), torch.zeros(1), torch.ones(1)
    >>> f, v = proximal_step(old, still, slope, rate=0.1, penalty=0.01, momentum=0.9)
    >>> f.item()
    0.0
    """
    moved = factors - rate * gradient
    shrunk = moved.sign() * (moved.abs() - rate * penalty).clamp_min(0)
    speed = shrunk - factors + momentum * velocity
    return (shrunk + momentum * speed).clamp_min(0), speed


@dataclass(frozen=True)
class _Branch:
    """A residual branch: its weights, its last layer, and the module whose output its factor multiplies.

    The two are one, but for attention, which applies its projection without calling it.
    """

    weights: frozenset[str]
    last: str
    output: str


class ScaledBranches(PruningHook):
    """Train with a factor on every residual branch; at the end, the branches of the smallest factors go."""

    CONSTANTS: ClassVar[Mapping[str, float]] = {"momentum": 0.9}

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """Nothing goes before the training is over."""
        return target if progress >= 1 else 1.0

    @classmethod
    def when(cls) -> str:
        """At the end."""
        return "once, when it is over"

    def __init__(self, setting: Setting, *, penalty: float) -> None:
        super().__init__(setting)
        self._penalty = penalty
        self._rate: Callable[[], float] = lambda: 0.0
        self._branches = _branches_of(setting)
        device = next(iter(setting.parameters.values())).device
        self.factors = torch.ones(len(self._branches), device=device, requires_grad=True)
        self._velocity = torch.zeros(len(self._branches), device=device)
        self._handles = [
            setting.module.get_submodule(branch.output).register_forward_hook(partial(self._scale, number))
            for number, branch in enumerate(self._branches)
        ]
        self._done = False

    def _scale(self, number: int, _: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # attention returns its weights beside
            return (output[0] * self.factors[number].to(output[0].dtype), *output[1:])
        return output * self.factors[number].to(output.dtype)

    @property
    def settled(self) -> bool:
        """Whether branches have been removed."""
        return self._done

    def start(self, optimizer: Optimizer, *others: Optimizer) -> None:
        """The factors use the learning rate of the weights."""
        self._rate = lambda: float(optimizer.param_groups[0]["lr"])

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Move the factors."""
        if self.factors.grad is None:
            return
        new, self._velocity = proximal_step(
            self.factors,
            self._velocity,
            self.factors.grad,
            rate=self._rate(),
            penalty=self._penalty,
            momentum=self.CONSTANTS["momentum"],
        )
        self.factors.copy_(new)
        self.factors.grad = None

    def after_epoch(self, epoch: int) -> None:
        """After the last epoch: remove branches, fold the other factors in."""
        if epoch < self.setting.epochs:
            return
        scores = {name: torch.zeros_like(p) for name, p in self.setting.parameters.items()}
        for branch, factor in zip(self._branches, self.factors.detach(), strict=True):
            for name in branch.weights:
                scores[name] = torch.full_like(scores[name], float(factor))
        self._fold()
        self.adopt(self.setting.decide(self.setting.amount, scores=scores, iteration=epoch))
        self._done = True

    @torch.no_grad()
    def _fold(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for branch, factor in zip(self._branches, self.factors, strict=True):
            for parameter in self.setting.module.get_submodule(branch.last).parameters(recurse=False):
                parameter.mul_(factor)

    def state_dict(self) -> dict[str, Any]:
        """Masks, factors and their velocity."""
        own = {"factors": self.factors.detach(), "velocity": self._velocity, "done": self._done}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        with torch.no_grad():
            self.factors.copy_(state["factors"])
        self._velocity = state["velocity"].to(self.factors.device)
        self._done = state["done"]
        if self._done:  # the weights hold the factors already
            for handle in self._handles:
                handle.remove()
            self._handles = []


def _branches_of(setting: Setting) -> tuple[_Branch, ...]:
    flow = read_flow(setting.module, setting.example)
    found = []
    for weights in flow.branches:
        if weights <= set(setting.names):
            last = max(weights, key=flow.order.index)
            layer = flow.batch_norms.get(last, last).rpartition(".")[0]
            parent = layer.rpartition(".")[0]
            whole = bool(parent) and is_attention(setting.module.get_submodule(parent))
            found.append(_Branch(weights, layer, parent if whole else layer))
    if not found:
        raise ShrinkbenchError(
            "this network has no residual branches to scale; choose a residual network or another method"
        )
    return tuple(found)


scaled_branches = SCHEDULES.add(
    "scaled-branches",
    Schedule(
        "scaled-branches",
        "train with a sparse factor on every residual branch; at the end those of the smallest factors go",
        once,
        start="initialisation",
        during=partial(ScaledBranches, penalty=PENALTY),
        decided_last=True,
        parameters={"penalty": PENALTY},
    ),
)


@pruning_method(
    "sparse_structure_selection",
    kind="magnitude",
    structure=branches,
    schedule=scaled_branches,
    reference="huang2018data",
)
def branch_size(ctx: PruneContext) -> Scores:
    """Mean magnitude of a branch's weights, where no factors have been trained."""
    return {name: w.abs() for name, w in ctx.weights.items()}
