"""Network Slimming (Liu et al. 2017): an L1 penalty on batch-norm scales while training, then the smallest go.

A unit is one channel of one batch norm. Where that batch norm and the layer behind it are all that follows a
filter, the filter leaves with it; where other layers read the same channel (pre-activation networks, dense
networks), only this batch norm and its reader lose it, which surgery turns into a channel selection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import Coupling, Group, couple
from shrinkbench.network.inputs import Example
from shrinkbench.network.view import NetworkView
from shrinkbench.pruning.allocations.per_layer import keep_of_all
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import PerLayer, decides, pruning_method
from shrinkbench.pruning.schedules.penalised import Penalised
from shrinkbench.pruning.schedules.schedule import SCHEDULES, Schedule, once
from shrinkbench.pruning.structures.channel_masks import masks_of_units
from shrinkbench.pruning.structures.channels import held_by, unit_scores, unit_sums, weights_per_unit
from shrinkbench.pruning.units import STRUCTURES, Grouping, Scores, Structure, Units, UnitScores

_BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class ScaledChannels:
    """The channels of one batch norm: ``group`` if they leave as a whole, and the weight that reads them.

    ``dim`` is the dimension of the reader's inputs: 0 in transposed convolutions.
    """

    norm: str
    reader: str
    dim: int
    group: Group | None

    def along(self, values: Tensor, weight: Tensor) -> Tensor:
        """One value per channel, in a shape that broadcasts to the reader's ``weight``."""
        return values.view([-1 if dim == self.dim else 1 for dim in range(weight.dim())])


def scaled_channels(module: nn.Module, coupling: Coupling) -> list[ScaledChannels]:
    """Batch norms that feed one layer alone, which reads all their channels; in the module's order."""
    readers = {norm: layer for layer, norm in coupling.feeding_norm.items() if _reads_all(module, layer)}
    own: dict[str, Group] = {}
    for group in coupling.free:
        norms = {layer for layer in group.layers("carries") if layer in readers}
        alone = len(norms) == 1 and len(group.layers("consumes")) == 1
        if alone and all(bool((s.unit >= 0).all()) for s in group.slices):
            own[norms.pop()] = group
    return [
        ScaledChannels(path, f"{readers[path]}.weight", _input_dim(module, readers[path]), own.get(path))
        for path, layer in module.named_modules()
        if path in readers and isinstance(layer, _BatchNorm) and layer.affine
    ]


def _reads_all(module: nn.Module, layer: str) -> bool:
    """Whether every output of ``layer`` reads every channel: not so in depthwise and grouped convolutions."""
    found = module.get_submodule(layer)
    return isinstance(found, nn.Linear) or getattr(found, "groups", 0) == 1


def _input_dim(module: nn.Module, layer: str) -> int:
    return 0 if getattr(module.get_submodule(layer), "transposed", False) else 1


def masks_of_scales(module: nn.Module, coupling: Coupling, keep: Mapping[str, Tensor]) -> Masks:
    """Masks that keep the channels ``keep[batch norm]`` (boolean)."""
    parameters = dict(module.named_parameters())
    masks = Masks({})
    for found in scaled_channels(module, coupling):
        if found.norm not in keep:
            continue
        stays = keep[found.norm].cpu()
        if not bool(stays.any()):
            raise ShrinkbenchError(f"all channels of '{found.norm}' would be removed; prune less")
        if found.group is not None:
            carried = next(s for s in found.group.slices if s.tensor == f"{found.norm}.weight")
            units = torch.zeros(found.group.units, dtype=torch.bool)
            units[carried.unit[stays]] = True
            masks = masks.intersect(masks_of_units(module, coupling, {found.group.layer: units}))
            continue
        weight = parameters[found.reader]
        columns = found.along(stays, weight).expand(weight.shape)
        both = {f"{found.norm}.weight": stays, f"{found.norm}.bias": stays, found.reader: columns}
        masks = masks.intersect(Masks({name: m.to(weight.device).clone() for name, m in both.items()}))
    return masks


def slimming_masks(module: nn.Module, input_shape: Example, fraction: float) -> Masks:
    """Remove the ``fraction`` of all channels with the smallest ``|scale|``, as the papers state their ratios.

    Of n channels, n - floor(n x fraction) stay, those of the largest scales over the whole network, and one at
    least in each layer. Raises ``ShrinkbenchError`` for networks without suitable batch norms.
    """
    coupling = couple(module, input_shape)
    scales = {norm: Units(scale) for norm, scale in _scales(module, coupling).items()}
    return masks_of_scales(module, coupling, keep_of_all(scales, fraction))


def _scales(module: nn.Module, coupling: Coupling) -> dict[str, Tensor]:
    found = {
        item.norm: module.get_submodule(item.norm).weight.detach().abs().float().cpu()  # type: ignore[operator]
        for item in scaled_channels(module, coupling)
    }
    if not found:
        raise ShrinkbenchError(
            "this network has no batch norm that feeds one layer alone which reads all its channels (a grouped "
            "convolution reads a part for each output); choose a method of structure 'channels'"
        )
    return found


def _group(ctx: NetworkView, scores: Scores) -> Grouping:
    coupling = couple(ctx.module, ctx.example)
    parameters = dict(ctx.module.named_parameters())
    units: dict[str, Units] = {}
    for found in scaled_channels(ctx.module, coupling):
        if not _may_leave(found, ctx):
            continue
        means, scored = _mean_scores(found, scores, parameters)
        weight = parameters[found.reader]
        size = weight.numel() // weight.shape[found.dim] + 2
        units[found.norm] = Units(
            means,
            size if found.group is None else weights_per_unit(found.group, parameters),
            least=1,
            scored=scored,
        )
    if not units:
        _scales(ctx.module, coupling)  # says why
        raise ShrinkbenchError(
            "no layer around a batch norm of this network may be pruned; ignore fewer layers, or choose "
            "another method"
        )

    def expand(keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(masks_of_scales(ctx.module, coupling, keep))

    return Grouping(units, expand)


def _mean_scores(
    found: ScaledChannels, scores: Scores, parameters: Mapping[str, Tensor]
) -> tuple[Tensor, int | Tensor]:
    """Mean score of the weights that read each channel, and how many; where these stay, of its filters.

    A classifier is not prunable, but may lose inputs. What others read too is scored by its weights.
    """
    if found.reader not in scores and found.group is not None:
        unit = next(s.unit for s in found.group.slices if s.tensor == f"{found.norm}.weight")
        ones = {name: torch.ones_like(score) for name, score in scores.items()}
        return unit_scores(found.group, scores)[unit], unit_sums(found.group, ones)[unit]
    score = scores[found.reader] if found.reader in scores else parameters[found.reader].detach().abs()
    rows = score.movedim(found.dim, 0).flatten(1).float()
    gone = (rows == -torch.inf).all(1)
    means = rows.masked_fill(rows == -torch.inf, 0).mean(1).masked_fill(gone, -torch.inf)
    return means.cpu(), rows.shape[1]


def _may_leave(found: ScaledChannels, ctx: NetworkView) -> bool:
    """Whether the weights that go with the channels are prunable; the classifier may lose inputs."""
    if found.group is None:
        return found.reader in ctx.weights or found.reader in ctx.flow.logits
    filters = [s.tensor for s in found.group.slices if s.role == "produces" and s.tensor.endswith("weight")]
    return all(name in ctx.weights for name in filters) and not held_by(ctx, found.group)


scaled = STRUCTURES.add(
    "scaled-channels",
    Structure(
        "scaled-channels",
        "channels of batch norms that feed one layer; filters leave where nothing else reads them",
        _group,
        overlapping=True,
        unit="channel",
        version=3,
    ),
)


class Slimming(Penalised):
    """Train with ``penalty * sum |scale|`` and prune to the target after the last epoch."""

    def add_penalty(self) -> None:
        """``penalty * sign(scale)``."""
        for layer in self.setting.module.modules():
            if isinstance(layer, _BatchNorm) and layer.affine and layer.weight.grad is not None:
                layer.weight.grad.add_(layer.weight.sign(), alpha=self._penalty)


def _schedule(penalty: str) -> Schedule:
    return SCHEDULES.add(
        f"sparse-scales-{penalty}",
        Schedule(
            f"sparse-scales-{penalty}",
            f"train with {penalty} x the L1 norm of batch-norm scales, prune, fine-tune",
            once,
            start="initialisation",
            during=partial(Slimming, penalty=float(penalty)),
            train_after=True,
            decided_last=True,
            parameters={"penalty": float(penalty)},
        ),
    )


_OF_ALL = PerLayer(percent="channels")
strong_penalty, weak_penalty = _schedule("1e-4"), _schedule("1e-5")


@pruning_method(
    "network_slimming",
    structure=scaled,
    schedule=strong_penalty,
    per_layer=_OF_ALL,
    reference="liu2017learning",
)
@pruning_method(
    "network_slimming_residual",
    structure=scaled,
    schedule=weak_penalty,
    per_layer=_OF_ALL,
    reference="liu2017learning",
)
@pruning_method(
    "slimming_without_penalty",
    kind="magnitude",
    structure=scaled,
    reference="liu2017learning",
    per_layer=_OF_ALL,
)
@decides("structure")
def smallest_scale(ctx: PruneContext) -> UnitScores:
    """Magnitude of batch-norm scales, compared over the whole network."""
    return UnitScores(_scales(ctx.module, couple(ctx.module, ctx.example)))
