"""NPB (Pham et al. 2023): masks that keep many paths and many units that lie on one, layer by layer.

How many weights of each kernel stay is a linear program. Its constraints are those of a flow from inputs over
kernels to outputs, so that a vertex of it is whole and no integers have to be asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy
import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.unit_paths import PathLayer, read_paths, unpassed_error
from shrinkbench.pruning.allocations.rules import (
    erdos_renyi_kernel,
    erdos_renyi_shares,
    keep_at_least,
    keep_counts,
    layerwise_counts,
)
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.schedules.before_training import at_initialisation
from shrinkbench.pruning.units import Units

_ALPHA, _BETA = 0.7, 1e-3  # of the authors' code: units against paths, and kernels that have any weight
_CELLS = 1 << 13  # kernels of one linear program
_LARGE = 1e100


def balance(paths: Tensor, most: Tensor, count: int) -> Tensor:
    """How many weights stay of each kernel (inputs, outputs): ``count`` in all, each ``most`` at most.

    The largest ``alpha A + (1 - alpha) B + beta R``, alpha = 0.7, beta = 0.001: A the share of inputs and
    outputs on a path; B the paths that stay over the most that could; R the kernels with a weight over
    ``count``. ``paths`` lead to each input.

    >>> balance(torch.tensor([1.0, 3.0]), torch.tensor([[1, 1], [1, 1]]), 2).tolist()
    [[1, 0], [0, 1]]
    """
    inputs, outputs = most.shape
    if count <= 0 or count >= int(most.sum()):
        return most.clone() if count > 0 else torch.zeros_like(most)
    p, room = paths.double().numpy(), most.double().numpy()
    p = p / max(p.max(), 1e-300)
    order = np.argsort(-p, kind="stable")
    taken = np.diff(np.minimum(np.cumsum(room.sum(1)[order]), count), prepend=0)
    best = max(float(p[order] @ taken), 1e-300)
    along = np.repeat((1 - _ALPHA) * p / best, outputs)
    units = np.full(inputs + outputs, _ALPHA / (inputs + outputs))
    gain = np.concatenate([along + _BETA / count, along, units])
    first = np.minimum(room, 1).ravel()
    bounds = np.concatenate([first, room.ravel() - first, p > 0, np.ones(outputs)])
    rows = scipy.sparse.kron(scipy.sparse.eye_array(inputs), np.ones((1, outputs)))
    columns = scipy.sparse.kron((p > 0).astype(float)[None], scipy.sparse.eye_array(outputs))
    sums = scipy.sparse.vstack([rows, columns])
    covered = scipy.sparse.hstack([-sums, -sums, scipy.sparse.eye_array(inputs + outputs)], format="csr")
    spent = np.concatenate([np.ones(2 * inputs * outputs), np.zeros(inputs + outputs)])[None]
    found = scipy.optimize.linprog(  # type: ignore[call-overload]  # the stubs know no sparse matrices
        -gain,
        A_ub=covered,
        b_ub=np.zeros(inputs + outputs),
        A_eq=spent,
        b_eq=[count],
        bounds=np.stack([np.zeros_like(bounds), bounds], 1),
        method="highs-ds",
    )
    cells = inputs * outputs
    values = None if found.x is None else found.x[:cells] + found.x[cells : 2 * cells]
    if values is None or np.abs(values - values.round()).max() > 1e-6:
        raise ShrinkbenchError(
            f"the linear program of {inputs} x {outputs} kernels has no whole solution ({found.message[:80]}); "
            "choose another method, such as synflow"
        )
    return torch.from_numpy(values.round()).reshape(inputs, outputs).to(most.dtype)


def _in_parts(paths: Tensor, most: Tensor, count: int) -> Tensor:
    """:func:`balance` for so many outputs at a time that a program stays small, each with its share."""
    width = max(_CELLS // len(most), 1)
    parts = most.split(width, dim=1)
    rooms = torch.tensor([0, *(int(part.sum()) for part in parts)]).cumsum(0)
    ends = (rooms.double() * count / max(int(rooms[-1]), 1)).round().long()
    counts = ends.diff().tolist()
    return torch.cat([balance(paths, part, n) for part, n in zip(parts, counts, strict=True)], dim=1)


def _mask(layer: PathLayer, weight: Tensor, gone: Tensor, paths: Tensor, count: int) -> Tensor:
    """The mask of one layer as (outputs, inputs per group, positions); the largest of each kernel stay."""
    size = layer.rows(weight.abs().double()).masked_fill(layer.rows(gone), -torch.inf)
    most = (size > -torch.inf).sum(2).reshape(layer.geometry.groups, layer.height, layer.width)
    led = paths.reshape(layer.geometry.groups, layer.width)
    rooms = torch.tensor([0, *most.flatten(1).sum(1).tolist()]).cumsum(0)
    counts = (rooms.double() * count / max(int(rooms[-1]), 1)).round().long().diff().tolist()
    numbers = torch.cat([_in_parts(led[group], most[group].T, n).T for group, n in enumerate(counts)])
    ranks = size.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    return ranks < numbers.unsqueeze(2)


class _Paths:
    """Paths that lead to each output of the layers so far; only their proportions mean anything."""

    def __init__(self) -> None:
        self._made: dict[str, Tensor] = {}
        self._one = 1.0

    def led(self, layer: PathLayer) -> Tensor:
        """To each input of ``layer``; one to each input of the network."""
        found = torch.zeros(layer.inputs, dtype=torch.float64)
        known = torch.zeros(layer.inputs, dtype=torch.bool)
        for edge in layer.sources:
            inputs = (edge.made.counts > 0).nonzero().squeeze(1)
            found[inputs] += self._made[edge.source][edge.made.items[edge.made.starts[inputs]]]
            known[inputs] = True
        return torch.where(known, found, self._one)

    def note(self, layer: PathLayer, mask: Tensor, led: Tensor) -> None:
        """What leads on from ``layer`` when ``mask`` stays."""
        groups = layer.geometry.groups
        kernels = mask.sum(2).double().reshape(groups, layer.height, layer.width)
        made = torch.einsum("gow,gw->go", kernels, led.reshape(groups, layer.width)).flatten()
        self._made[layer.name] = made
        if made.max() > _LARGE:
            scale = float(made.max())
            self._made = {name: values / scale for name, values in self._made.items()}
            self._one /= scale


@pruning_method(
    "npb",
    kind="other",
    allocation=erdos_renyi_kernel,
    schedule=at_initialisation,
    reference="pham2023towards",
)
@decides("allocation")
def balanced_paths(ctx: PruneContext) -> Masks:
    """Per layer the kernels of the most paths and of the most units on a path (see :func:`balance`).

    Densities of layers are those of Erdos-Renyi kernels. Layer by layer paths are counted through what stays of
    the layers before it, over channels and kernel positions; of a kernel the largest weights stay.
    """
    if ctx.structure.name != "weights":
        raise ShrinkbenchError(
            f"this method keeps single weights of kernels, not '{ctx.structure.name}'; choose the structure "
            "weights"
        )
    layers = read_paths(ctx.module, ctx.example)
    other = [name for name, w in ctx.weights.items() if name not in layers and w.dim() > 1]
    if other:
        raise unpassed_error(ctx.module, other[0])
    alive = {name: Units(_magnitudes(ctx, name)) for name in ctx.weights}
    least = {name: keep_at_least(units, 1) for name, units in alive.items()}
    reason = "one weight of every layer stays"
    counts = layerwise_counts(least, ctx.budget, ctx, reason, erdos_renyi_shares)
    found = _layers(ctx, layers, counts)
    rest = {name: units for name, units in alive.items() if name not in found}
    return Masks({**found, **keep_counts(rest, counts)})


def _magnitudes(ctx: PruneContext, name: str) -> Tensor:
    return ctx.weights[name].abs().masked_fill(ctx.removed(name), -torch.inf)


def _layers(ctx: PruneContext, layers: Mapping[str, PathLayer], counts: Mapping[str, int]) -> dict[str, Tensor]:
    paths, found = _Paths(), {}
    for name, layer in layers.items():
        led = paths.led(layer)
        mask = torch.ones(layer.outputs, layer.width, layer.kernel, dtype=torch.bool)
        if name in ctx.weights:
            mask = _mask(layer, ctx.weights[name], ctx.removed(name), led, counts[name])
            found[name] = layer.restore(mask).to(ctx.weights[name].device)
        paths.note(layer, mask, led)
    return found
