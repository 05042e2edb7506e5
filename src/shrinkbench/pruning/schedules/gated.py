"""Schedules whose weights pass through gates that are trained beside them, until the gates decide.

For the first three quarters of training the network computes with gated weights; the optimizer moves what lies
beneath by the chain rule. Then the weights that the gates rank highest stay, at the target exactly, with the
values that they have behind their gates, and training goes on under the masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.schedules.hook import FinishingHook, Setting
from shrinkbench.pruning.schedules.schedule import register_during
from shrinkbench.pruning.top_k import keep_highest

Tensors = dict[str, Tensor]


class Gated(FinishingHook):
    """What all such schedules share; a subclass says how gates pass weights, learn, and rank."""

    CONSTANTS: ClassVar[Mapping[str, float]] = {"until": 0.75}

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """Nothing goes for good before gates decide."""
        return target if progress >= cls.CONSTANTS["until"] else 1.0

    @classmethod
    def when(cls) -> str:
        """Once."""
        return f"once, when {cls.CONSTANTS['until']:.0%} of it are over"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._end = max(int(self.CONSTANTS["until"] * setting.steps), 1)
        self._dense: Tensors = {name: p.detach().clone() for name, p in setting.parameters.items()}
        self._step = 0
        self._highest = 0.0
        self._optimizer: Optimizer | None = None
        sizes = {name: p.abs() for name, p in self._dense.items()}
        self._budget = setting.decide(setting.amount, scores=sizes).kept
        self.gates: Tensors = {}

    @property
    def beneath(self) -> bool:
        """Those before their gates."""
        return not self._done

    def passed(self) -> Tensors:
        """The weights behind their gates."""
        raise NotImplementedError

    def learn(self, gradients: Mapping[str, Tensor]) -> Tensors:
        """Move the gates by ``gradients`` of the passed weights; returns the gradients of those beneath."""
        raise NotImplementedError

    def ranking(self) -> Mapping[str, Tensor]:
        """The highest of these stay."""
        raise NotImplementedError

    def start(self, optimizer: Optimizer, *others: Optimizer) -> None:
        """Keep the optimizer, whose learning rate gates follow."""
        self._optimizer = optimizer

    def rate(self, first: float) -> float:
        """``first`` times the share of the highest learning rate so far that the optimizer has now."""
        if self._optimizer is None:
            return first
        group = self._optimizer.param_groups[0]
        self._highest = max(self._highest, float(group["lr"]))
        return first * float(group["lr"]) / self._highest if self._highest else 0.0

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        """Put the gated weights in place."""
        if not self._done:
            self._step = step
            self._place(self.passed())

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Hand what lies beneath to the optimizer, with its gradients."""
        if self._done:
            return
        parameters = self.setting.parameters
        found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters.items()}
        gradients = self.learn(found)
        for name, parameter in parameters.items():
            parameter.copy_(self._dense[name])
            if parameter.grad is not None:
                parameter.grad.copy_(gradients[name])

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Keep what the optimizer did, and decide if it is time; then uphold."""
        if self._done:
            super().after_step(step)
            return
        for name, parameter in self.setting.parameters.items():
            self._dense[name].copy_(parameter)
        passed = self.passed()
        if step >= self._end:
            scores = self.ranking()
            for name, parameter in self.setting.parameters.items():
                parameter.copy_(self._dense[name])
            masks = self.setting.decide(self.setting.amount, scores=scores, iteration=step)
            self._place(passed)
            self.adopt(Masks(dict(masks)))
            self._done = True
            return
        self._place(passed)

    def _place(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.setting.parameters.items():
            parameter.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """What else is kept, gates, and the weights beneath."""
        own = {"dense": self._dense, "gates": self.gates, "step": self._step, "highest": self._highest}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        parameters = self.setting.parameters
        self._dense = {n: d.to(parameters[n].dtype) for n, d in self.placed(state["dense"]).items()}
        self.gates = self.placed(state["gates"])
        self._step, self._highest = state["step"], state["highest"]


class SoftThreshold(Gated):
    """``sign(w) max(|w| - sigmoid(s), 0)`` with one trained s per layer (STR, Kusupati et al. 2020).

    ``dL/dw = g 1[|w| > t]`` and ``ds = -sum(g sign(w) 1[|w| > t]) t (1 - t)``. The paper's weight decay on s
    makes networks sparse, and is set by hand for a sparsity; here s is pulled to zero, by ``exp(-6)`` in all,
    for as long as more weights pass than the target keeps. ``|w| - t`` ranks.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {**Gated.CONSTANTS, "first": -6.0, "pull": 6.0, "rate": 0.1}
    RANKED_BY = "by how much a weight passes the threshold of its layer"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        first = self.CONSTANTS["first"]
        self.gates = {name: w.new_full((), first, dtype=torch.float32) for name, w in self._dense.items()}

    def _margins(self) -> Tensors:
        return {name: w.abs() - self.gates[name].sigmoid().to(w) for name, w in self._dense.items()}

    def passed(self) -> Tensors:
        """Weights shrunk by their layer's threshold."""
        return {n: self._dense[n].sign() * margin.clamp(min=0) for n, margin in self._margins().items()}

    def learn(self, gradients: Mapping[str, Tensor]) -> Tensors:
        """Thresholds go down their gradient, and up while too many weights pass."""
        margins = self._margins()
        many = sum(int((margin > 0).sum()) for margin in margins.values()) > self._budget
        beneath = {}
        for name, gradient in gradients.items():
            beneath[name] = gradient * (margins[name] > 0)
            t = self.gates[name].sigmoid()
            slope = -(beneath[name] * self._dense[name].sign()).sum().float() * t * (1 - t)
            self.gates[name] -= self.rate(self.CONSTANTS["rate"]) * slope
            if many:
                self.gates[name] *= math.exp(-self.CONSTANTS["pull"] / self._end)
        return beneath

    def ranking(self) -> Mapping[str, Tensor]:
        """By how much a weight passes its threshold."""
        return self._margins()


class SigmoidGates(Gated):
    """``w sigmoid(b s)`` with an s per weight, b rising from 1 to 200 (Savarese et al. 2020).

    ``dL/ds = (g w + 1e-8) b sigmoid'(b s)``, from s = 0, by plain gradient descent with rate 0.1. The paper
    keeps where s > 0; here the highest s of the network, as many as the target says.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {
        **Gated.CONSTANTS,
        "sharpest": 200.0,
        "penalty": 1e-8,
        "rate": 0.1,
    }
    RANKED_BY = "by how far its gate is on the open side"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.gates = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in self._dense.items()}

    @property
    def _sharpness(self) -> float:
        return float(self.CONSTANTS["sharpest"] ** min(self._step / self._end, 1.0))

    def _open(self) -> Tensors:
        return {name: (self._sharpness * s).sigmoid() for name, s in self.gates.items()}

    def passed(self) -> Tensors:
        """Weights times how far their gates are open."""
        return {name: self._dense[name] * gate.to(self._dense[name]) for name, gate in self._open().items()}

    def learn(self, gradients: Mapping[str, Tensor]) -> Tensors:
        """Gates go down their gradient and the penalty's."""
        beneath, b = {}, self._sharpness
        for name, gate in self._open().items():
            slope = (gradients[name] * self._dense[name]).float() + self.CONSTANTS["penalty"]
            self.gates[name] -= self.rate(self.CONSTANTS["rate"]) * slope * b * gate * (1 - gate)
            beneath[name] = gradients[name] * gate.to(gradients[name])
        return beneath

    def ranking(self) -> Mapping[str, Tensor]:
        """How far gates are on the open side."""
        return self.gates


class SoftTopK(Gated):
    """The top k of ``w m`` computes, its gradients pass to the soft ``m`` (Spartan, Tai et al. 2022).

    ``m_i = sigmoid(b (v_i - tau))`` with ``v = |w| / mean |w|`` and tau such that the m sum to k: the solution
    of the paper's entropic transport problem at equal costs. With ``a = m (1 - m)``,
    ``dL/dw_i = g_i m_i + sign(w_i) b / mean|w| * a_i (g_i w_i - sum(a g w) / sum(a))``, the mean held fixed. k
    falls from all to the target's over the first fifth, b rises from 1 to 10, both linearly. ``|w|`` ranks.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {**Gated.CONSTANTS, "warm_up": 0.2, "sharpest": 10.0}

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """What the forward pass uses: density falls linearly."""
        return 1 / (1 + min(progress / cls.CONSTANTS["warm_up"], 1) * (1 / target - 1))

    @classmethod
    def when(cls) -> str:
        """In every step, until masks stay."""
        return (
            f"in every step, to the target at {cls.CONSTANTS['warm_up']:.0%} of it; what is kept is "
            f"settled at {cls.CONSTANTS['until']:.0%}"
        )

    @property
    def _sharpness(self) -> float:
        return 1 + (self.CONSTANTS["sharpest"] - 1) * min(self._step / self._end, 1.0)

    @property
    def _kept(self) -> int:
        total = sum(w.numel() for w in self._dense.values())
        share = min(self._step / max(self.CONSTANTS["warm_up"] * self.setting.steps, 1), 1.0)
        return round(total + share * (self._budget - total))

    def soft_masks(self) -> tuple[Tensors, float]:
        """``m`` of every weight, and ``mean |w|``."""
        flat = torch.cat([w.abs().reshape(-1).double() for w in self._dense.values()])
        mean = max(float(flat.mean()), 1e-30)
        found = soft_top_k(flat / mean, self._kept, self._sharpness)
        parts = found.split([w.numel() for w in self._dense.values()])
        masks = {
            n: part.reshape(w.shape).to(w) for (n, w), part in zip(self._dense.items(), parts, strict=True)
        }
        return masks, mean

    def passed(self) -> Tensors:
        """The k largest softly masked weights."""
        masks, _ = self.soft_masks()
        hard = keep_highest({name: w.abs() for name, w in self._dense.items()}, self._kept)
        return {name: w * masks[name] * hard[name].to(w.device) for name, w in self._dense.items()}

    def learn(self, gradients: Mapping[str, Tensor]) -> Tensors:
        """The chain rule through ``w m``; there are no gates of their own."""
        masks, mean = self.soft_masks()
        slopes = {name: m * (1 - m) for name, m in masks.items()}
        pulls = {name: gradients[name] * w for name, w in self._dense.items()}
        weight = sum(float(a.double().sum()) for a in slopes.values())
        common = sum(float((slopes[n].double() * p).sum()) for n, p in pulls.items()) / max(weight, 1e-30)
        sharp = self._sharpness / mean
        return {
            name: gradients[name] * masks[name] + w.sign() * sharp * slopes[name] * (pulls[name] - common)
            for name, w in self._dense.items()
        }

    def ranking(self) -> Mapping[str, Tensor]:
        """Magnitude."""
        return {name: w.abs() for name, w in self._dense.items()}


def soft_top_k(values: Tensor, count: int, sharpness: float) -> Tensor:
    """``sigmoid(sharpness (value - tau))`` with tau such that they sum to ``count``, by bisection.

    >>> soft_top_k(torch.tensor([0.0, 1.0]), 1, 2.0)
    tensor([0.2689, 0.7311])
    """
    if count >= values.numel():
        return torch.ones_like(values)
    low, high = values.min() - 40 / sharpness, values.max() + 40 / sharpness
    for _ in range(40):
        middle = (low + high) / 2
        if float((sharpness * (values - middle)).sigmoid().sum()) > count:
            low = middle
        else:
            high = middle
    return (sharpness * (values - (low + high) / 2)).sigmoid()


soft_threshold = register_during(
    "soft-threshold",
    "train weights and one threshold per layer; the farthest past theirs stay",
    SoftThreshold,
    from_scratch=True,
)
sigmoid_gates = register_during(
    "sigmoid-gates",
    "train weights and a gate for each, ever sharper; the most open stay",
    SigmoidGates,
    from_scratch=True,
)
soft_top_k_training = register_during(
    "soft-top-k",
    "train by the top k, with gradients through a soft top k, ever sharper",
    SoftTopK,
    from_scratch=True,
)
