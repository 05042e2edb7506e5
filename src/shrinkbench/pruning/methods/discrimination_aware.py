"""Discrimination-aware channel pruning (Zhuang et al. 2018): losses at intermediate layers choose channels.

The layers that read channels are taken in stages. In each, the network trains with a further loss, that of a
classifier on the maps of the stage's last layer; then every layer of the stage takes up, greedily, the inputs
by which this loss and the error of its own outputs fall fastest. The last stage has the final loss alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import couple
from shrinkbench.network.derivatives import loss_of, outputs_of
from shrinkbench.network.inputs import Batch, split_batch
from shrinkbench.network.weights import layer_of
from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.methods.thinet_and_regression import (
    alive_units,
    kept_counts,
    prune_by_readers,
    require_rows,
)
from shrinkbench.pruning.schedules.beside import Beside
from shrinkbench.pruning.schedules.hook import PruningHook
from shrinkbench.pruning.schedules.schedule import SCHEDULES, Schedule, once
from shrinkbench.pruning.structures.channels import Reader, chained_channels, readers

LOSSES = 3  # beside the final one
BATCHES = 4
_CHOICES = 8  # in how many portions a layer takes up its inputs
_RATE = 0.01
_KINDS = ("gain", "shift", "classes", "offset")


def stages(chosen: Sequence[Reader]) -> list[list[Reader]]:
    """The readers in the order in which they run, in up to four stages of as many each."""
    count = min(LOSSES + 1, len(chosen))
    ends = [len(chosen) * n // count for n in range(count + 1)]
    return [list(chosen[start:end]) for start, end in pairwise(ends)]


@dataclass(frozen=True)
class Classifier:
    """``softmax(classes f + offset)`` with f the mean over positions of ``relu(gain n + shift)``.

    n are the maps of ``layer``, normalised by mean and deviation of each channel over the batch.
    """

    layer: str
    gain: Tensor
    shift: Tensor
    classes: Tensor
    offset: Tensor

    def loss(self, maps: Tensor, targets: Any, *, last: bool) -> Tensor:
        """Cross-entropy in nats; ``last`` tells that channels are the last dimension."""
        labels = isinstance(targets, Tensor) and targets.dim() == 1 and not targets.is_floating_point()
        if not labels or len(targets) != len(maps):
            raise ShrinkbenchError(
                "discrimination-aware pruning tells classes apart at intermediate layers, and the targets are "
                "not labels, one for each example; choose another method"
            )
        maps = maps.float()
        rows = maps.flatten(1, -2).transpose(1, 2) if last and maps.dim() > 2 else maps.flatten(2)
        rows = rows.unsqueeze(2) if rows.dim() == 2 else rows
        mean, variance = rows.mean((0, 2), keepdim=True), rows.var((0, 2), keepdim=True, unbiased=False)
        normal = (rows - mean) / (variance + 1e-5).sqrt()
        features = (normal * self.gain[:, None] + self.shift[:, None]).relu().mean(2)
        return F.cross_entropy(F.linear(features, self.classes, self.offset), targets)


class _Seen:
    """Outputs of layers, while ``with`` lasts."""

    def __init__(self, module: nn.Module, layers: set[str]) -> None:
        self._module, self._layers = module, layers
        self.maps: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> dict[str, Tensor]:
        for layer in self._layers:

            def keep(_: nn.Module, args: object, outputs: Tensor, layer: str = layer) -> None:
                self.maps[layer] = outputs

            self._handles.append(self._module.get_submodule(layer).register_forward_hook(keep))
        return self.maps

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def _is_last(module: nn.Module, layer: str) -> bool:
    return isinstance(module.get_submodule(layer), nn.Linear)


def joint_loss(
    ctx: PruneContext, reader: Reader, values: Mapping[str, Tensor], batch: Batch, classifier: Classifier | None
) -> Tensor:
    """``mean square of O - O' / 2 + loss``: O' what the reader gives with ``values``, O what it gave.

    The loss is that of ``classifier``, without one the final one.
    """
    layer = layer_of(reader.weight)
    with torch.no_grad(), _Seen(ctx.module, {layer}) as before:
        outputs_of(ctx.module, {}, batch.inputs)
    wanted = before[layer].detach()
    places = {layer} if classifier is None else {layer, classifier.layer}
    with _Seen(ctx.module, places) as now:
        outputs = outputs_of(ctx.module, values, batch.inputs)
    error = (now[layer].float() - wanted.float()).square().mean() / 2
    if classifier is None:
        return error + loss_of(ctx.loss, outputs, batch.targets)
    maps = now[classifier.layer]
    return error + classifier.loss(maps, batch.targets, last=_is_last(ctx.module, classifier.layer))


def take_up(
    ctx: PruneContext, reader: Reader, keep: int, values: Mapping[str, Tensor], classifier: Classifier | None
) -> tuple[Tensor, Tensor]:
    """From no input on, those with the largest ``||dL/dW_j||`` come in, in eight portions; then W takes a step.

    What comes in has the weights that the network has; a step is one of gradient descent for each batch.
    """
    weight, like = ctx.weights[reader.weight], ctx.parameters[reader.weight]
    unit = reader.unit.to(weight.device)
    others = {name: value.to(ctx.parameters.get(name, value)) for name, value in values.items()}

    def slope_of(now: Tensor, batch: Batch) -> Tensor:
        leaf = now.to(like.dtype).requires_grad_()
        with torch.enable_grad():
            loss = joint_loss(ctx, reader, {**others, reader.weight: leaf}, batch, classifier)
            (found,) = torch.autograd.grad(loss, leaf)
        return found.to(weight)

    chosen = ~alive_units(ctx, reader).to(weight.device)  # what is gone is never taken up
    gone = chosen.clone()
    now = torch.zeros_like(weight)
    left, portion = keep, -(-keep // _CHOICES)
    while left:
        slope = torch.zeros_like(weight)
        for batch in ctx.each_batch():
            slope += slope_of(now, batch) * len(batch)
        squares = weight.new_zeros(reader.units, dtype=torch.float64)
        squares.index_add_(0, unit, slope.transpose(0, 1).flatten(1).double().square().sum(1))
        best = squares.masked_fill(chosen, -1).argsort(descending=True, stable=True)[: min(portion, left)]
        chosen[best] = True
        left -= len(best)
        now = torch.where(_along(torch.isin(unit, best), weight), weight, now)
        open_ = _along((chosen & ~gone)[unit], weight)
        for batch in ctx.each_batch():
            now = now - _RATE * slope_of(now, batch) * open_
    return (chosen & ~gone).nonzero().flatten(), now


def _along(columns: Tensor, weight: Tensor) -> Tensor:
    return columns.view(1, -1, *[1] * (weight.dim() - 2))


class Discriminating(Beside):
    """Train with the loss of a classifier at a stage's last layer, on batches of its own; prune; and so on."""

    CONSTANTS: ClassVar[Mapping[str, float]] = {
        "travel": 1.0,
        "losses": LOSSES,
        "choices": _CHOICES,
        "rate": _RATE,
    }

    @classmethod
    def course(cls, target: float, progress: float) -> float | None:
        """As if all stages were of one size."""
        stages = cls.CONSTANTS["losses"] + 1
        return 1 / (1 + int(progress * stages + 1e-9) / stages * (1 / target - 1))

    @classmethod
    def when(cls) -> str:
        """By stages."""
        return f"in {cls.CONSTANTS['losses'] + 1:g} stages of it, the layers of each at its end"

    def place(self) -> None:
        """A classifier for every stage but the last."""
        setting = self.setting
        ctx = PruneContext(setting.module, setting.names, input_shape=setting.example)
        chosen = readers(ctx, couple(setting.module, setting.example))
        if not chosen:
            raise ShrinkbenchError(
                "no channels of this network are produced by one layer and read by one; choose a method of "
                "structure 'channels'"
            )
        require_rows(ctx, chosen)
        found = stages(chosen)
        self._ends = [layer_of(stage[-1].weight) for stage in found[:-1]]
        self._stage = 0
        self._drawn: tuple[int, list[Any]] = (-1, [])
        logits = sorted(ctx.flow.logits)
        if self._ends and len(logits) != 1:
            raise ShrinkbenchError(
                "discrimination-aware pruning puts classifiers like the last layer at intermediate ones, and "
                f"{len(logits)} layers of this network make its output; choose another method"
            )
        for layer, stage in zip(self._ends, found, strict=False):
            channels = len(setting.module.get_parameter(stage[-1].weight))
            classes = len(setting.module.get_parameter(logits[0]))
            for kind, shape, value in (
                ("gain", (channels,), 1.0),
                ("shift", (channels,), 0.0),
                ("classes", (classes, channels), 0.0),
                ("offset", (classes,), 0.0),
            ):
                self.add(kind, layer, shape, value, at=stage[-1].weight)

    def _make_optimizer(self) -> torch.optim.Adam:
        rate = self.CONSTANTS["travel"] * (len(self._ends) + 1) / self.setting.steps  # each in its own stage
        return torch.optim.Adam([*self._numbers.values()] or [torch.zeros(1, requires_grad=True)], lr=rate)

    def attach(self) -> list[RemovableHandle]:
        """Nothing: batches of its own go through the network."""
        return []

    def _batch(self, step: int) -> Batch:
        draw, per_draw = self.setting.draw, BATCHES
        if draw is None:
            raise ShrinkbenchError(
                "discrimination-aware pruning trains on labelled batches of its own, and there are none; pass "
                "batches="
            )
        number = (step - 1) // per_draw
        if self._drawn[0] != number:
            self._drawn = (number, list(islice(draw(number), per_draw)))
        device = next(iter(self.setting.parameters.values())).device
        batches = self._drawn[1]
        return split_batch(batches[(step - 1) % len(batches)]).to(device)

    def after_backward(self, step: int) -> None:
        """Add the gradients of the classifier's loss, and move the classifier."""
        if self._done or self._stage >= len(self._ends):
            return
        layer, module = self._ends[self._stage], self.setting.module
        classifier = Classifier(layer, *(self.of(kind, layer) for kind in _KINDS))
        leaves = {name: p for name, p in module.named_parameters() if p.requires_grad}
        batch = self._batch(step)
        batch = batch.to(classifier.gain.device, next(iter(leaves.values())).dtype)
        with torch.enable_grad(), _Seen(module, {layer}) as seen:
            outputs_of(module, leaves, batch.inputs, batch_statistics=True)
            loss = classifier.loss(seen[layer], batch.targets, last=_is_last(module, layer))
        numbers = [self.of(kind, layer) for kind in _KINDS]
        wanted = [*leaves.values(), *numbers]
        for tensor, gradient in zip(wanted, torch.autograd.grad(loss, wanted, allow_unused=True), strict=True):
            if gradient is not None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad.add_(gradient)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def after_step(self, step: int) -> None:
        """Uphold masks; at a stage's end, prune its layers."""
        PruningHook.after_step(self, step)
        count = len(self._ends) + 1
        while not self._done and step >= self.setting.steps * (self._stage + 1) // count:
            self._prune_stage()

    def _prune_stage(self) -> None:
        learned: dict[str, Tensor] = {}
        if self._stage < len(self._ends):
            layer = self._ends[self._stage]
            learned = {f"{kind}/{layer}": self.of(kind, layer).detach() for kind in _KINDS}
        amount = self.setting.amount
        masks = self.setting.decide(amount, masks=self.masks, learned=learned, iteration=self._stage)
        self.adopt(masks)
        self.adopt(Masks(dict(masks)))  # without the new values, which training moves from here on
        self._stage += 1
        self._done = self._stage > len(self._ends)

    def after_epoch(self, epoch: int) -> None:
        """Nothing: stages end with steps."""

    def state_dict(self) -> dict[str, Any]:
        """What else is kept, and the stage."""
        return {**super().state_dict(), "stage": self._stage}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._stage = state["stage"]


discriminative_stages = SCHEDULES.add(
    "discriminative-stages",
    Schedule(
        "discriminative-stages",
        "in four stages: train with a classifier at the stage's last layer, prune the stage; then fine-tune",
        once,
        during=Discriminating,
        train_after=True,
    ),
)


@pruning_method(
    "discrimination_aware",
    kind="gradient",
    structure=chained_channels,
    allocation=layerwise,
    schedule=discriminative_stages,
    needs=("data", "labels", "gradients"),
    batch_count=BATCHES,
    reference="zhuang2018discrimination",
)
@decides("structure", "allocation")
def most_discriminative(ctx: PruneContext) -> Masks:
    """``||dL/dW_j||`` of the inputs j not taken up yet, L the error of a layer's outputs + a loss behind it.

    With a trained classifier (:attr:`PruneContext.learned`) for the stage that it ends; with nothing learned in
    it, for the last stage, or for all of them without such a training, by the final loss.
    """
    _ = ctx.image_count  # without data there is nothing to do
    coupling = couple(ctx.module, ctx.example)
    chosen = readers(ctx, coupling)
    counts = kept_counts(ctx, coupling, chosen)
    classifier, now = None, chosen
    if ctx.learned is not None:
        found = stages(chosen)
        now = found[-1]
        if ctx.learned:
            layer = next(iter(ctx.learned)).partition("/")[2]
            now = next(stage for stage in found if layer_of(stage[-1].weight) == layer)
            device = ctx.weights[now[-1].weight].device
            classifier = Classifier(layer, *(ctx.learned[f"{kind}/{layer}"].to(device) for kind in _KINDS))

    def choose(
        ctx: PruneContext, reader: Reader, keep: int, values: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        return take_up(ctx, reader, keep, values, classifier)

    return prune_by_readers(ctx, choose, counts={reader.key: counts[reader.key] for reader in now})
