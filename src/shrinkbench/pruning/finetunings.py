"""From which weights training goes on after pruning, and by which recipe.

The runner carries a mode out: it applies the masks, calls :func:`restart` with the checkpoint that the mode
asks for, and trains with the recipe that the mode names, from the epoch that it names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.weights import load_tensors
from shrinkbench.pruning.masks import Masks
from shrinkbench.registry import Registry
from shrinkbench.spec import FinetuningSpec


@dataclass(frozen=True)
class Finetuning:
    """What happens after masks are decided.

    ``weights``: ``kept`` as pruning left them, ``rewound`` to those after ``epoch`` of pretraining (0: before
    the first), ``reinitialised`` with a fresh draw, or ``scratch``: a fresh draw with the variance that the
    pruned architecture asks for. ``recipe``: ``finetuning``, ``pretraining`` from its epoch ``epoch + 1`` on,
    or ``none`` for no training at all. ``equal``: whether pretraining's ``epochs`` are repeated or, by as many
    epochs as that takes, its ``computation``. ``step``: the step of pretraining that is rewound to, in place of
    an epoch.
    """

    name: str
    description: str
    weights: Literal["kept", "rewound", "reinitialised", "scratch"] = "kept"
    recipe: Literal["finetuning", "pretraining", "none"] = "finetuning"
    epoch: int = 0
    equal: Literal["epochs", "computation"] = "epochs"
    step: int = 0
    version: int = 1

    @property
    def spec(self) -> FinetuningSpec:
        """The mode as a value; code from outside is added by the method that uses it."""
        return FinetuningSpec(
            name=self.name,
            version=self.version,
            weights=self.weights,
            recipe=self.recipe,
            epoch=self.epoch,
            equal=self.equal,
            step=self.step,
        )

    @property
    def between(self) -> Finetuning:
        """What happens after each round of an iterative schedule but the last.

        An architecture that is to be trained from scratch is found as lottery tickets are: by rewinding.
        """
        return rewind_to_start if self.weights == "scratch" else self


FINETUNINGS: Registry[Finetuning] = Registry("fine-tuning mode", of=Finetuning)
_EPOCH = "0|[1-9][0-9]{0,8}"


@FINETUNINGS.add_resolver
def _from_name(name: str) -> Finetuning | None:
    """``rewind-weights-K`` and ``rewind-learning-rate-K`` for any epoch K, ``rewind-weights-step-K``."""
    if match := re.fullmatch(rf"rewind-weights-({_EPOCH})", name):
        return rewind_weights(int(match[1]))
    if match := re.fullmatch(r"rewind-weights-step-([1-9][0-9]{0,17})", name):
        return rewind_steps(int(match[1]))
    if match := re.fullmatch(rf"rewind-learning-rate-({_EPOCH})", name):
        return rewind_learning_rate(int(match[1]))
    return None


def rewind_weights(epoch: int) -> Finetuning:
    """Weights and learning-rate schedule go back to after pretraining's ``epoch`` (Frankle et al. 2019)."""
    return Finetuning(
        f"rewind-weights-{epoch}",
        f"set the weights back to those after epoch {epoch} of pretraining, and train as from there",
        weights="rewound",
        recipe="pretraining",
        epoch=epoch,
    )


def rewind_steps(step: int) -> Finetuning:
    """Weights and learning-rate schedule go back to after ``step`` of pretraining (Frankle et al. 2020)."""
    return Finetuning(
        f"rewind-weights-step-{step}",
        f"set the weights back to those after step {step} of pretraining, and train as from there",
        weights="rewound",
        recipe="pretraining",
        step=step,
    )


def rewind_learning_rate(epoch: int) -> Finetuning:
    """Weights stay; the learning-rate schedule is replayed from ``epoch`` on (Renda et al. 2020)."""
    return Finetuning(
        f"rewind-learning-rate-{epoch}",
        f"keep the weights and repeat pretraining's schedule from after epoch {epoch}",
        recipe="pretraining",
        epoch=epoch,
    )


def _add(mode: Finetuning) -> Finetuning:
    return FINETUNINGS.add(mode.name, mode)


continue_ = _add(Finetuning("continue", "go on from the weights that pruning left, with the mask fixed"))
none = _add(Finetuning("none", "no training after pruning", recipe="none"))
rewind_to_start = _add(rewind_weights(0))
rewind_to_5 = _add(rewind_weights(5))
repeat_schedule = _add(rewind_learning_rate(0))
reinitialise = _add(
    Finetuning(
        "reinitialise",
        "draw all weights anew, keep the mask, and train by the pretraining recipe",
        weights="reinitialised",
        recipe="pretraining",
    )
)
scratch_e = _add(
    Finetuning(
        "scratch-e",
        "train the pruned architecture from random weights by the pretraining recipe, for the same epochs",
        weights="scratch",
        recipe="pretraining",
    )
)
scratch_b = _add(
    Finetuning(
        "scratch-b",
        "as scratch-e, for as many epochs as cost the multiply-adds of pretraining the large network",
        weights="scratch",
        recipe="pretraining",
        equal="computation",
    )
)


def restart(
    mode: Finetuning, module: nn.Module, masks: Masks, source: Mapping[str, Tensor] | None = None
) -> None:
    """Give ``module`` the weights that training goes on from, in place, and apply ``masks``.

    ``source`` is a state dict: the checkpoint of ``mode.epoch`` for rewound weights, a freshly initialised
    network for reinitialised ones and scratch; kept weights need none. Batch-norm statistics are set back
    with the weights. New values that the pruning method chose (``masks.new_weights``) are used only if weights
    are kept.
    """
    if mode.weights == "kept":
        masks.apply(module)
        return
    if source is None:
        raise ShrinkbenchError(
            f"fine-tuning mode '{mode.name}' needs the weights of epoch {mode.epoch}; pass source="
        )
    load_tensors(module, source)
    if mode.weights == "scratch":
        to_own_fan(module, masks)
    Masks(dict(masks)).apply(module)


@torch.no_grad()
def to_own_fan(module: nn.Module, masks: Masks) -> None:
    """Rescale freshly drawn weights to the deviation that the network left by ``masks`` is drawn with.

    A draw from N(0, 2 / fan out) becomes one from N(0, 2 / n) with n = kept weights / kept inputs: under masks
    of whole channels the small network's own fan out (He et al. 2015), under masks of single weights the
    survivors per input channel (Liu et al. 2019, Section 4.3).
    """
    for name, parameter in module.named_parameters():
        if name in masks and parameter.ndim > 1 and bool(masks[name].any()):
            mask = masks[name]
            inputs = mask.movedim(1, 0).flatten(1).any(1)
            own = int(mask.sum()) / int(inputs.sum())
            parameter.mul_((mask.numel() / len(inputs) / own) ** 0.5)
