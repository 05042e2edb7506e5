"""Networks, each one exact definition with its figures and its public weights.

>>> get_model("ResNet-20").parameters
269722
>>> sum(p.numel() for p in build("resnet20", seed=0).parameters())
269722
"""

from __future__ import annotations

import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError, said_by

# Importing a family registers its cards.
from shrinkbench.models import alexnet as _alexnet
from shrinkbench.models import cifar_resnet as _cifar_resnet
from shrinkbench.models import cifar_vgg as _cifar_vgg
from shrinkbench.models import densenet as _densenet
from shrinkbench.models import digits as _digits
from shrinkbench.models import imagenet_resnet as _imagenet_resnet
from shrinkbench.models import imagenet_vgg as _imagenet_vgg
from shrinkbench.models import lenet as _lenet
from shrinkbench.models import llama as _llama
from shrinkbench.models import preresnet as _preresnet
from shrinkbench.models import published as _published
from shrinkbench.models import sss as _sss
from shrinkbench.models import vit as _vit
from shrinkbench.models import wide_resnet as _wide_resnet

# Families of names, in the order in which they are asked; the last explains names that none knows.
from shrinkbench.models import widened as _widened  # isort: skip
from shrinkbench.models import torchvision_models as _torchvision_models  # isort: skip
from shrinkbench.models import timm_models as _timm_models  # isort: skip
from shrinkbench.models import hugging_face as _hugging_face  # isort: skip
from shrinkbench.models import ambiguous as _ambiguous  # isort: skip
from shrinkbench.models import own as _own  # isort: skip
from shrinkbench.models.card import MODELS, ModelCard, WeightsEntry, example_for
from shrinkbench.models.own import parameters_of, shape_for
from shrinkbench.models.state_dicts import read_state_dict
from shrinkbench.models.weights import (
    WeightsFile,
    identify,
    known_weights,
    load_weights,
    locate_weights,
)

__all__ = [
    "MODELS",
    "ModelCard",
    "WeightsEntry",
    "WeightsFile",
    "build",
    "example_for",
    "get_model",
    "identify",
    "known_weights",
    "load_weights",
    "locate_weights",
    "parameters_of",
    "read_state_dict",
    "shape_for",
]

_FAMILIES = (
    _alexnet,
    _cifar_resnet,
    _cifar_vgg,
    _densenet,
    _digits,
    _imagenet_resnet,
    _imagenet_vgg,
    _lenet,
    _llama,
    _preresnet,
    _published,
    _sss,
    _vit,
    _wide_resnet,
    _widened,
    _torchvision_models,
    _hugging_face,
    _timm_models,
    _ambiguous,
    _own,
)


def get_model(name: str) -> ModelCard:
    """Return the card of ``name``; case, ``-`` and ``_`` do not matter.

    Raises ``UnknownNameError`` with the nearest names.
    """
    return MODELS.get(name)


def build(name: str, *, num_classes: int | None = None, seed: int = 0) -> nn.Module:
    """Build the network ``name`` with initial weights drawn from ``seed``, in training mode.

    The global random state is as before. ``num_classes`` is the card's where it is ``None``.
    """
    card = get_model(name)
    classes = (card.num_classes if num_classes is None else num_classes) or 0
    if classes < 1 and card.num_classes is not None:
        raise ShrinkbenchError(f"a classifier needs at least one class, not {classes}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU too
        if MODELS.origin(name) is None:
            return card.build(classes)
        with said_by(f"network '{card.name}'"):
            module: object = card.build(classes)
        if not isinstance(module, nn.Module):
            raise ShrinkbenchError(
                f"network '{card.name}' is built as a {type(module).__name__}; let build return a "
                "torch.nn.Module"
            )
        return module
