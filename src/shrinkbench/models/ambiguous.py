"""Names that mean several networks: refused, with the candidates and how they differ."""

from __future__ import annotations

import re

from shrinkbench.errors import UnknownNameError
from shrinkbench.libraries import torchvision
from shrinkbench.models.card import MODELS
from shrinkbench.models.cifar_vgg import NAMESAKES as CIFAR_VGG_16

_RESNET_18 = {
    "torchvision/resnet18": "ImageNet, 1x1 projections; 11,689,512 parameters",
    "resnet18-option-a": "ImageNet, shortcuts without parameters; 11,515,688 parameters",
    "cifar-resnet18": "CIFAR, 3x3 stem, widths 64 to 512; 11,173,962 parameters",
    "resnet20": "CIFAR, widths 16 to 64, what some papers call ResNet-18; 269,722 parameters",
}
_RESNET_34 = {
    "torchvision/resnet34": "ImageNet, 1x1 projections; 21,797,672 parameters",
    "resnet34-option-a": "ImageNet, shortcuts without parameters (Li et al. 2017); 21,623,848 parameters",
}
_RESNET_50 = {
    "torchvision/resnet50": "ImageNet, stride in the 3x3 convolution (v1.5); 4,089,184,256 multiply-adds",
    "resnet50-v1": "ImageNet, stride in the 1x1 convolution (He et al. 2016); 3,857,973,248 multiply-adds",
    "sss-resnet-50": "ImageNet, pre-activation (sparse structure selection); 25,549,480 parameters",
    "cifar-resnet50": "CIFAR, depth 6n + 2, widths 16 to 64 (Liu et al. 2019); 758,554 parameters",
    "cifar-resnet50-wide": "CIFAR, 3x3 stem, widths 64 to 512 (kuangliu); 23,520,842 parameters",
}
_RESNET_101 = {
    "torchvision/resnet101": "stride in the 3x3 convolution (v1.5); 7,801,405,440 multiply-adds",
    "resnet101-v1": "stride in the 1x1 convolution (He et al. 2016); 7,570,194,432 multiply-adds",
}
_VGG_11 = {
    "cifar-vgg11": "CIFAR, one linear layer, no biases; 9,228,362 parameters",
    "cifar-vgg11-3fc": "CIFAR, two hidden layers of 512 (chenyaofo's hub); 9,756,426 parameters",
    "torchvision/vgg11": "ImageNet, no batch norm; 132,863,336 parameters",
    "torchvision/vgg11_bn": "ImageNet, batch norm; 132,868,840 parameters",
    "vgg11-slimming": "ImageNet, batch norm in the head too, no dropout; 132,885,224 parameters",
}
_VGG_13 = {
    "cifar-vgg13": "CIFAR, one linear layer, no biases; 9,413,066 parameters",
    "cifar-vgg13-3fc": "CIFAR, two hidden layers of 512 (chenyaofo's hub); 9,941,322 parameters",
    "torchvision/vgg13": "ImageNet, no batch norm; 133,047,848 parameters",
    "torchvision/vgg13_bn": "ImageNet, batch norm; 133,053,736 parameters",
}
_VGG_16 = {
    **{name: f"CIFAR: {text}" for name, text in CIFAR_VGG_16.items() if name.startswith("cifar")},
    "torchvision/vgg16": "ImageNet, no batch norm; 138,357,544 parameters",
    "torchvision/vgg16_bn": "ImageNet, batch norm; 138,365,992 parameters",
}
_VGG_19 = {
    "cifar-vgg19": "CIFAR, one linear layer, no biases (network slimming); 20,035,018 parameters",
    "cifar-vgg19-bias": "CIFAR, one linear layer, biases (weight pruning); 20,040,522 parameters",
    "cifar-vgg19-3fc": "CIFAR, two hidden layers of 512 (chenyaofo's hub); 20,565,834 parameters",
    "torchvision/vgg19": "ImageNet, no batch norm; 143,667,240 parameters",
    "torchvision/vgg19_bn": "ImageNet, batch norm; 143,678,248 parameters",
}
_LENET = {
    "lenet-300-100": "linear layers alone; 266,610 parameters",
    "lenet5": "6 and 16 filters, three linear layers; 61,706 parameters",
    "lenet5-caffe": "20 and 50 filters, one hidden layer of 500; 431,080 parameters",
}
_ALEXNET = {
    "alexnet-2012": "two groups, normalisation before pooling; 60,965,224 parameters",
    "caffenet": "two groups, pooling before normalisation; 60,965,224 parameters",
    "alexnet-ungrouped": "no groups; 62,378,344 parameters",
    "torchvision/alexnet": "'one weird trick': fewer filters, no normalisation; 61,100,840 parameters",
}
_DENSENET = {
    "densenet40": "CIFAR, stem of 24 (released code); 1,059,298 parameters",
    "densenet40-paper": "CIFAR, stem of 16 (published counts); 1,019,722 parameters",
    "densenet-bc-100": "CIFAR, bottleneck layers; 769,162 parameters",
    "densenet-c-100": "CIFAR, no bottleneck (what Liu et al.'s command builds); 4,068,490 parameters",
    "torchvision/densenet121": "ImageNet; 7,978,856 parameters",
}
_PRERESNET = {
    "preresnet56": "bottlenecks, depth 9n + 2; 590,426 parameters",
    "preresnet110": "bottlenecks, depth 9n + 2; 1,146,842 parameters",
    "preresnet164": "bottlenecks, depth 9n + 2; 1,703,258 parameters",
    "sss-resnet-50": "ImageNet; 25,549,480 parameters",
}
_WIDE = {
    "wrn-28-10": "CIFAR, basic blocks; 36,479,194 parameters",
    "torchvision/wide_resnet50_2": "ImageNet, bottlenecks; 68,883,240 parameters",
}
_VIT = {
    "vit-cifar": "CIFAR, 4x4 patches, width 192, 6 blocks; 2,693,578 parameters",
    "torchvision/vit_b_16": "ImageNet, 16x16 patches, width 768, 12 blocks; 86,567,656 parameters",
}

AMBIGUOUS: dict[str, dict[str, str]] = {
    "alexnet": _ALEXNET,
    "densenet": _DENSENET,
    "densenet100": {k: v for k, v in _DENSENET.items() if k.endswith("100")},
    "lenet": _LENET,
    "preresnet": _PRERESNET,
    "preresnet50": {
        "sss-resnet-50": "batch norm after the stem (sparse structure selection); 25,549,480 parameters",
        "timm/resnetv2_50": "no batch norm after the stem; 25,549,352 parameters",
    },
    "resnet": {**_RESNET_18, **_RESNET_50, "resnet56": "CIFAR, widths 16 to 64; 853,018 parameters"},
    "resnet18": _RESNET_18,
    "resnet34": _RESNET_34,
    "resnet50": _RESNET_50,
    "resnet101": _RESNET_101,
    "vgg": {**_VGG_16, **_VGG_19},
    "vgg11": _VGG_11,
    "vgg13": _VGG_13,
    "vgg16": _VGG_16,
    "vgg19": _VGG_19,
    "vit": _VIT,
    "wideresnet": _WIDE,
    "wrn": _WIDE,
}
_SAME_AS = {f"vgg{depth}bn": f"vgg{depth}" for depth in (11, 13, 16, 19)}


class AmbiguousNameError(UnknownNameError):
    """A name that papers give to several networks, told with a line for each."""

    @staticmethod
    def _tell(sentence: str) -> str:
        return sentence


def plain(name: str) -> str:
    """Spelling without case, hyphens, underscores and blanks.

    >>> plain("VGG-16_bn")
    'vgg16bn'
    """
    return re.sub(r"[-_\s]", "", name.lower())


def refuse_ambiguous(name: str) -> None:
    """Raise ``AmbiguousNameError`` with the candidates, one a line, where ``name`` means several networks."""
    key = plain(name)
    candidates = AMBIGUOUS.get(_SAME_AS.get(key, key))
    if candidates:
        width = max(map(len, candidates))
        lines = (f"  {candidate:<{width}}  {text}" for candidate, text in candidates.items())
        raise AmbiguousNameError(
            f"the name '{name}' means several networks; say which one:\n" + "\n".join(lines)
        )


def suggest_library(name: str) -> None:
    """Raise ``UnknownNameError`` with the prefix to use where ``name`` is a classifier of torchvision."""
    library = torchvision()
    known = library.models.list_models(module=library.models)
    alike = " or ".join(f"'torchvision/{k}'" for k in known if plain(k) == plain(name))
    if alike:
        raise UnknownNameError(f"unknown model '{name}'; did you mean {alike}?")


@MODELS.add_resolver
def _explain(name: str) -> None:
    """Say of an unknown name which networks it may mean."""
    refuse_ambiguous(name)
    suggest_library(name)
