"""What papers call the networks of this library, where that is not the name that they have here."""

from __future__ import annotations

from collections.abc import Mapping

PUBLISHED_AS: Mapping[str, tuple[str, ...]] = {
    "alexnet-2012": ("AlexNet",),
    "alexnet-ungrouped": ("AlexNet",),
    **{f"resnet{depth}-projection": (f"ResNet-{depth}",) for depth in (20, 32, 44, 56, 110)},
    **{f"resnet{depth}-option-a": (f"ResNet-{depth}",) for depth in (18, 34)},
    **{f"resnet{depth}-v1": (f"ResNet-{depth}",) for depth in (50, 101)},
    "cifar-resnet18": ("ResNet-18",),
    "cifar-resnet50": ("ResNet-50",),
    "sss-resnet-50": ("ResNet-50",),
    # The VGG of CIFAR-10 that papers call by two names.
    "cifar-vgg": ("VGG-Torch-CIFAR10", "VGG-16"),
    **{f"cifar-vgg{depth}{head}": (f"VGG-{depth}",) for depth in (11, 13, 19) for head in ("", "-3fc")},
    "cifar-vgg19-bias": ("VGG-19",),
    **{f"cifar-vgg16{kind}": ("VGG-16", "VGG-Torch-CIFAR10") for kind in ("", "-3fc", "-bias", "-l1")},
    **{f"vgg{depth}_bn": (f"VGG-{depth}",) for depth in (11, 13, 16, 19)},
    "vgg11-slimming": ("VGG-11",),
    "vgg16-gap": ("VGG-GAP", "VGG-16"),
    "densenet40-paper": ("DenseNet-40",),
}
"""Name in this library, without provider -> names in papers. Networks that are not listed go by their own."""


def published_names(model: str) -> tuple[str, ...]:
    """What papers call ``model``; a name of another library is ``provider/architecture.weights``.

    >>> published_names("vgg16-gap"), published_names("timm/resnet50.tv_in1k")
    (('VGG-GAP', 'VGG-16'), ('resnet50',))
    """
    provider, _, name = model.rpartition("/")
    name = name.partition(".")[0] if provider else name
    return PUBLISHED_AS.get(name, (name,))
