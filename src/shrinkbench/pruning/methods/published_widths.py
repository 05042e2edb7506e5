"""Published widths: how many filters each layer keeps was decided before, by the authors of a method.

A name such as ``li2017:resnet56-a`` is a method of its own: the published widths with the publication's way
of choosing filters. Its compression follows from the widths; the one that is asked for has no say. The
networks that are left have the parameters and multiply-adds of the model cards of the same names.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import Coupling, couple
from shrinkbench.pruning.allocations.rules import given
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import METHODS, PruningMethod, decides
from shrinkbench.pruning.methods import thinet_and_regression as reconstruction
from shrinkbench.pruning.structures.channel_masks import masks_of_units
from shrinkbench.pruning.structures.channels import channels, readers, unit_scores
from shrinkbench.pruning.top_k import require_numbers
from shrinkbench.spec import PublishedWidths
from shrinkbench.spec.targets import TARGETS, Target

PUBLISHED = given(
    "published", lambda units, ctx: {}, "what the paper reports for each layer, whatever is asked for"
)
_CHOICES = {
    "l1": "those of the largest L1 norm",
    "thinet": "chosen by ThiNet, greedily by their joint share of the next layer's output, on data",
    "regression": "chosen by LASSO against the next layer's unpruned outputs, on data",
}


@METHODS.add_resolver
def target_named(name: str) -> PruningMethod | None:
    """The method of the target ``name``, or ``None`` for other names."""
    target = TARGETS.get(name.lower())
    if target is None:
        prefix = name.lower().partition(":")[0]
        known = [n for n in TARGETS if n.startswith(f"{prefix}:")]
        if ":" in name and known:
            raise ShrinkbenchError(f"there are no published widths '{name}'; choose {', '.join(known)}")
        return None

    @decides("structure", "allocation")
    def published(ctx: PruneContext) -> Masks:
        return masks_of_target(ctx, target)

    widths, chosen = target.name.partition(":")[2], _CHOICES[target.choice]
    published.__doc__ = f"Keep as many filters of each layer as were published of {widths}, {chosen}."
    return PruningMethod(
        name=target.name,
        score=published,
        structure=channels,
        kind="activation" if target.choice != "l1" else "magnitude",
        allocation=PUBLISHED,
        amount=PublishedWidths(target=target.name),
        needs=() if target.choice == "l1" else ("data",),
        batch_count=1 if target.choice == "l1" else 8,
        reference=target.reference,
    )


def masks_of_target(ctx: PruneContext, target: Target) -> Masks:
    """Masks of whole channels that leave the widths of ``target``."""
    coupling = couple(ctx.module, ctx.example)
    counts = _counts(ctx.module, coupling, target)
    magnitude = {name: w.abs() for name, w in ctx.weights.items()}
    if target.choice == "l1":
        return masks_of_counts(ctx.module, coupling, counts, magnitude)
    choose = {"thinet": reconstruction.by_thinet, "regression": reconstruction.by_regression}[target.choice]
    _ = ctx.image_count  # without data there is nothing to do
    masks = reconstruction.prune_by_readers(ctx, choose, counts=counts)
    # What the classifier alone reads goes by its filters: the classifier is not rewritten.
    read = {*counts} & ({*ctx.weights} | {reader.key for reader in readers(ctx, coupling)})
    others = {layer: count for layer, count in counts.items() if layer not in read}
    return masks.intersect(masks_of_counts(ctx.module, coupling, others, magnitude))


def _counts(module: nn.Module, coupling: Coupling, target: Target) -> dict[str, int]:
    """Units to keep by group, for groups that lose some, and inputs to read by weight."""
    convolutions = [p for p, layer in module.named_modules() if isinstance(layer, nn.modules.conv._ConvNd)]
    counts: dict[str, int] = {}
    parameters = dict(module.named_parameters())
    for key, width in target.kept.items():
        if key.endswith(".weight"):
            if key not in parameters or parameters[key].shape[1] < width:
                raise ShrinkbenchError(
                    f"'{target.name}' reads {width} inputs in '{key}', and this network has not so many there; "
                    "use the network that the target was published for, or choose another method"
                )
            counts[key] = width
            continue
        layer = convolutions[int(key[1:])] if key.startswith("#") and int(key[1:]) < len(convolutions) else key
        group = next((g for g in coupling.groups if layer in g.layers("produces")), None)
        if group is None or group.units < width:
            found = "has no such layer" if group is None else f"has {group.units} filters there"
            raise ShrinkbenchError(
                f"'{target.name}' keeps {width} filters of layer '{layer}', and this network {found}; use the "
                "network that the target was published for, or choose another method"
            )
        if width < group.units:
            counts[group.layer] = width
    return counts


def masks_of_counts(
    module: nn.Module, coupling: Coupling, counts: Mapping[str, int], scores: Mapping[str, Tensor]
) -> Masks:
    """Keep the ``counts[layer]`` units of highest mean score in each group; others stay whole."""
    keep: dict[str, Tensor] = {}
    for layer, count in counts.items():
        group = coupling.group_of(layer)
        means = unit_scores(group, scores)
        require_numbers(layer, means)
        ranked = means.argsort(descending=True, stable=True)
        keep[layer] = torch.zeros(group.units, dtype=torch.bool)
        keep[layer][ranked[:count]] = True
    return masks_of_units(module, coupling, keep)
