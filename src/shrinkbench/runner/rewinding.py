"""What a plan refuses to rewind: weights that no training of this sweep goes through."""

from __future__ import annotations

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import Finetuning, PruningMethod
from shrinkbench.spec import Recipe, WeightsSpec


def check_rewinding(method: PruningMethod, weights: WeightsSpec, pretrain: Recipe, *, examples: int) -> None:
    """Refuse to rewind to weights that pretraining by ``pretrain`` on ``examples`` examples never has."""
    rounds = (method.finetuning, method.finetuning.between if len(method.schedule(2)) > 1 else None)
    for mode in rounds:
        if mode is not None and mode.weights == "rewound":
            _check_mode(method, mode, weights, pretrain, examples)


def _check_mode(
    method: PruningMethod, mode: Finetuning, weights: WeightsSpec, pretrain: Recipe, examples: int
) -> None:
    if weights.kind == "file":
        raise ShrinkbenchError(
            f"method '{method.name}' rewinds weights ({mode.name}), and those of the file '{weights.name}' "
            "have no earlier epochs; use weights = 'pretrain'"
        )
    if not (mode.step or mode.epoch):  # the weights before the first step are drawn
        return
    if method.schedule.start == "initialisation":
        raise ShrinkbenchError(
            f"method '{method.name}' rewinds weights ({mode.name}), and prunes before any training, so that "
            "there are no later weights to go back to; use finetuning = rewind-weights-0, or leave it out"
        )
    if weights.kind == "random":
        raise ShrinkbenchError(
            f"method '{method.name}' rewinds weights ({mode.name}), and weights = 'random' are those of no "
            "training; use weights = 'pretrain', or finetuning = rewind-weights-0"
        )
    # Tasks may join a last batch to the one before, and early stopping may end it sooner: there are no more.
    steps = pretrain.epochs * -(-examples // pretrain.batch_size)
    if mode.step and mode.step >= steps:
        raise ShrinkbenchError(
            f"method '{method.name}' rewinds to step {mode.step}, and recipe '{pretrain.name}' takes {steps} "
            f"steps ({pretrain.epochs} epochs of {examples} examples in batches of {pretrain.batch_size}); "
            f"choose an earlier step, such as rewind-weights-step-{max(steps // 10, 1)}"
        )
