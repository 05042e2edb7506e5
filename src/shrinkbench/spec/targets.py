"""Widths that papers published: how many filters each layer of a network keeps. Every number stands here once.

The smaller networks of :mod:`shrinkbench.models.published` are built from them, and the methods of
:mod:`shrinkbench.pruning.methods.published_widths` prune to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Widths = Sequence[int]


@dataclass(frozen=True)
class Target:
    """Filters that layers keep, by layer path, how they are chosen, and where that was published.

    Under the name of a weight stands how many of its inputs a layer reads of a stream that others read too;
    ``#n`` is the n-th convolution, whatever it is called.
    """

    name: str
    kept: Mapping[str, int]
    choice: Literal["l1", "thinet", "regression"]
    reference: str

    def stages(self, layer: str = "conv1") -> tuple[tuple[int, ...], ...]:
        """Widths of ``layer`` of every residual block, by stage and block.

        >>> TARGETS["li2017:resnet34-b"].stages()[0]
        (64, 32, 32)
        """
        found: dict[str, list[int]] = {}
        for path, width in self.kept.items():
            stage, _, rest = path.partition(".")
            if rest.partition(".")[2] == layer:
                found.setdefault(stage, []).append(width)
        return tuple(tuple(widths) for widths in found.values())

    def chain(self, blocks: Sequence[int] = (2, 2, 3, 3, 3)) -> tuple[tuple[int, ...], ...]:
        """Widths of a plain network, ``blocks`` convolutions at a time: those of VGG-16 between its pools.

        >>> TARGETS["thinet:vgg-tiny"].chain()[-1]
        (128, 128, 256)
        """
        widths = iter(self.kept.values())
        return tuple(tuple(next(widths) for _ in range(count)) for count in blocks)


def _blocks(stages: Sequence[Widths], *, layer: str = "conv1") -> dict[str, int]:
    """Widths of one convolution of every residual block, by stage and block."""
    return {
        f"layer{stage}.{block}.{layer}": width
        for stage, widths in enumerate(stages, start=1)
        for block, width in enumerate(widths)
    }


def _chain(*widths: int) -> dict[str, int]:
    """Widths of the convolutions of torchvision's VGG-16 without batch norm."""
    positions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    return {f"features.{at}": width for at, width in zip(positions, widths, strict=True)}


def _thinet_50(*widths: int) -> dict[str, int]:
    """One width by stage for the first two convolutions of every bottleneck of ResNet-50."""
    inner = [(width,) * blocks for blocks, width in zip((3, 4, 6, 3), widths, strict=True)]
    return {**_blocks(inner), **_blocks(inner, layer="conv2")}


# Li et al. 2017, Table 1 and Section 4: kept = floor of the width x (1 - ratio), some layers skipped.
_LI = {
    "resnet56-a": _blocks(((14,) * 7 + (16, 14), (32,) + (28,) * 8, (64,) + (57,) * 7 + (64,))),
    "resnet56-b": _blocks(((6,) * 7 + (16, 16), (32,) + (22,) * 6 + (32, 22), (64,) + (57,) * 7 + (64,))),
    "resnet110-a": _blocks(((8,) * 17 + (16,), (32,) * 18, (64,) * 18)),
    "resnet110-b": _blocks(((8,) * 17 + (16,), (32,) + (19,) * 17, (64,) + (44,) * 17)),
    "resnet34-a": _blocks(((64, 44, 44), (128, 89, 89, 128), (256, *(179,) * 4, 256), (512,) * 3)),
    "resnet34-b": _blocks(((64, 32, 32), (128, 51, 51, 128), (256, *(153,) * 4, 256), (512,) * 3)),
    # Their VGG-16 on CIFAR is a list of convolutions, whatever these are called.
    "vgg16-a": {f"#{n}": width for n, width in enumerate((32, 64, 128, 128, *(256,) * 9))},
}
# Luo et al. 2017; a number in a name is the share kept. GAP and Tiny have another head and the same widths.
_FOUR_TO_THREE = _chain(32, 32, 64, 64, *(128,) * 3, *(256,) * 3, *(512,) * 3)
_THINET = {
    "vgg-conv": _FOUR_TO_THREE,
    "vgg-gap": _FOUR_TO_THREE,
    "vgg-tiny": _chain(16, 16, 32, 32, *(64,) * 3, *(128,) * 5, 256),
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


def _sampled_50() -> dict[str, int]:
    found: dict[str, int] = {}
    for at, layer in enumerate(("conv1.weight", "conv1", "conv2")):
        found.update(_blocks([[block[at] for block in stage] for stage in _RESNET_2X], layer=layer))
    return found


_HE = {
    "vgg-16-5x": _chain(24, 22, 41, 51, 108, 89, 111, 184, 276, 228, *(512,) * 3),
    "resnet-50-2x": _sampled_50(),
}

TARGETS: Mapping[str, Target] = {
    **{f"li2017:{n}": Target(f"li2017:{n}", kept, "l1", "li2017pruning") for n, kept in _LI.items()},
    **{f"thinet:{n}": Target(f"thinet:{n}", kept, "thinet", "luo2017thinet") for n, kept in _THINET.items()},
    **{f"he2017:{n}": Target(f"he2017:{n}", kept, "regression", "he2017channel") for n, kept in _HE.items()},
}
