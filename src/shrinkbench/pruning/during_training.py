"""The hook by which a method prunes a network while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Example, Inputs
from shrinkbench.network.view import Batches, Loss
from shrinkbench.pruning.amounts import amount_of, check_amount
from shrinkbench.pruning.checked_batches import with_examples
from shrinkbench.pruning.constraining import check_constraints, constraints_for
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masking import prune_once, scored
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import METHODS, PruningMethod
from shrinkbench.pruning.prunable import prunable_names
from shrinkbench.pruning.rounds import rounds_of
from shrinkbench.pruning.schedules.hook import PruningHook, Setting
from shrinkbench.pruning.units import Scores, UnitScores
from shrinkbench.seeds import stream
from shrinkbench.spec import Amount
from shrinkbench.spec.constraints import UNCONSTRAINED, Constraints


def training_hook(
    module: nn.Module,
    method: str | PruningMethod,
    *,
    compression: float | None = None,
    fraction_per_layer: float | None = None,
    channels: float | None = None,
    speedup: float | None = None,
    round_to: int | None = None,
    ignore: Sequence[str] = (),
    max_ratio: float | None = None,
    epochs: int,
    steps_per_epoch: int,
    seed: int,
    input_shape: Example,
    batches: Callable[[torch.Generator], Batches] | None = None,
    prune_classifier: bool = False,
    prune_biases: bool = False,
    prune_embeddings: bool = False,
    loss: Loss = F.cross_entropy,
    batch_size: int | None = None,
) -> PruningHook:
    """The hook by which a method prunes ``module`` while it is trained; its ``masks`` are the outcome.

    For methods whose ``schedule.during`` is set; amount and bounds are those of :func:`~shrinkbench.prune`.
    ``epochs`` and ``steps_per_epoch`` are those of the training to come, and so is ``batch_size`` (left out:
    seen from its first batch); ``batches`` draws batches to score on, for methods that need data; all
    randomness follows from ``seed``.
    """
    chosen = METHODS.get(method) if isinstance(method, str) else method
    amount = amount_of(
        chosen,
        compression=compression,
        fraction_per_layer=fraction_per_layer,
        channels=channels,
        speedup=speedup,
    )
    return hook_for(
        module,
        chosen,
        amount=amount,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        seed=seed,
        input_shape=input_shape,
        batches=batches,
        prune_classifier=prune_classifier,
        prune_biases=prune_biases,
        prune_embeddings=prune_embeddings,
        constraints=constraints_for(chosen, amount, round_to=round_to, ignore=ignore, max_ratio=max_ratio),
        loss=loss,
        batch_size=batch_size,
    )


def hook_for(
    module: nn.Module,
    chosen: PruningMethod,
    *,
    amount: Amount,
    epochs: int,
    steps_per_epoch: int,
    seed: int,
    input_shape: Example,
    batches: Callable[[torch.Generator], Batches] | None = None,
    prune_classifier: bool = False,
    prune_biases: bool = False,
    prune_embeddings: bool = False,
    constraints: Constraints = UNCONSTRAINED,
    loss: Loss = F.cross_entropy,
    batch_size: int | None = None,
) -> PruningHook:
    """:func:`training_hook` for an amount and bounds that are values already."""
    if chosen.schedule.during is None:
        raise ShrinkbenchError(
            f"'{chosen.name}' does not prune during training (schedule {chosen.schedule.name}); use prune()"
        )
    check_amount(chosen, amount)
    check_constraints(chosen, constraints, amount)
    if epochs < 1 or steps_per_epoch < 1:
        raise ShrinkbenchError(
            f"'{chosen.name}' prunes while it trains (schedule {chosen.schedule.name}), and a training of "
            f"{epochs} epochs with {steps_per_epoch} steps has no time for it; train for one epoch at least"
        )
    carried = Masks.of_torch(module)
    if carried:
        raise ShrinkbenchError(
            f"the network carries masks of torch.nn.utils.prune ('{next(iter(carried))}'), within which no "
            "training here prunes; make them zeros with torch.nn.utils.prune.remove first"
        )
    names = prunable_names(
        module,
        input_shape=input_shape,
        prune_classifier=prune_classifier,
        prune_biases=prune_biases,
        prune_embeddings=prune_embeddings,
        ignore=constraints.ignore,
    )
    rounds_of(  # a target out of reach is told before the training
        module,
        chosen,
        amount,
        input_shape=input_shape,
        prune_classifier=prune_classifier,
        prune_biases=prune_biases,
        prune_embeddings=prune_embeddings,
        constraints=constraints,
    )

    def decide_now(
        amount: Amount,
        *,
        masks: Masks | None = None,
        scores: Scores | None = None,
        learned: Mapping[str, Tensor] | None = None,
        iteration: int = 0,
    ) -> Masks:
        def generator(purpose: str) -> torch.Generator:
            return torch.Generator().manual_seed(stream(seed, purpose, iteration))

        return prune_once(
            module,
            chosen,
            amount=amount,
            batches=None if batches is None else batches(generator("scoring-batch")),
            input_shape=input_shape,
            masks=masks,
            generator=generator("scoring"),
            iteration=iteration,
            prune_classifier=prune_classifier,
            prune_biases=prune_biases,
            prune_embeddings=prune_embeddings,
            loss=loss,
            scores=scores,
            constraints=constraints,
            learned=learned,
        )

    def score(weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Scores:
        ctx = PruneContext(
            module,
            names,
            batches=_NoBatches(chosen),
            input_shape=input_shape,
            amount=amount,
            gradients=gradients,
        )
        ctx.weights = dict(weights)
        found = scored(chosen, ctx)
        if isinstance(found, Masks | UnitScores):
            raise ShrinkbenchError(f"'{chosen.name}' gives no scores of weights that could be added up")
        return found

    def draw(number: int) -> Batches:
        assert batches is not None  # noqa: S101  given to the setting only where there are any
        return with_examples(batches(torch.Generator().manual_seed(stream(seed, "batch-beside", number))))

    setting = Setting(
        module=module,
        names=names,
        amount=amount,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        seed=seed,
        decide=decide_now,
        score=score,
        example=Inputs.of(input_shape),
        batch_size=batch_size,
        draw=None if batches is None else draw,
    )
    return chosen.schedule.during(setting)


@dataclass(frozen=True)
class _NoBatches:
    """In place of batches, where weights and gradients of a step are all that ``method`` may look at."""

    method: PruningMethod

    def __iter__(self) -> Iterator[Any]:
        raise ShrinkbenchError(
            f"'{self.method.name}' scores on data, and the schedule '{self.method.schedule.name}' goes by the "
            "weights and gradients of every training step; choose another schedule, such as gradual-cubic"
        )
