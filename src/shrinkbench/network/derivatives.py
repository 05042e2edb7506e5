"""Gradients and curvature of a network's loss, computed on the side.

Every function takes ``weights`` (the parameters to differentiate by) and leaves the module untouched: it runs
a functional copy that shares the weights' storage, with its own buffers and no gradient fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from shrinkbench.errors import ShrinkbenchError, one_line, said_of
from shrinkbench.network.calling import call_with, is_of_a_device
from shrinkbench.network.inputs import Batch, Inputs, describe, range_of, split_batch
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


def outputs_of(
    module: nn.Module, leaves: Mapping[str, Tensor], inputs: Inputs, *, batch_statistics: bool = False
) -> Any:
    """What ``module`` returns for ``inputs`` with ``leaves`` in place of the parameters of the same names."""
    others = {name: p.detach() for name, p in module.named_parameters() if name not in leaves}
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    with _mode(module, batch_statistics=batch_statistics), random_state_kept(inputs.device):
        try:
            return call_with(module, {**others, **buffers, **leaves}, *inputs.bound(module))
        except TypeError as error:
            reason = (str(error).strip() or "TypeError").splitlines()[0][:110]
            raise ShrinkbenchError(
                f"the network does not take the inputs {inputs} of the batches ({reason}); a dictionary names "
                "arguments: for one that is an argument itself write (({...},), targets)"
            ) from error
        except IndexError as error:
            raise ShrinkbenchError(
                f"the network does not take the inputs {inputs}{range_of(inputs)} of the batches ({error}); "
                "give numbers that its tables have, in blocks that are no longer than it takes"
            ) from error


def loss_of(loss: Loss, outputs: Any, targets: Any) -> Tensor:
    """``loss`` of what a network returns: torch's own losses take the logits, any other takes it as it is."""
    if targets is None:
        raise ShrinkbenchError(
            "this method scores by gradients of the loss, and the batches hold no targets; let them be "
            "(inputs, targets), or dictionaries with 'labels'"
        )
    outputs = first_tensor(outputs) if _takes_logits(loss) else outputs
    try:
        found = loss(outputs, targets)
    except ShrinkbenchError:
        raise
    except Exception as error:  # whatever a loss raises for what it was not made for
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:110]
        raise ShrinkbenchError(
            f"the loss does not take outputs {describe(outputs)} with targets {describe(targets)} ({reason}); "
            "give one that does as loss="
        ) from error
    if not isinstance(found, Tensor) or found.dim() or not found.is_floating_point():
        raise ShrinkbenchError(
            f"the loss gives {describe(found)}, and gradients are of one real number; return a batch's mean"
        )
    return found


def _takes_logits(loss: Loss) -> bool:
    plain: Any = loss.func if isinstance(loss, partial) else loss
    named = getattr(nn.functional, getattr(plain, "__name__", ""), None)
    return isinstance(plain, nn.modules.loss._Loss) or named is plain


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

    @property
    def reached(self) -> bool:
        """Whether any scalar depended on any of the weights."""
        return bool(self._wide) or any(leaf.grad is not None for leaf in self.leaves.values())

    def mean(self, count: int) -> dict[str, Tensor]:
        """The sums over ``count``."""
        means = {}
        for name, leaf in self.leaves.items():
            total = self._wide.get(name, leaf.grad)
            means[name] = _widen(torch.zeros_like(leaf)) if total is None else total.detach().div_(count)
        return means


def in_parts(batches: Batches, parts: int, least: int) -> Iterator[Batch]:
    """Each batch in up to ``parts`` equal parts of ``least`` examples at least."""
    for batch in map(split_batch, batches):
        yield from batch.parts(max(min(parts, len(batch) // least), 1))


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
    for part in in_parts(batches, parts, _least(module, batch_statistics=batch_statistics)):
        with torch.enable_grad():
            outputs = _outputs_of_part(module, sums.leaves, part.inputs, batch_statistics=batch_statistics)
            sums.add(loss_of(loss, outputs, part.targets) * len(part))
        images += len(part)
    if images and not sums.reached:
        raise independent_loss()
    return sums.mean(images)


def _outputs_of_part(
    module: nn.Module, leaves: Mapping[str, Tensor], inputs: Inputs, *, batch_statistics: bool = False
) -> Any:
    """:func:`outputs_of` of examples of a batch that the network takes as a whole, and perhaps not in parts."""
    try:
        return outputs_of(module, leaves, inputs, batch_statistics=batch_statistics)
    except (ShrinkbenchError, ValueError, IndexError, KeyError, AssertionError, RuntimeError) as error:
        # Whole batches have run: places in rows that are cut off, as of a graph's nodes, are beyond no table.
        cut = error.__cause__ if isinstance(error.__cause__, IndexError) else None
        if cut is None and (isinstance(error, ShrinkbenchError) or is_of_a_device(error)):
            raise
        how = ", with the statistics of the batch" if batch_statistics else ""
        raise ShrinkbenchError(
            f"this method runs the network on {one_line(str(inputs), 60)}{how}, and it fails "
            f"({one_line(said_of(cut or error), 90)}); give batches of more examples, of which each goes with "
            "one row of every input, or choose another method"
        ) from error


def independent_loss() -> ShrinkbenchError:
    """The error for a loss of which every gradient is zero, whatever the weights: all scores would be equal."""
    return ShrinkbenchError(
        "the loss does not depend on any weight that may be pruned, so that gradients tell nothing; "
        "give as loss= one of the network's outputs, without .detach(), .item() or argmax"
    )


def image_gradients(
    module: nn.Module, weights: Mapping[str, Tensor], batches: Batches, loss: Loss
) -> Iterator[dict[str, Tensor]]:
    """d loss / d weight of one image after another.

    One pass per image: memory for a single gradient, and batch norm in evaluation mode makes images
    independent.
    """
    for one in _singles(batches):
        yield from lent(mean_gradients(module, weights, [one], loss))


def _singles(batches: Batches) -> Iterator[Batch]:
    for batch in map(split_batch, batches):
        yield from (batch.part(i, i + 1) for i in range(len(batch)))


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
    the columns is taken per image, which has the same expectation. An image whose loss does not curve gives
    nothing; where that is so of all, there is an error. A cross-entropy curves whatever the labels are, and
    takes batches without any.
    """
    generator, curved = torch.Generator().manual_seed(0), False
    for one in islice(_singles(batches), images):
        leaves = _leaves(weights)
        with torch.enable_grad():
            logits = first_tensor(_outputs_of_part(module, leaves, one.inputs))
            if logits.dim() != 2:
                raise ShrinkbenchError(
                    "this method follows the curvature of the loss in outputs of shape (examples, outputs), "
                    f"and the network gives {describe(logits)}; choose another method"
                )
            directions = _curvature_root(loss, logits.detach(), _labels(loss, logits, one.targets))
            if logits.shape[1] > EXACT_CLASSES and directions.shape[1]:
                signs = torch.randint(0, 2, (directions.shape[1], 1), generator=generator)
                directions = directions @ (2.0 * signs - 1).to(directions)
            slopes = [(logits[0] * direction).sum() for direction in directions.T]
        for slope in slopes:
            yield from lent(_gradients(slope, leaves, retain=slope is not slopes[-1]))
        curved = curved or bool(slopes)
    if not curved:
        raise ShrinkbenchError(
            "the loss of no image curves in its logits (linear, or too far apart), which this method needs; "
            "choose another method"
        )


def _labels(loss: Loss, logits: Tensor, given: Any) -> Any:
    """The labels, or any where there are none and the loss curves in the same way whatever they are."""
    return logits.detach().argmax(1) if given is None and loss is nn.functional.cross_entropy else given


def _curvature_root(loss: Loss, logits: Tensor, labels: Any) -> Tensor:
    """Columns r_k with ``sum_k r_k r_k' = d^2 loss / d logits^2`` of one image, (classes, rank).

    None where the loss does not curve: it is linear, or the logits are too far apart.
    """
    hessian = torch.func.hessian(lambda z: loss_of(loss, z.unsqueeze(0), labels))(logits[0].double())
    values, vectors = torch.linalg.eigh(hessian)
    used = values > values.max().clamp(min=torch.finfo(values.dtype).tiny) * 1e-9
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
    for part in in_parts(batches, HESSIAN_PARTS, least):
        # Fused attention has no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            outputs = outputs_of(module, sums.leaves, part.inputs, batch_statistics=batch_statistics)
            sums.add(_slope(loss_of(loss, outputs, part.targets) * len(part), sums.leaves, vectors))
        images += len(part)
    return sums.mean(images)


def _slope(scalar: Tensor, leaves: Mapping[str, Tensor], vectors: Mapping[str, Tensor]) -> Tensor:
    """Derivative of ``scalar`` along ``vectors``, as a graph that no longer holds the gradient itself."""
    if not scalar.requires_grad:
        raise independent_loss()
    gradients = torch.autograd.grad(scalar, list(leaves.values()), allow_unused=True, create_graph=True)
    products = [_product(g, vectors[n]) for n, g in zip(leaves, gradients, strict=True) if g is not None]
    if not products:
        raise independent_loss()
    return torch.stack(products).sum()


def _product(gradient: Tensor, vector: Tensor) -> Tensor:
    """Inner product; the graph keeps a vector of signs as it is, a byte per weight."""
    if vector.dtype == torch.bool:
        return torch.where(vector, gradient, -gradient).sum()
    return (gradient * vector.to(gradient)).sum()
