"""Gradients and curvature of a network's loss, computed on the side.

Every function takes ``weights`` (the parameters to differentiate by) and leaves the module untouched: it runs
a functional copy that shares the weights' storage, with its own buffers and no gradient fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.calling import call_with
from shrinkbench.network.probe import evaluation_mode, first_tensor
from shrinkbench.network.view import Batches, Loss

HESSIAN_PARTS = 4
EXACT_CLASSES = 16  # up to here each direction of the output is taken, above it one random mixture per image


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Whatever is drawn from the global random state inside, it is as before afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def _mode(module: nn.Module, *, batch_statistics: bool) -> Iterator[None]:
    with evaluation_mode(module):
        if batch_statistics:
            for child in module.modules():
                if isinstance(child, nn.modules.batchnorm._BatchNorm):
                    child.train()
        yield


def logits_of(
    module: nn.Module, leaves: Mapping[str, Tensor], inputs: Tensor, *, batch_statistics: bool = False
) -> Tensor:
    """Logits of ``inputs`` with ``leaves`` in place of the parameters of the same names."""
    others = {name: p.detach() for name, p in module.named_parameters() if name not in leaves}
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    with _mode(module, batch_statistics=batch_statistics), random_state_kept(inputs.device):
        output = call_with(module, {**others, **buffers, **leaves}, (inputs,))
    return first_tensor(output)


def _leaves(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: w.detach().requires_grad_() for name, w in weights.items()}


def _gradients(output: Tensor, leaves: Mapping[str, Tensor], *, retain: bool = False) -> dict[str, Tensor]:
    """d ``output`` / d leaf in float32 or better; zero where the output does not depend on it."""
    found = torch.autograd.grad(output, list(leaves.values()), allow_unused=True, retain_graph=retain)
    return {
        name: _widen(torch.zeros_like(leaf) if gradient is None else gradient)
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class _Sums:
    """Gradients of several scalars, added up where autograd puts them, so that there is one copy only."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights
        self.leaves = _leaves(weights)
        self._wide: dict[str, Tensor] = {}

    def add(self, scalar: Tensor) -> None:
        """Add d ``scalar`` / d leaf."""
        if scalar.requires_grad:
            torch.autograd.backward(scalar, inputs=list(self.leaves.values()))
        for name, leaf in self.leaves.items():  # half precision is too narrow to add up in
            if leaf.grad is not None and leaf.dtype in (torch.float16, torch.bfloat16):
                self._wide[name] = self._wide.get(name, 0) + leaf.grad.float()
                leaf.grad = None

    def mean(self, count: int) -> dict[str, Tensor]:
        """The sums over ``count``."""
        means = {}
        for name, leaf in self.leaves.items():
            total = self._wide.get(name, leaf.grad)
            means[name] = _widen(torch.zeros_like(leaf)) if total is None else total.detach().div_(count)
        return means


def in_parts(batches: Batches, parts: int, least: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each batch in up to ``parts`` equal parts of ``least`` images at least."""
    for inputs, labels in batches:
        count = max(min(parts, len(labels) // least), 1)
        yield from zip(inputs.chunk(count), labels.chunk(count), strict=True)


def _least(module: nn.Module, *, batch_statistics: bool) -> int:
    """Images without which a part has no statistics."""
    norms = (child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm))
    return 2 if batch_statistics and next(norms, None) is not None else 1


def mean_gradients(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    batches: Batches,
    loss: Loss,
    *,
    batch_statistics: bool = False,
    parts: int = 1,
) -> dict[str, Tensor]:
    """Mean over all images of d loss / d weight; ``loss`` is a mean over its batch."""
    sums = _Sums(weights)
    images = 0
    for inputs, labels in in_parts(batches, parts, _least(module, batch_statistics=batch_statistics)):
        with torch.enable_grad():
            logits = logits_of(module, sums.leaves, inputs, batch_statistics=batch_statistics)
            sums.add(loss(logits, labels) * len(labels))
        images += len(labels)
    return sums.mean(images)


def image_gradients(
    module: nn.Module, weights: Mapping[str, Tensor], batches: Batches, loss: Loss
) -> Iterator[dict[str, Tensor]]:
    """d loss / d weight of one image after another.

    One pass per image: memory for a single gradient, and batch norm in evaluation mode makes images
    independent.
    """
    for inputs, labels in batches:
        for i in range(len(labels)):
            yield from lent(mean_gradients(module, weights, [(inputs[i : i + 1], labels[i : i + 1])], loss))


def lent(gradients: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The dictionary, emptied once the next is asked for: who loops over many still names the last one."""
    yield gradients
    gradients.clear()


def output_gradients(
    module: nn.Module, weights: Mapping[str, Tensor], batches: Batches, loss: Loss, *, images: int
) -> Iterator[dict[str, Tensor]]:
    """For each of the first ``images``, ``J' r`` for every column r of a root of the loss's curvature there.

    The mean over images of the sum of their outer products is the generalised Gauss-Newton matrix, which is
    the Hessian for a network that is linear in its weights. With more than 16 classes one random mixture of
    the columns is taken per image, which has the same expectation.
    """
    generator = torch.Generator().manual_seed(0)
    singles = ((x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(len(y)))
    for inputs, labels in islice(singles, images):
        leaves = _leaves(weights)
        with torch.enable_grad():
            logits = logits_of(module, leaves, inputs)
            directions = _curvature_root(loss, logits.detach(), labels)
            if logits.shape[1] > EXACT_CLASSES:
                signs = torch.randint(0, 2, (directions.shape[1], 1), generator=generator)
                directions = directions @ (2.0 * signs - 1).to(directions)
            slopes = [(logits[0] * direction).sum() for direction in directions.T]
        for slope in slopes:
            yield from lent(_gradients(slope, leaves, retain=slope is not slopes[-1]))


def _curvature_root(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Columns r_k with ``sum_k r_k r_k' = d^2 loss / d logits^2`` of one image, (classes, rank)."""
    hessian = torch.func.hessian(lambda z: loss(z.unsqueeze(0), labels))(logits[0].double())
    values, vectors = torch.linalg.eigh(hessian)
    used = values > values.max().clamp(min=0) * 1e-9
    if not bool(used.any()):
        raise ShrinkbenchError("the loss is linear in the logits; OBS needs a loss that curves")
    root: Tensor = vectors[:, used] * values[used].sqrt()
    return root.to(logits.dtype)


def hessian_product(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    batches: Batches,
    loss: Loss,
    vectors: Mapping[str, Tensor],
    *,
    batch_statistics: bool = False,
) -> dict[str, Tensor]:
    """Hessian of the mean loss over all images times ``vectors``, by differentiating twice.

    Booleans are signs: 1 where they hold, -1 elsewhere.

    Each batch is treated in parts: the second differentiation holds more than twice the activations. With
    ``batch_statistics`` the loss is that of the parts, as :func:`mean_gradients` has it for equal ``parts``.
    """
    sums = _Sums(weights)
    images = 0
    least = _least(module, batch_statistics=batch_statistics)
    for inputs, labels in in_parts(batches, HESSIAN_PARTS, least):
        # Fused attention has no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            logits = logits_of(module, sums.leaves, inputs, batch_statistics=batch_statistics)
            sums.add(_slope(loss(logits, labels) * len(labels), sums.leaves, vectors))
        images += len(labels)
    return sums.mean(images)


def _slope(scalar: Tensor, leaves: Mapping[str, Tensor], vectors: Mapping[str, Tensor]) -> Tensor:
    """Derivative of ``scalar`` along ``vectors``, as a graph that no longer holds the gradient itself."""
    gradients = torch.autograd.grad(scalar, list(leaves.values()), allow_unused=True, create_graph=True)
    return torch.stack(
        [_product(g, vectors[n]) for n, g in zip(leaves, gradients, strict=True) if g is not None]
    ).sum()


def _product(gradient: Tensor, vector: Tensor) -> Tensor:
    """Inner product; the graph keeps a vector of signs as it is, a byte per weight."""
    if vector.dtype == torch.bool:
        return torch.where(vector, gradient, -gradient).sum()
    return (gradient * vector.to(gradient)).sum()
