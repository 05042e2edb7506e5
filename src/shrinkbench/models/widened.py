"""CIFAR networks of other widths: ``NAME-width-FACTOR``, all channels times one factor.

For the question whether a large sparse network is better than a small dense one of equal size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.card import MODELS, NO_PUBLIC_WEIGHTS, ModelCard
from shrinkbench.models.cifar_resnet import WIDTHS, CifarResNet, full_widths
from shrinkbench.models.cifar_vgg import STAGES, slimming_vgg
from shrinkbench.models.counting import count

_NAME = re.compile(r"(?P<base>.+)-width-(?P<factor>\d{1,2}(\.\d{1,4})?)")
_RESNET = re.compile(r"resnet(?P<depth>\d+)(?P<projection>-projection)?")
_VGG = re.compile(r"cifar-vgg(?P<depth>\d+)(?P<hidden>-l1)?")
_LARGEST = 16.0


@MODELS.add_resolver
def _from_name(name: str) -> ModelCard | None:
    """``resnet20-width-0.5``, ``cifar-vgg16-width-2`` and their like."""
    match = _NAME.fullmatch(name.lower())
    if match is None or match["base"] not in MODELS:
        return None
    card = widened(match["base"], float(match["factor"]))
    if match["factor"] != card.name.rpartition("-")[2]:  # one network has one name
        raise ShrinkbenchError(f"'{name}' is another spelling of '{card.name}'; name it so")
    return card


@lru_cache
def widened(name: str, factor: float) -> ModelCard:
    """The CIFAR network ``name`` with ``factor`` times the channels of every layer, rounded, one at least.

    Parameters and multiply-adds are counted. Raises ``ShrinkbenchError`` for networks that have no factor, for
    one above 16 and for 1, which is the network itself.
    """
    card = MODELS.get(name)
    if not 0 < factor <= _LARGEST or factor == 1:
        raise ShrinkbenchError(
            f"'{card.name}' {factor:g} times as wide: the factor has to be above 0, {_LARGEST:g} at most, and "
            "not 1; name the network without one for its own width"
        )
    build = _builder(card.name, factor)
    parameters, multiply_adds = count(lambda: build(10), card.input_shape)
    return replace(
        card,
        name=f"{card.name}-width-{factor:g}",
        definition=f"{card.definition}; all channels times {factor:g}",
        parameters=parameters,
        multiply_adds=multiply_adds,
        agrees_with="counted here; by the definition at 1 it is the published network",
        build=build,
        namesakes={card.name: "the network of the published widths"},
        published_as=(),
        weights=(),
        weights_note=NO_PUBLIC_WEIGHTS,
    )


def _builder(name: str, factor: float) -> Callable[[int], nn.Module]:
    def wide(width: int) -> int:
        return max(int(width * factor + 0.5), 1)

    if match := _RESNET.fullmatch(name):
        widths = [wide(width) for width in WIDTHS]
        inner = full_widths(int(match["depth"]), widths)

        kind: Literal["A", "B"] = "B" if match["projection"] else "A"

        def resnet(num_classes: int) -> nn.Module:
            return CifarResNet(inner, num_classes, shortcut=kind, widths=widths)

        return resnet
    if match := _VGG.fullmatch(name):
        stages = [[wide(width) for width in stage] for stage in STAGES[int(match["depth"])]]

        head: Literal["hidden", "linear"] = "hidden" if match["hidden"] else "linear"

        def vgg(num_classes: int) -> nn.Module:
            return slimming_vgg(stages, num_classes, head=head)

        return vgg
    raise ShrinkbenchError(
        f"'{name}' has no factor of its widths; those of CIFAR have one: resnet20-width-2, "
        "resnet20-projection-width-2, cifar-vgg16-width-0.5, cifar-vgg16-l1-width-0.5"
    )
