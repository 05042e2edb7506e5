"""Predefined targets: how many filters each layer keeps was decided before, by the authors of a method.

A name such as ``li2017:resnet56-a`` is a method of its own: the published widths with the publication's way
of choosing filters. Its compression follows from the widths; the one that is asked for has no say. The
networks that are left have the parameters and multiply-adds of the model cards of the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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

Widths = Sequence[int]


@dataclass(frozen=True)
class Target:
    """Filters that layers keep, by layer path, and where they were published.

    Under the name of a weight stands how many of its inputs a layer reads of a stream that others read too.
    """

    name: str
    kept: Mapping[str, int]
    choice: Literal["l1", "thinet", "regression"]
    reference: str


def _blocks(stages: Sequence[Widths], *, layer: str = "conv1") -> dict[str, int]:
    """Widths of one convolution of every residual block, by stage and block."""
    return {
        f"layer{stage}.{block}.{layer}": width
        for stage, widths in enumerate(stages, start=1)
        for block, width in enumerate(widths)
    }


def _both(stages: Sequence[tuple[int, int]]) -> dict[str, int]:
    """The same width for the first two convolutions of all bottlenecks of a stage: (blocks, width)."""
    inner = [(width,) * blocks for blocks, width in stages]
    return {**_blocks(inner), **_blocks(inner, layer="conv2")}


def _chain(widths: Widths, positions: Sequence[int]) -> dict[str, int]:
    """Widths of the convolutions of a plain network, at ``positions`` of its ``features``."""
    return {f"features.{at}": width for at, width in zip(positions, widths, strict=True)}


_VGG16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # torchvision's, without batch norm
_BLOCKS_50 = (3, 4, 6, 3)


def _thinet_50(*widths: int) -> dict[str, int]:
    return _both(list(zip(_BLOCKS_50, widths, strict=True)))


# Li et al. 2017, Table 1 and Section 4: kept = floor of the width x (1 - ratio), some layers skipped.
_LI = {
    "resnet56-a": _blocks(((14,) * 7 + (16, 14), (32,) + (28,) * 8, (64,) + (57,) * 7 + (64,))),
    "resnet56-b": _blocks(((6,) * 7 + (16, 16), (32,) + (22,) * 6 + (32, 22), (64,) + (57,) * 7 + (64,))),
    "resnet110-a": _blocks(((8,) * 17 + (16,), (32,) * 18, (64,) * 18)),
    "resnet110-b": _blocks(((8,) * 17 + (16,), (32,) + (19,) * 17, (64,) + (44,) * 17)),
    "resnet34-a": _blocks(((64, 44, 44), (128, 89, 89, 128), (256, *(179,) * 4, 256), (512,) * 3)),
    "resnet34-b": _blocks(((64, 32, 32), (128, 51, 51, 128), (256, *(153,) * 4, 256), (512,) * 3)),
}
_FOUR_TO_THREE = (32, 32, 64, 64, *(128,) * 3, *(256,) * 3, *(512,) * 3)
_THINET = {
    "vgg-conv": _chain(_FOUR_TO_THREE, _VGG16),
    "vgg-gap": _chain(_FOUR_TO_THREE, _VGG16),  # of vgg16-gap, as is the next
    "vgg-tiny": _chain((16, 16, 32, 32, *(64,) * 3, *(128,) * 5, 256), _VGG16),
    "resnet50-70": _thinet_50(44, 89, 179, 358),
    "resnet50-50": _thinet_50(32, 64, 128, 256),
    "resnet50-30": _thinet_50(19, 38, 76, 153),
}
# He et al. 2017, the release: inputs sampled, filters of the first and of the second convolution, by block.
_RESNET_2X = (
    ((35, 64, 55), (101, 51, 39), (97, 50, 37)),
    ((144, 128, 106), (205, 105, 72), (198, 105, 72), (288, 128, 110)),
    ((278, 256, 225), (418, 209, 147), (407, 204, 158), (423, 212, 155), (412, 211, 148), (595, 256, 213)),
    ((606, 512, 433), (1222, 512, 437), (1147, 512, 440)),
)
_HE = {
    "vgg-16-5x": _chain((24, 22, 41, 51, 108, 89, 111, 184, 276, 228, *(512,) * 3), _VGG16),
    "resnet-50-2x": {
        key: width
        for at, layer in enumerate(("conv1.weight", "conv1", "conv2"))
        for key, width in _blocks([[block[at] for block in stage] for stage in _RESNET_2X], layer=layer).items()
    },
}
# Their VGG-16 on CIFAR is a list of convolutions, whatever these are called.
VGG16_A = (32, 64, 128, 128, *(256,) * 9)

TARGETS: dict[str, Target] = {
    **{f"li2017:{n}": Target(f"li2017:{n}", kept, "l1", "li2017pruning") for n, kept in _LI.items()},
    **{f"thinet:{n}": Target(f"thinet:{n}", kept, "thinet", "luo2017thinet") for n, kept in _THINET.items()},
    **{f"he2017:{n}": Target(f"he2017:{n}", kept, "regression", "he2017channel") for n, kept in _HE.items()},
    "li2017:vgg16-a": Target(
        "li2017:vgg16-a", {f"#{n}": w for n, w in enumerate(VGG16_A)}, "l1", "li2017pruning"
    ),
}


@METHODS.add_resolver
def predefined_named(name: str) -> PruningMethod | None:
    """The method of the predefined target ``name``, or ``None`` for other names."""
    target = TARGETS.get(name.lower())
    if target is None:
        prefix = name.lower().partition(":")[0]
        known = [n for n in TARGETS if n.startswith(f"{prefix}:")]
        if ":" in name and known:
            raise ShrinkbenchError(f"there is no predefined target '{name}'; choose {', '.join(known)}")
        return None

    @decides("structure", "allocation")
    def predefined(ctx: PruneContext) -> Masks:
        """Keep as many filters of each layer as were published."""
        return masks_of_target(ctx, target)

    return PruningMethod(
        name=target.name,
        score=predefined,
        structure=channels,
        allocation=given(target.name, lambda units, ctx: {}),
        needs=() if target.choice == "l1" else ("data",),
        batch_count=1 if target.choice == "l1" else 8,
        reference=target.reference,
    )


def masks_of_target(ctx: PruneContext, target: Target) -> Masks:
    """Masks of whole channels that leave the widths of ``target``."""
    coupling = couple(ctx.module, ctx.input_shape)
    counts = _counts(ctx.module, coupling, target)
    magnitude = {name: w.abs() for name, w in ctx.weights.items()}
    if target.choice == "l1":
        return masks_of_counts(ctx.module, coupling, counts, magnitude)
    choose = {"thinet": reconstruction.by_thinet, "regression": reconstruction.by_regression}[target.choice]
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
        ranked = unit_scores(group, scores).argsort(descending=True, stable=True)
        keep[layer] = torch.zeros(group.units, dtype=torch.bool)
        keep[layer][ranked[:count]] = True
    return masks_of_units(module, coupling, keep)
