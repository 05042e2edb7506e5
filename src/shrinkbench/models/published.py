"""Smaller networks of published widths: Li et al. 2017, ThiNet, He et al. 2017."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

from shrinkbench.models.card import MODELS, NO_PUBLIC_WEIGHTS, ModelCard, register
from shrinkbench.models.cifar_resnet import CifarResNet
from shrinkbench.models.cifar_vgg import slimming_vgg
from shrinkbench.models.imagenet_resnet import StrideIn, basic_resnet, bottleneck_resnet
from shrinkbench.models.imagenet_vgg import ImageNetVGG
from shrinkbench.spec.targets import TARGETS

Build = Callable[[int], nn.Module]
Stages = Sequence[Sequence[int]]


def _register(
    name: str,
    pruned_from: str,
    change: str,
    reference: str,
    figures: tuple[int, int],
    agrees_with: str,
    build: Build,
    *,
    namesakes: dict[str, str] | None = None,
    weights_note: str = NO_PUBLIC_WEIGHTS,
) -> None:
    """Register a network cut from ``pruned_from``, registered or a library's ImageNet network."""
    cifar = pruned_from in MODELS and MODELS.get(pruned_from).input_shape == (3, 32, 32)
    register(
        ModelCard(
            name=name,
            family="published",
            definition=f"{pruned_from} with {change}",
            reference=reference,
            input_shape=(3, 32, 32) if cifar else (3, 224, 224),
            num_classes=10 if cifar else 1000,
            parameters=figures[0],
            multiply_adds=figures[1],
            agrees_with=agrees_with,
            build=build,
            namesakes=namesakes or {},
            weights_note=weights_note,
            pruned_from=pruned_from,
        )
    )


# --- Li et al. 2017: the leading share of filters by L1 norm, a fixed share for each stage ---------------


def _cifar(name: str) -> Build:
    return lambda num_classes: CifarResNet(TARGETS[f"li2017:{name}"].stages(), num_classes, shortcut="A")


def _resnet34(variant: str, *, option_a: bool) -> Build:
    widths = TARGETS[f"li2017:resnet34-{variant}"].stages()
    return lambda num_classes: basic_resnet(widths, num_classes, shortcut="A" if option_a else "projection")


def _widths(name: str) -> str:
    stages = TARGETS[f"li2017:{name}"].stages()
    return "inner widths " + " / ".join(",".join(str(w) for w in stage) for stage in stages)


for _name, _from, _figures, _published in (
    ("resnet56-a", "resnet56", (773_336, 112_435_840), "7.7e5 parameters and 1.12e8 FLOP"),
    ("resnet56-b", "resnet56", (735_712, 90_907_264), "7.3e5 parameters and 9.09e7 FLOP"),
    ("resnet110-a", "resnet110", (1_688_522, 212_779_648), "1.68e6 parameters and 2.13e8 FLOP"),
    ("resnet110-b", "resnet110", (1_168_424, 155_124_352), "1.16e6 parameters and 1.55e8 FLOP"),
):
    _register(
        _name,
        _from,
        _widths(_name),
        "li2017pruning",
        _figures,
        f"{_published} (Li et al. 2017, Table 1)",
        _cifar(_name),
    )
_register(
    "vgg16-a",
    "cifar-vgg16-l1",
    "widths 32,64 / 128,128 / 256 throughout: half of the filters of layers 1 and 8 to 13",
    "li2017pruning",
    (5_397_034, 206_279_680),
    "5.4e6 parameters and 2.06e8 FLOP (Li et al. 2017, Table 1)",
    lambda num_classes: slimming_vgg(TARGETS["li2017:vgg16-a"].chain(), num_classes, head="hidden"),
)
for _variant, _projected, _option_a, _published in (
    ("a", (20_151_764, 3_100_184_576), (19_977_940, 3_080_916_992), "1.99e7 parameters and 3.08e9 FLOP"),
    ("b", (19_469_372, 2_782_269_440), (19_295_548, 2_763_001_856), "1.93e7 parameters and 2.76e9 FLOP"),
):
    _register(
        f"resnet34-{_variant}",
        "torchvision/resnet34",
        _widths(f"resnet34-{_variant}"),
        "liu2019rethinking",
        _projected,
        "the network of Liu et al. 2019 (Table 1), on torchvision's with projections; no count is printed",
        _resnet34(_variant, option_a=False),
        namesakes={f"resnet34-option-a-{_variant}": "Li et al.'s own, with option-A shortcuts"},
    )
    _register(
        f"resnet34-option-a-{_variant}",
        "resnet34-option-a",
        _widths(f"resnet34-{_variant}"),
        "li2017pruning",
        _option_a,
        f"{_published} (Li et al. 2017, Table 1)",
        _resnet34(_variant, option_a=True),
        namesakes={f"resnet34-{_variant}": "the same widths with 1x1 projections (Liu et al. 2019)"},
    )

# --- ThiNet (Luo et al. 2017): a number in a name is the share kept ---------------------------------------


def _vgg(target: str, *, head: Literal["dense", "pooled"]) -> Build:
    widths = TARGETS[target].chain()
    return lambda num_classes: ImageNetVGG(widths, num_classes, batch_norm=False, head=head)


def _thinet_resnet(kept: int, stride_in: StrideIn, *, projection_bias: bool) -> Build:
    target = TARGETS[f"thinet:resnet50-{kept}"]
    inner = _pairs(target.stages("conv1"), target.stages("conv2"))
    return lambda num_classes: bottleneck_resnet(
        inner, num_classes, stride_in=stride_in, projection_bias=projection_bias
    )


def _pairs(first: Stages, second: Stages) -> list[list[tuple[int, int]]]:
    """Widths of the first two convolutions of every bottleneck, by stage."""
    return [list(zip(*both, strict=True)) for both in zip(first, second, strict=True)]


_register(
    "thinet-vgg-conv",
    "torchvision/vgg16",
    "widths 32,32 / 64,64 / 128x3 / 256x3 / 512x3 and the same linear layers",
    "luo2017thinet",
    (131_452_552, 4_791_205_888),
    "131.44M parameters and 9.58e9 FLOP at two per multiply-add (Luo et al. 2017)",
    _vgg("thinet:vgg-conv", head="dense"),
)
_register(
    "thinet-vgg-gap",
    "torchvision/vgg16",
    "widths 32,32 / 64,64 / 128x3 / 256x3 / 512x3, no fifth max pool, global average pool, linear 512-classes",
    "luo2017thinet",
    (8_322_696, 4_668_084_224),
    "8.32M parameters and 9.34e9 FLOP at two per multiply-add (Luo et al. 2017)",
    _vgg("thinet:vgg-gap", head="pooled"),
)
_register(
    "thinet-vgg-tiny",
    "torchvision/vgg16",
    "widths 16,16 / 32,32 / 64x3 / 128x3 / 128,128,256, global average pool, linear 256-classes",
    "luo2017thinet",
    (1_325_368, 1_004_578_816),
    "1.32M parameters and 2.01e9 FLOP at two per multiply-add (Luo et al. 2017)",
    _vgg("thinet:vgg-tiny", head="pooled"),
)
for _kept, _v1, _v15, _published in (
    (70, (16_945_246, 2_440_026_340), (16_949_086, 2_601_392_356), "16.94M parameters and 4.88e9 FLOP"),
    (50, (12_381_864, 1_706_426_368), (12_385_704, 1_822_031_872), "12.38M parameters and 3.41e9 FLOP"),
    (30, (8_665_318, 1_097_492_539), (8_669_158, 1_166_283_835), "8.66M parameters and 2.20e9 FLOP"),
):
    _by_stage = ", ".join(str(widths[0]) for widths in TARGETS[f"thinet:resnet50-{_kept}"].stages())
    _inner = f"first two convolutions of every bottleneck {_by_stage} wide"
    _register(
        f"thinet-resnet50-{_kept}",
        "resnet50-v1",
        _inner,
        "luo2017thinet",
        _v1,
        f"{_published} at two per multiply-add (Luo et al. 2017); {_kept} % is what is kept",
        _thinet_resnet(_kept, "1x1", projection_bias=False),
        namesakes={f"thinet-resnet50-{_kept}-v1.5": "stride in the 3x3 convolution, biased projections"},
    )
    _register(
        f"thinet-resnet50-{_kept}-v1.5",
        "torchvision/resnet50",
        _inner + " and biases in the projections, which the unpruned network does not have",
        "liu2019rethinking",
        _v15,
        "the network that the code of Liu et al. 2019 (Table 2) builds; no count is printed",
        _thinet_resnet(_kept, "3x3", projection_bias=True),
        namesakes={f"thinet-resnet50-{_kept}": "ThiNet's own: stride in the 1x1 convolution, no biases"},
    )

# --- He et al. 2017: regression-based channel pruning -----------------------------------------------------


def _resnet_2x(stride_in: StrideIn) -> Build:
    target = TARGETS["he2017:resnet-50-2x"]
    inner, sampled = _pairs(target.stages("conv1"), target.stages("conv2")), target.stages("conv1.weight")
    return lambda num_classes: bottleneck_resnet(
        inner, num_classes, stride_in=stride_in, sampled=sampled, projection_bias=True
    )


_register(
    "vgg-16-5x",
    "torchvision/vgg16",
    "widths 24,22 / 41,51 / 108,89,111 / 184,276,228 / 512x3 and the same linear layers",
    "he2017channel",
    (130_879_294, 3_515_283_520),
    "the released prototxt; the true ratio of multiply-adds is 4.40, not 5",
    _vgg("he2017:vgg-16-5x", head="dense"),
)
_register(
    "resnet-50-2x",
    "torchvision/resnet50",
    "sampled inputs and thinner bottlenecks (48 published widths); at first the leading channels are sampled",
    "liu2019rethinking",
    (19_697_424, 2_730_129_076),
    "the widths of Liu et al. 2019 (Table 3) and of the release; the true ratio of multiply-adds is 1.50",
    _resnet_2x("3x3"),
    namesakes={
        "resnet-50-2x-v1": "He et al.'s own: stride in the 1x1 convolution",
        "with channel selection": "13,120 sampler indices counted as parameters: 19,710,544",
    },
)
_register(
    "resnet-50-2x-v1",
    "resnet50-v1",
    "sampled inputs and thinner bottlenecks (48 published widths); at first the leading channels are sampled",
    "he2017channel",
    (19_697_424, 2_599_320_244),
    "the widths of the released model; the true ratio of multiply-adds is 1.48, not 2",
    _resnet_2x("1x1"),
    namesakes={"resnet-50-2x": "stride in the 3x3 convolution (Liu et al. 2019)"},
)
