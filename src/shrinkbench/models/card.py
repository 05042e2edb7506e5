"""What a network's name means, exactly: its definition, its figures and its public weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.network.inputs import Inputs
from shrinkbench.registry import Registry
from shrinkbench.spec import Normalisation
from shrinkbench.spec.published_names import PUBLISHED_AS


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """One public set of weights for a network.

    ``published_top1`` is what its source states and ``measured_top1`` what this library measured, each with
    the data it was taken on; fractions in [0, 1]. ``normalisation`` is what the weights were trained with,
    and overrides the dataset's. ``sha256`` is of the file, whole, or its leading digits (at least eight)
    where the source publishes no more; ``git_blob`` is what Git knows its content by, for a file that no
    SHA-256 is on record of. ``file`` is the file's name in the cache, by default the last part
    of ``url``.
    """

    name: str
    dataset: str
    source: str
    licence: str
    normalisation: Normalisation
    sha256: str | None = None
    git_blob: str | None = None
    url: str | None = None
    published_top1: float | None = None
    measured_top1: dict[str, float] = field(default_factory=dict)
    note: str = ""
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The definition of one network; ``name`` and ``build`` are enough for one of your own.

    ``build(num_classes)`` returns a freshly initialised module; ``parameters`` and ``multiply_adds`` hold
    for ``num_classes`` classes and one input of ``input_shape`` (channels, height, width). ``agrees_with``
    names the published figure that they agree with; ``namesakes`` names other networks that papers call the
    same and says how they differ. ``published_as`` is what papers, and so published results, call it; empty
    where no paper has it, and then it goes by its name. The first entry of ``weights`` is the default one;
    ``weights_note`` says what else is known of public weights, and where there are none, that they must be
    trained. Figures that are left out are counted where they are asked for, input and classes are then the
    dataset's. ``pruned_from``
    is the network that one of published widths was cut from. ``features_of`` is a network whose weights fit
    all tensors of a prefix, (name, prefix): they load too, and what has another name stays as drawn.
    One that ``takes`` tokens, whole numbers below ``num_classes``, has their number as ``input_shape``.
    ``configuration`` is the file that a network is built by beside its name, if any, ``digest`` its SHA-256.
    """

    name: str
    family: str = "own"
    definition: str = ""
    reference: str = ""
    input_shape: tuple[int, ...] = ()
    num_classes: int | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    agrees_with: str = ""
    build: Callable[[int], nn.Module]
    namesakes: dict[str, str] = field(default_factory=dict)
    published_as: tuple[str, ...] = ()
    weights: tuple[WeightsEntry, ...] = ()
    weights_note: str = ""
    pruned_from: str | None = None
    takes: Literal["floats", "tokens"] = "floats"
    features_of: tuple[str, str] | None = None
    configuration: Path | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        """Refuse names that a result cannot store."""
        names = self.published_as
        if not isinstance(names, tuple) or not all(isinstance(n, str) and n and ";" not in n for n in names):
            raise ShrinkbenchError(
                f"published_as of the network '{self.name}' is {one_line(repr(names), 40)}; give a tuple of "
                'names without semicolons, such as ("VGG-16",)'
            )


def example_for(card: ModelCard, shape: tuple[int, ...]) -> Inputs:
    """One input of ``card``, of ``shape``: floats without values, or tokens, one after the other of all."""
    if card.takes != "tokens":
        return Inputs.of(shape)
    count = torch.Size(shape).numel()
    return Inputs.of((torch.arange(count) % (card.num_classes or 1)).reshape(1, *shape))


NO_PUBLIC_WEIGHTS = "no public weights are known: train them (`shrinkbench pretrain`) or pass a file"


MODELS: Registry[ModelCard] = Registry("model", of=ModelCard, digest=lambda card: card.digest)


def code_of(network: str) -> str | None:
    """The digest of what makes ``network`` and is not of this package, where somebody has registered it."""
    try:
        return MODELS.source(network)
    except ShrinkbenchError:
        return None


def register(card: ModelCard, *, aliases: tuple[str, ...] = ()) -> ModelCard:
    """Add a card under its own name, with the names that papers have for it."""
    card = replace(card, published_as=card.published_as or PUBLISHED_AS.get(card.name, ()))
    return MODELS.add(card.name, card, aliases=aliases)
