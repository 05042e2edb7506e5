"""The next token of a text: perplexity, by causal language models on blocks of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import TARGETS, Batch, Inputs, describe, split_batch, tensors_in
from shrinkbench.network.probe import evaluation_mode, first_tensor
from shrinkbench.network.weights import copy_of
from shrinkbench.spec import MetricSpec, Objective, Recipe
from shrinkbench.spec.measures import LARGEST_FLOAT32, Quality
from shrinkbench.tasks.batches import called, placed, same_width
from shrinkbench.tasks.losses import mean_cross_entropy
from shrinkbench.tasks.task import TASKS, Batches

NOT_PREDICTED = -100
"""As a target: a token that is not to be predicted (padding)."""

LANGUAGE_MODELLING = Objective(
    name="language_modelling",
    loss="cross-entropy",
    metrics=(
        MetricSpec(name="perplexity", direction="lower", unit="", lower=1),
        MetricSpec(name="token_accuracy", direction="higher", unit="fraction", lower=0, upper=1),
        MetricSpec(name="loss", direction="lower", unit="nats", lower=0),
    ),
    headline="perplexity",
    version=2,
)


@dataclass(frozen=True)
class LanguageModelling:
    """Batches are tokens (N, T): a tensor, a pair of tokens and targets, or a dictionary with ``input_ids``.

    Targets are the tokens themselves, unshifted, as Hugging Face has ``labels``: token t + 1 is predicted from
    those up to t. Where a batch has none they are its tokens, without those that ``attention_mask`` leaves out
    and those right behind these, which follow nothing; labels of what it leaves out are refused.
    The network returns logits (N, T, vocabulary). Examples are the tokens that are predicted.
    """

    objective: Objective = LANGUAGE_MODELLING

    def split(self, batch: Any) -> Batch:
        """Tokens that go in, and tokens that are to come out."""
        if isinstance(batch, Mapping) and not any(name in batch for name in TARGETS):
            if "input_ids" not in batch:
                raise ShrinkbenchError(
                    f"language modelling takes tokens as 'input_ids', and a batch holds {', '.join(batch)}; "
                    "name them so"
                )
            tokens = batch["input_ids"]
            left_out = _left_out(batch)
            return Batch(Inputs.of(batch), tokens.masked_fill(left_out, NOT_PREDICTED))
        found = split_batch(batch)
        if isinstance(batch, Mapping) and "input_ids" in batch:
            _require_attended(batch, found.targets)
        return Batch(found.inputs, found.inputs.single) if found.targets is None else found

    def criterion(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean cross-entropy (nats) over the predicted tokens of a batch; 0 where there are none."""
        return mean_cross_entropy(*_predictions(outputs, targets), ignored=NOT_PREDICTED)

    def training_batches(self, batches: Batches) -> Iterator[Batch]:
        """The batches as they are, split."""
        yield from map(self.split, batches)

    def loss(self, module: nn.Module, batch: Any, recipe: Recipe) -> tuple[Tensor, int]:
        """Mean cross-entropy (nats) with the recipe's label smoothing, and how many tokens it is of."""
        given = placed(self.split(batch), module)
        kind = given.inputs.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            logits, following = _predictions(called(module, given.inputs), given.targets)
            loss = mean_cross_entropy(
                logits, following, ignored=NOT_PREDICTED, smoothing=recipe.label_smoothing
            )
        return loss, int((following != NOT_PREDICTED).sum())

    @torch.inference_mode()
    def evaluate(self, module: nn.Module, batches: Batches, *, precision: str = "float32") -> Quality:
        """Perplexity, accuracy and mean cross-entropy over all predicted tokens of ``batches``.

        perplexity = exp(mean cross-entropy in nats). Every token weighs the same, in short batches too. Raises
        ``ShrinkbenchError`` where nothing is predicted, or the perplexity is no finite number.
        """
        loss, right, tokens = 0.0, 0, 0
        vocabulary: int | None = None
        with evaluation_mode(module):
            for each in batches:
                given = placed(self.split(each), module)
                if not len(given):
                    continue
                if vocabulary is None:
                    _require_causal(module, given.inputs)
                kind = given.inputs.device.type
                with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16-mixed"):
                    outputs = called(module, given.inputs)
                logits, following = _predictions(outputs, given.targets)
                vocabulary = same_width(vocabulary, logits, "tokens")
                counted = following != NOT_PREDICTED
                logits, following = logits[counted].float(), following[counted]
                loss += float(F.cross_entropy(logits, following, reduction="none").double().sum())
                right += int((logits.argmax(1) == following).sum())
                tokens += len(following)
        if not tokens:
            raise ShrinkbenchError(
                "there are no tokens to predict; give a split with blocks of two tokens or more"
            )
        mean = loss / tokens
        if not mean < math.log(LARGEST_FLOAT32):
            raise ShrinkbenchError(
                f"the network has diverged: its mean loss over {tokens} tokens is {mean:g} nats, of which no "
                "perplexity can be told; lower the learning rate or prune less"
            )
        metrics = {"perplexity": math.exp(mean), "token_accuracy": right / tokens, "loss": mean}
        return Quality(metrics=metrics, examples=tokens)


def _left_out(batch: Mapping[str, Any]) -> Tensor:
    """Which tokens are not to be predicted: padding, and the first one behind it, which follows nothing."""
    tokens, mask = batch["input_ids"], batch.get("attention_mask")
    if mask is None:
        return torch.zeros_like(tokens, dtype=torch.bool)
    if mask.shape != tokens.shape:
        raise ShrinkbenchError(
            f"attention_mask is {describe(mask)} and input_ids {describe(tokens)}, so that it does not say "
            "which tokens are padding; give 'labels' beside them, with -100 where nothing is to be predicted"
        )
    unseen: Tensor = mask == 0
    return unseen | torch.nn.functional.pad(unseen[:, :-1], (1, 0))


def _require_attended(batch: Mapping[str, Any], targets: Any) -> None:
    """Refuse labels of padding: it is easily told, and perplexity would be of it too."""
    tokens, mask = batch["input_ids"], batch.get("attention_mask")
    if mask is None or mask.shape != tokens.shape or getattr(targets, "shape", None) != tokens.shape:
        return
    padding = int(((mask == 0) & (targets != NOT_PREDICTED))[:, 1:].sum())
    if padding:
        raise ShrinkbenchError(
            f"labels name {padding} tokens that attention_mask leaves out, and their perplexity would be of "
            f"padding; give {NOT_PREDICTED} there"
        )


_ROUNDING = 1e-5  # of the largest output; experts add up in another order where other tokens are beside
_HALVES = (torch.bfloat16, torch.float16)


def _require_causal(module: nn.Module, inputs: Inputs) -> None:
    """Raise where what is put out for the first half of a block changes with the second half."""
    one = inputs.part(0, 1)
    named = one.kwargs.get("input_ids")
    found = [t for t in tensors_in((one.args, dict(one.kwargs)) if named is None else named) if _are_tokens(t)]
    if not found:
        return
    tokens, middle = found[0], found[0].shape[1] // 2
    first, old = tokens[:, :1], tokens[:, middle:]
    changed = tokens.clone()
    changed[:, middle:] = torch.where(first != old, first, torch.where(first > 0, first - 1, first + 1))
    altered = one.map(lambda t: changed if t is tokens else t)
    leak = _leak(module, one, altered, middle)
    if leak is not None and leak > _ROUNDING and any(p.dtype in _HALVES for p in module.parameters()):
        leak = _leak(copy_of(module).float(), one, altered, middle)  # whether it was more than rounding
    if leak is not None and leak > _ROUNDING:
        raise ShrinkbenchError(
            "what the network puts out before tokens changes with these: it is no causal language model, "
            "and its perplexity would be of tokens that it sees; give one, or another task"
        )


def _leak(module: nn.Module, one: Inputs, altered: Inputs, middle: int) -> float | None:
    """Largest change before token ``middle``, of the largest output there; ``None`` where none can be told."""
    before, after = (first_tensor(called(module, each)) for each in (one, altered))
    if before.dim() != 3 or before.shape[1] <= middle:
        return None
    before, after = (each[:, :middle].float() for each in (before, after))
    if not bool(torch.isfinite(before).all()):
        return None
    change = float((after - before).abs().max())
    return change / max(float(before.abs().max()), torch.finfo(torch.float32).tiny) if change else 0.0


def _are_tokens(tensor: Tensor) -> bool:
    return tensor.dtype == torch.int64 and tensor.dim() == 2 and tensor.shape[1] > 1


def _predictions(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Logits (tokens, vocabulary) of every token but each block's last, and the tokens that follow."""
    logits = first_tensor(outputs)
    if getattr(outputs, "last_hidden_state", None) is logits:
        raise ShrinkbenchError(
            "the network returns hidden states (last_hidden_state) and no logits, of which no perplexity can "
            "be told; give the model with its head, as AutoModelForCausalLM has it"
        )
    fits = isinstance(targets, Tensor) and logits.dim() == 3 and logits.shape[:2] == targets.shape
    if not fits or targets.dtype != torch.int64:
        raise ShrinkbenchError(
            f"language modelling takes logits (N, T, vocabulary) and tokens (N, T) as int64, and here are "
            f"{describe(logits)} and {describe(targets)}; give a causal language model, or another task"
        )
    following = targets[:, 1:].reshape(-1)
    vocabulary = logits.shape[2]
    unknown = following[(following != NOT_PREDICTED) & ((following < 0) | (following >= vocabulary))]
    if unknown.numel():
        raise ShrinkbenchError(
            f"the token {int(unknown.max())} is none of the {vocabulary} that the network tells apart; give "
            f"a network made for this vocabulary, and {NOT_PREDICTED} where nothing is to be predicted"
        )
    return logits[:, :-1].reshape(-1, vocabulary), following


TASKS.add(LANGUAGE_MODELLING.name, lambda *_: LanguageModelling())
