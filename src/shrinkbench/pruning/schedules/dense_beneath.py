"""Schedules that keep a dense network beneath the masks, so that what was pruned can come back.

The forward pass uses masked weights; the optimizer moves what lies beneath, by the gradients found there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.schedules.gradual import cubic_course, cubic_density
from shrinkbench.pruning.schedules.hook import FinishingHook, PruningHook, Setting, often
from shrinkbench.pruning.schedules.schedule import register_during
from shrinkbench.spec.amount import Amount, Compression, ratio_of


class Feedback(FinishingHook):
    """Gradients of the masked network move the dense one beneath (Lin et al. 2020).

    ``w <- w - eta * g(m * w)``; every 16 steps masks are decided anew over the dense weights, nothing bound by
    earlier ones. Sparsity rises cubically until half of training.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {"until": 0.5, "every": 16, "at_least": 20}

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """Cubically."""
        return cubic_course(cls.CONSTANTS, target, progress)

    @classmethod
    def when(cls) -> str:
        """From the first step on."""
        constants = cls.CONSTANTS
        return f"to the target from the start to {constants['until']:.0%} of it, {often(constants)}"

    @property
    def beneath(self) -> bool:
        """The dense weights."""
        return True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._end = max(int(self.CONSTANTS["until"] * setting.steps), 1)
        self._every = max(1, min(int(self.CONSTANTS["every"]), self._end // int(self.CONSTANTS["at_least"])))
        self._dense: dict[str, Tensor] = {}

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        """Set the dense weights aside; what the network computes with is masked."""
        if not self._dense:
            self._dense = {name: p.detach().clone() for name, p in self.setting.parameters.items()}

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Hand the dense weights to the optimizer, with the gradients of the masked ones."""
        for name, parameter in self.setting.parameters.items():
            parameter.copy_(self._dense[name])

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Keep what the optimizer did, decide anew if it is time, and mask."""
        for name, parameter in self.setting.parameters.items():
            self._dense[name].copy_(parameter)
        if step % self._every == 0 or step == self._end:
            density = cubic_density(step / self._end, 1 / ratio_of(self.setting.amount))
            reached = step >= self._end
            amount = self.setting.amount if reached else Compression(ratio=1 / density)
            self.masks = self.decide(amount, step)
            self._done = self._done or reached
        self.masks.apply(self.setting.module)

    def decide(self, amount: Amount, step: int) -> Masks:
        """Masks for ``amount`` over the dense weights, which are in place."""
        return self.setting.decide(amount, iteration=step)

    def state_dict(self) -> dict[str, Any]:
        """Masks, the weights beneath them, and whether the target has been reached."""
        return {**super().state_dict(), "dense": self._dense}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        parameters = self.setting.parameters
        self._dense = {n: d.to(parameters[n].dtype) for n, d in self.placed(state["dense"]).items()}


class NetworkSurgery(Feedback):
    """As feedback, but what is kept holds on: a weight changes sides past a margin (Guo et al. 2016).

    The paper's two thresholds 0.9 t and 1.1 t become a comparison at equal size: scores of kept weights count
    1.1 / 0.9 of their value. The paper sets t from each layer's mean and deviation; here it follows from the
    target. Masks are looked at every 16 steps with probability 1 / (1 + 0.0001 step), as the paper has it for
    every step.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {**Feedback.CONSTANTS, "margin": 0.1, "decay": 1e-4}

    def decide(self, amount: Amount, step: int) -> Masks:
        """Masks by the score of the dense weights, with the margin in favour of what is kept."""
        chance = torch.rand((), generator=self.setting.generator("surgery", step)).item()
        rising = step <= self._end
        if not rising and chance > 1 / (1 + self.CONSTANTS["decay"] * step):
            return self.masks
        parameters = self.setting.parameters
        weights = {n: p.detach() for n, p in parameters.items()}
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters.items()}
        margin = self.CONSTANTS["margin"]
        favour = (1 + margin) / (1 - margin)
        scores = {
            name: torch.where(self.masks[name].to(score.device), score * favour, score)
            for name, score in self.setting.score(weights, gradients).items()
        }
        return self.setting.decide(amount, scores=scores, iteration=step)


class Refined(Feedback):
    """Sparse from the start; what is masked decays towards zero beside its gradient (SR-STE, Zhou et al. 2021).

    ``w <- w - eta * (g(m * w) + 2e-4 * (1 - m) * w)``, so that masks settle. The paper decides in every step;
    here every 10 steps, or oftener where that is fewer than 100 times.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {"decay": 2e-4, "every": 10, "at_least": 100}

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """The same throughout."""
        return target

    @classmethod
    def when(cls) -> str:
        """From before the first step on."""
        return f"at the target from the start, masks anew {often(cls.CONSTANTS)}"

    def __init__(self, setting: Setting) -> None:
        PruningHook.__init__(self, setting)
        constants = self.CONSTANTS
        self._every = max(1, min(int(constants["every"]), setting.steps // int(constants["at_least"])))
        self._done = True
        self._dense = {name: p.detach().clone() for name, p in setting.parameters.items()}
        self.masks = self.decide(setting.amount, 0)
        self.masks.apply(setting.module)

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Hand over the dense weights, with gradients of the masked ones and the decay of what is masked."""
        super().after_backward(step)
        for name, parameter in self.setting.parameters.items():
            if parameter.grad is not None:
                parameter.grad.add_(parameter * ~self.masks[name], alpha=self.CONSTANTS["decay"])

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Keep what the optimizer did, decide anew if it is time, and mask."""
        for name, parameter in self.setting.parameters.items():
            self._dense[name].copy_(parameter)
        if step % self._every == 0 or step == self.setting.steps:
            self.masks = self.decide(self.setting.amount, step)
        self.masks.apply(self.setting.module)


class TopKast(PruningHook):
    """Of each step, the forward pass uses the top D weights, the backward pass reaches twice as many.

    Jayakumar et al. 2020: sparse from the start, both sets by the score over the dense weights, every 100 steps
    or oftener where that is fewer than 20 times; what neither holds stays as it is. Weights are pulled to zero
    by an L2 penalty, those beyond the forward set 1 / D times as strongly, so that newcomers have to earn their
    place. The paper's backward sets are 1.5 to 5 times the forward ones.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {
        "backward": 2.0,
        "penalty": 1e-4,
        "every": 100,
        "at_least": 20,
    }

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """That of the forward pass, the same throughout."""
        return target

    @classmethod
    def when(cls) -> str:
        """From before the first step on."""
        return f"at the target from the start, both sets anew {often(cls.CONSTANTS)}"

    @property
    def beneath(self) -> bool:
        """The dense weights."""
        return True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        constants = self.CONSTANTS
        self._every = max(1, min(int(constants["every"]), setting.steps // int(constants["at_least"])))
        self._dense = {name: p.detach().clone() for name, p in setting.parameters.items()}
        self._reached = self.masks
        self._decide(0)
        self.masks.apply(setting.module)

    def _decide(self, step: int) -> None:
        """Both sets, over the dense weights, which are in place."""
        amount, wider = self.setting.amount, ratio_of(self.setting.amount) / self.CONSTANTS["backward"]
        self.masks = self.setting.decide(amount, iteration=step)
        if wider > 1:
            self._reached = self.masks.union(self.setting.decide(Compression(ratio=wider), iteration=step))
        else:
            self._reached = Masks({name: torch.ones_like(mask) for name, mask in self.masks.items()})

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Hand over the dense weights, with gradients and penalty where the backward pass reaches."""
        penalty = self.CONSTANTS["penalty"]
        for name, parameter in self.setting.parameters.items():
            parameter.copy_(self._dense[name])
            if parameter.grad is None:
                continue
            mask, reached = self.masks[name], self._reached[name]
            density = max(mask.float().mean().item(), 1 / mask.numel())
            pull = torch.where(mask, 1.0, 1 / density) * penalty
            parameter.grad.add_(parameter * pull).mul_(reached)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Keep what happened where the backward pass reached, decide both sets anew if it is time, and mask."""
        for name, parameter in self.setting.parameters.items():
            parameter.copy_(torch.where(self._reached[name], parameter, self._dense[name]))
            self._dense[name].copy_(parameter)
        if step % self._every == 0:
            self._decide(step)
        self.masks.apply(self.setting.module)

    def state_dict(self) -> dict[str, Any]:
        """Both sets and the weights beneath."""
        return {**super().state_dict(), "dense": self._dense, "reached": dict(self._reached)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        parameters = self.setting.parameters
        self._dense = {n: d.to(parameters[n].dtype) for n, d in self.placed(state["dense"]).items()}
        self._reached = Masks(self.placed(state["reached"]))


class Alternating(PruningHook):
    """Phases of compressed and of dense training in turn (AC/DC, Peste et al. 2021).

    Dense for the first tenth of training; then, in phases of a twentieth, compressed to the target by the score
    at the phase's start, and dense again from the masked weights; compressed from four fifths on. The lengths
    are those of the paper's 100 epochs, rounded: there the last dense phase ends at 85 and the warm-up at 10.
    What comes back starts at zero with the optimizer's state of it reset.
    """

    CONSTANTS: ClassVar[Mapping[str, float]] = {"warm_up": 0.1, "phase": 0.05, "last": 0.8}

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """The target in the compressed phases."""
        warm_up, phase, last = (cls.CONSTANTS[name] for name in ("warm_up", "phase", "last"))
        if progress < warm_up:
            return 1.0
        return target if progress >= last or int((progress - warm_up) / phase + 1e-9) % 2 == 0 else 1.0

    @classmethod
    def when(cls) -> str:
        """By phases."""
        warm_up, phase, last = (cls.CONSTANTS[name] for name in ("warm_up", "phase", "last"))
        return (
            f"dense for {warm_up:.0%} of it, then to the target and back in turn for {phase:.0%} each, "
            f"at the target from {last:.0%} on"
        )

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._whole = self.masks
        self._optimizers: tuple[torch.optim.Optimizer, ...] = ()
        self._phase = -1

    @property
    def settled(self) -> bool:
        """Whether the last compressed phase has begun."""
        return self._phase == self._phases

    @property
    def _phases(self) -> int:
        """Phases between the warm-up and the last one."""
        constants = self.CONSTANTS
        return round((constants["last"] - constants["warm_up"]) / constants["phase"])

    def phase_after(self, step: int) -> int:
        """The phase that follows ``step``: -1 is the warm-up; even ones are compressed, and the last is."""
        first = max(int(self.CONSTANTS["warm_up"] * self.setting.steps), 1)
        if step >= max(int(self.CONSTANTS["last"] * self.setting.steps), 1):
            return self._phases
        if step < first:
            return -1
        length = max(self.CONSTANTS["phase"] * self.setting.steps, 1.0)
        return min(int((step - first) / length + 1e-9), self._phases - 1)  # 7 / 7.000000000000001 is a phase

    def start(self, optimizer: torch.optim.Optimizer, *others: torch.optim.Optimizer) -> None:
        """Keep the optimizers, whose state is reset where weights come back."""
        self._optimizers = (optimizer, *others)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Begin the next phase if it is time; uphold."""
        phase = self.phase_after(step)
        if phase != self._phase:
            self._phase = phase
            if phase % 2 == 0 or phase == self._phases:
                self.adopt(self.setting.decide(self.setting.amount, iteration=step))
            else:
                self._reset(self.masks)
                self.adopt(self._whole)
        super().after_step(step)

    def _reset(self, masks: Masks) -> None:
        for name, parameter in self.setting.parameters.items():
            states = [value for each in self._optimizers for value in each.state.get(parameter, {}).values()]
            for value in states:
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.mul_(masks[name].to(value.device))

    def state_dict(self) -> dict[str, Any]:
        """Masks and the phase."""
        return {**super().state_dict(), "phase": self._phase}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._phase = state["phase"]


feedback = register_during(
    "feedback",
    "masks over dense weights that gradients of the masked network move; cubic until half of training",
    Feedback,
    from_scratch=True,
    rounds=None,
)
surgery = register_during(
    "network-surgery",
    "as feedback, from trained weights, with a margin in favour of what is kept",
    NetworkSurgery,
    rounds=None,
)
refined = register_during(
    "refined-straight-through",
    "train sparse from the start over dense weights; what is masked decays (SR-STE)",
    Refined,
    from_scratch=True,
)
top_kast = register_during(
    "top-kast",
    "train sparse from the start; gradients reach twice as many weights as the forward pass uses",
    TopKast,
    from_scratch=True,
    rounds=None,
)
alternating = register_during(
    "alternating",
    "compressed and dense phases of training in turn, compressed in the end",
    Alternating,
    from_scratch=True,
    version=2,
)
