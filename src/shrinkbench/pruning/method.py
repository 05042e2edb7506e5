"""A pruning method is a point on five axes; ``prune`` carries one out."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.probe import bias_parameters, classifier_weights, require_materialised, weight_parameters
from shrinkbench.pruning import allocation as allocations
from shrinkbench.pruning import finetuning as finetunings
from shrinkbench.pruning import scheduling as schedules
from shrinkbench.pruning import structure as structures
from shrinkbench.pruning.context import Batches, Loss, PruneContext, Scores
from shrinkbench.pruning.masks import Masks
from shrinkbench.registry import Registry
from shrinkbench.spec import MethodSpec

Score = Callable[[PruneContext], Scores]


@dataclass(frozen=True, kw_only=True)
class PruningMethod:
    """structure x score x allocation x schedule x fine-tuning.

    ``needs`` names what the score looks at beyond the weights (``data``, ``labels``, ``gradients``);
    ``batch_count`` is how many minibatches it takes; ``reference`` is a key of docs/references.bib.
    """

    name: str
    score: Score
    structure: structures.Structure = structures.weights
    allocation: allocations.Allocation = allocations.global_
    schedule: schedules.Schedule = schedules.one_shot
    finetuning: finetunings.Finetuning = finetunings.continue_
    needs: tuple[str, ...] = ()
    batch_count: int = 1
    reference: str = ""

    @property
    def summary(self) -> str:
        """First line of the score's docstring."""
        return (inspect.getdoc(self.score) or "").partition("\n")[0]

    @property
    def spec(self) -> MethodSpec:
        """The method as a value, for the key of a run; code from outside this package is part of it."""
        inside = self.score.__module__.startswith("shrinkbench.")
        return MethodSpec(
            name=self.name,
            structure=self.structure.name,
            score=self.score.__name__,
            allocation=self.allocation.name,
            schedule=self.schedule.name,
            finetuning=self.finetuning.name,
            source=None if inside else _source_digest(self.score),
        )


def _source_digest(function: Score) -> str:
    try:
        text = inspect.getsource(function)
    except OSError:  # defined in an interactive session
        text = function.__code__.co_code.hex() + repr(function.__code__.co_consts)
    return hashlib.sha256(text.encode()).hexdigest()


METHODS: Registry[PruningMethod] = Registry("pruning method")


def pruning_method(
    name: str,
    *,
    structure: structures.Structure = structures.weights,
    allocation: allocations.Allocation = allocations.global_,
    schedule: schedules.Schedule = schedules.one_shot,
    finetuning: finetunings.Finetuning = finetunings.continue_,
    needs: tuple[str, ...] = (),
    batch_count: int = 1,
    reference: str = "",
) -> Callable[[Score], Score]:
    """Register the decorated score as the method ``name``; decorators may be stacked.

    >>> @pruning_method("doctest_smallest_square")
    ... def square(ctx):
    ...     "Squared weight."
    ...     return {name: w ** 2 for name, w in ctx.weights.items()}
    >>> METHODS.get("doctest_smallest_square").allocation.name
    'global'
    """

    def register(score: Score) -> Score:
        method = PruningMethod(
            name=name,
            score=score,
            structure=structure,
            allocation=allocation,
            schedule=schedule,
            finetuning=finetuning,
            needs=needs,
            batch_count=batch_count,
            reference=reference,
        )
        METHODS.add(name, method)
        return score

    return register


def prunable_names(
    module: nn.Module,
    *,
    input_shape: Sequence[int] | None,
    prune_classifier: bool = False,
    prune_biases: bool = False,
) -> tuple[str, ...]:
    """Names of the parameters that may be pruned, in the module's order.

    Weights of convolutions, linear layers and attention projections; the layer that produces the logits is
    left out unless ``prune_classifier``, biases unless ``prune_biases``. Batch-norm and other parameters never
    take part. ``input_shape`` (without batch dimension) is needed to find the classifier.
    """
    require_materialised(module)
    names = set(weight_parameters(module)) | (set(bias_parameters(module)) if prune_biases else set())
    if not prune_classifier:
        if input_shape is None:
            raise ShrinkbenchError(
                "the classifier layer is kept, and finding it takes a forward pass; pass batches= or "
                "input_shape=(channels, height, width), or prune_classifier=True"
            )
        names -= classifier_weights(module, input_shape)
    if not names:
        raise ShrinkbenchError("the network has no prunable weights: no convolution or linear layer")
    return tuple(name for name, _ in module.named_parameters() if name in names)


def budget(module: nn.Module, names: Sequence[str], compression: float) -> int:
    """Prunable weights to keep so that original / kept parameters is ``compression``, up to half a weight.

    With T parameters in all and P prunable ones: round(T / compression) - (T - P). Raises
    ``CannotMeetTargetError`` where that is below one weight; the largest target is T / (T - P + 1).
    """
    if not (isinstance(compression, int | float) and math.isfinite(compression) and compression >= 1):
        raise ShrinkbenchError(
            f"compression {compression!r} is not a finite number of at least 1 (original / kept parameters)"
        )
    parameters = dict(module.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    prunable = sum(parameters[name].numel() for name in names)
    keep = round(total / compression) - (total - prunable)
    if keep < 1:
        largest = math.floor(total / (total - prunable + 1) * 1e4) / 1e4
        raise CannotMeetTargetError(
            f"compression {compression:g} cannot be met: {total - prunable:,} of {total:,} parameters are not "
            f"prunable here; the largest possible target is {largest:g}"
        )
    return keep


def prune(
    module: nn.Module,
    method: str | PruningMethod,
    *,
    compression: float,
    batches: Batches | None = None,
    input_shape: Sequence[int] | None = None,
    masks: Masks | None = None,
    generator: torch.Generator | None = None,
    iteration: int = 0,
    prune_classifier: bool = False,
    prune_biases: bool = False,
    loss: Loss = F.cross_entropy,
) -> Masks:
    """Decide which weights of ``module`` to keep; the module itself is left untouched.

    ``compression`` = original / kept parameters of the whole network. ``batches`` is any iterable of (inputs,
    labels), needed by methods that score on data; ``masks`` are those of an earlier round, within which the
    new ones stay. Apply the result with ``masks.apply(module)``. Randomness comes from ``generator`` alone.

    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> masks = prune(net, "global_magnitude", compression=2, input_shape=(8,))
    >>> masks.kept + 8 + 18  # kept weights, biases and the classifier: half of 90 parameters
    45
    """
    chosen = METHODS.get(method) if isinstance(method, str) else method
    batches = _Replayable(batches) if batches is not None else None
    if input_shape is None and batches is not None:
        input_shape = batches.input_shape
    names = prunable_names(
        module, input_shape=input_shape, prune_classifier=prune_classifier, prune_biases=prune_biases
    )
    keep = budget(module, names, compression)
    ctx = PruneContext(
        module,
        names,
        batches=batches,
        batch_count=chosen.batch_count,
        generator=generator,
        masks=masks,
        target=compression,
        iteration=iteration,
        loss=loss,
    )
    if compression == 1:
        whole = {name: torch.ones_like(w, dtype=torch.bool) for name, w in ctx.weights.items()}
        return Masks(whole)
    return decide(chosen, ctx, keep)


def decide(method: PruningMethod, ctx: PruneContext, keep: int) -> Masks:
    """Score, group, allocate, expand: the masks of one round that keep ``keep`` weights."""
    scores = method.score(ctx)
    _check_scores(scores, ctx)
    units = {}
    for name, w in ctx.weights.items():
        score = scores[name]
        if name in ctx.masks:  # what an earlier round removed comes last, and so never comes back
            score = score.masked_fill(~ctx.masks[name].to(score.device), -math.inf)
        units[name] = method.structure.group(score.reshape(w.shape))
    kept = method.allocation(units, keep)
    masks = Masks({name: method.structure.expand(kept[name], w.shape) for name, w in ctx.weights.items()})
    return masks.intersect(ctx.masks) if len(ctx.masks) else masks


def _check_scores(scores: Scores, ctx: PruneContext) -> None:
    missing = ctx.weights.keys() - scores.keys()
    if missing:
        raise ShrinkbenchError(f"the score gave nothing for '{min(missing)}'; return one tensor per weight")
    for name, w in ctx.weights.items():
        if scores[name].shape != w.shape:
            raise ShrinkbenchError(
                f"the score of '{name}' has shape {tuple(scores[name].shape)}, its weight {tuple(w.shape)}; "
                "return weight-shaped scores"
            )


class _Replayable:
    """Batches of which the first was looked at for its shape: iterating starts at the first again."""

    def __init__(self, batches: Batches) -> None:
        self._iterator = iter(batches)
        self._seen: list[tuple[Tensor, Tensor]] = []

    @property
    def input_shape(self) -> tuple[int, ...]:
        try:
            self._seen.append(next(self._iterator))
        except StopIteration:
            raise ShrinkbenchError("batches= is empty; give at least one batch of data") from None
        return tuple(self._seen[0][0].shape[1:])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._seen
        yield from self._iterator
