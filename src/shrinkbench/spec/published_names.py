"""What papers call the networks of this library. Every name stands here once.

The cards of networks have it as ``published_as``; a report, which loads no network, reads it here for results
that were stored before their runs noted it.
"""

from __future__ import annotations

from collections.abc import Mapping

_SAME = {
    **{f"resnet{depth}": f"ResNet-{depth}" for depth in (20, 32, 44, 56, 110)},
    **{f"preresnet{depth}": f"PreResNet-{depth}" for depth in (56, 110, 164)},
    **{f"vgg{depth}": f"VGG-{depth}" for depth in (11, 13, 16, 19)},
    **{f"resnet{depth}": f"ResNet-{depth}" for depth in (18, 34, 50, 101)},
    "alexnet": "AlexNet",
    "caffenet": "CaffeNet",
    "densenet40": "DenseNet-40",
    "densenet-bc-100": "DenseNet-BC-100",
    "googlenet": "GoogLeNet",
    "inception_v3": "Inception-v3",
    "lenet-300-100": "LeNet-300-100",
    "lenet5": "LeNet-5",
    "lenet5-caffe": "LeNet-5-Caffe",
    "mobilenet_v2": "MobileNet-v2",
    "wrn-28-10": "WRN-28-10",
}

PUBLISHED_AS: Mapping[str, tuple[str, ...]] = {
    **{name: (published,) for name, published in _SAME.items()},
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
"""Name in this library, without provider -> names in papers."""


def published_names(model: str) -> tuple[str, ...]:
    """What papers call ``model``; a name of another library is ``provider/architecture.weights``.

    A network that is not listed goes by its own name.

    >>> published_names("vgg16-gap"), published_names("timm/resnet50.tv_in1k")
    (('VGG-GAP', 'VGG-16'), ('ResNet-50',))
    """
    name = without_provider(model)
    return PUBLISHED_AS.get(name, (name,))


def without_provider(model: str) -> str:
    """The architecture of a name like ``provider/architecture.weights``, or the name itself.

    >>> without_provider("timm/resnet50.tv_in1k"), without_provider("resnet20-width-0.5")
    ('resnet50', 'resnet20-width-0.5')
    """
    provider, _, name = model.rpartition("/")
    return name.partition(".")[0] if provider else name
