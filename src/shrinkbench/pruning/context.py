"""What a method may look at: weights, gradients and data, on demand and without a trace on the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.probe import evaluation_mode, first_tensor
from shrinkbench.pruning.masks import Masks

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]
Scores = Mapping[str, Tensor]  # parameter name -> tensor of the parameter's shape; higher = keep


class PruneContext:
    """One network at one moment of pruning.

    ``weights`` are the prunable parameters (detached, shared storage: do not write to them), ``masks`` what
    earlier rounds left, ``target`` the compression aimed at and ``iteration`` the round, from 0. ``gradients``
    and ``inputs`` are computed when first asked for, from at most ``batch_count`` batches.
    """

    def __init__(
        self,
        module: nn.Module,
        names: Iterable[str],
        *,
        batches: Batches | None = None,
        batch_count: int = 1,
        generator: torch.Generator | None = None,
        masks: Masks | None = None,
        target: float = 1.0,
        iteration: int = 0,
        loss: Loss = F.cross_entropy,
    ) -> None:
        self._module = module
        parameters = dict(module.named_parameters())
        self.weights: dict[str, Tensor] = {name: parameters[name].detach() for name in names}
        self.masks = masks or Masks({})
        self.target = target
        self.iteration = iteration
        self.generator = generator or torch.Generator().manual_seed(0)
        self._batches = batches
        self._batch_count = batch_count
        self._loss = loss

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """The batches that scoring may use, on the network's device."""
        if self._batches is None:
            raise ShrinkbenchError(
                "this method scores weights on data, and none was given; pass batches=, an iterable of "
                "(inputs, labels)"
            )
        taken = list(islice(self._batches, self._batch_count))
        if not taken:
            raise ShrinkbenchError("batches= is empty; this method needs at least one batch of data")
        device = next(iter(self.weights.values())).device
        return [(inputs.to(device), labels.to(device)) for inputs, labels in taken]

    @property
    def inputs(self) -> Tensor:
        """Inputs of the first batch, (N, ...)."""
        return self.batches[0][0]

    def uniform(self, like: Tensor) -> Tensor:
        """Independent draws from U[0, 1) in the shape of ``like``, from the run's own generator."""
        return torch.rand(like.shape, generator=self.generator).to(like.device)

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Mean over the images of d loss / d weight, for every prunable weight.

        The network runs in evaluation mode, as it will be used: no dropout noise, running statistics in batch
        norm. Nothing of it is written to: ``.grad``, buffers, modes, ``requires_grad`` and the global random
        state stay as they are. Batches are accumulated, not kept.
        """
        sums: dict[str, Tensor] = {}
        images = 0
        for inputs, labels in self.batches:
            gradients = self._gradients_of(inputs, labels)
            images += len(labels)
            for name, gradient in gradients.items():
                weighted = gradient.mul_(len(labels))
                sums[name] = sums[name].add_(weighted) if name in sums else weighted
        return {name: total.div_(images) for name, total in sums.items()}

    def _gradients_of(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        leaves = {name: w.clone().requires_grad_() for name, w in self.weights.items()}
        others = {name: p.detach() for name, p in self._module.named_parameters() if name not in self.weights}
        buffers = {name: b.clone() for name, b in self._module.named_buffers()}
        with evaluation_mode(self._module), torch.enable_grad(), torch.random.fork_rng():
            output = torch.func.functional_call(self._module, {**others, **leaves, **buffers}, (inputs,))
            loss = self._loss(first_tensor(output), labels)
            gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
        }
