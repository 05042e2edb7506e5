"""A network of one's own, named by its file (``FILE.py:NAME``): a function, a class or a card."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from shrinkbench.errors import ShrinkbenchError, said_by
from shrinkbench.models.card import MODELS, NO_PUBLIC_WEIGHTS, ModelCard, example_for
from shrinkbench.models.counting import count


@MODELS.take_objects
def _card_of(name: str, found: object) -> ModelCard:
    """A card as it is, or one that builds by the function or class; nothing is counted yet."""
    if isinstance(found, ModelCard):
        return replace(found, name=name)
    if isinstance(found, nn.Module) or not callable(found):
        raise ShrinkbenchError(
            f"'{name}' is a {type(found).__name__}; name a function or class that returns a fresh network, so "
            "that initial weights follow from the seed"
        )
    summary = (inspect.getdoc(found) or "").partition("\n")[0]
    return ModelCard(name=name, definition=summary, build=_builder(name, found), weights_note=NO_PUBLIC_WEIGHTS)


def _builder(name: str, make: Callable[..., Any]) -> Callable[[int], nn.Module]:
    """``make`` with the number of classes where it takes one, and without where it does not."""
    parameters = inspect.signature(make).parameters.values()
    takes = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in takes if p.default is p.empty]
    named = any(p.name == "num_classes" for p in takes)
    if len(required) > 1:
        raise ShrinkbenchError(
            f"'{name}' takes {', '.join(required)}; let it take the number of classes alone, or nothing"
        )

    given: dict[int, weakref.ref[nn.Parameter]] = {}
    tried: list[bool] = []

    def build(num_classes: int) -> nn.Module:
        if required and num_classes < 1:
            raise ShrinkbenchError(
                f"'{name}' takes {required[0]}, and nothing says how many classes there are; name a dataset "
                f"or give {required[0]} a default"
            )
        module = once(num_classes)
        _require_fresh(name, module, given)
        if not tried:
            with torch.random.fork_rng(devices=[]):
                _require_apart(name, module, once(num_classes))
            tried.append(True)
        return module

    def once(num_classes: int) -> nn.Module:
        with said_by(f"'{name}'"):
            if named and num_classes >= 1:
                module = make(num_classes=num_classes)
            else:
                module = make(num_classes) if required else make()
        if not isinstance(module, nn.Module):
            raise ShrinkbenchError(
                f"'{name}' returned a {type(module).__name__}; let it return a torch.nn.Module"
            )
        return module

    return build


def _require_apart(name: str, one: nn.Module, other: nn.Module) -> None:
    """Refuse two networks that share memory, as that of parameters made anew over kept tensors."""
    held = _places(one).values()
    shared = next((path for path, place in _places(other).items() if place in held), None)
    if shared is not None:
        raise ShrinkbenchError(
            f"called twice, '{name}' returns networks that share '{shared}', so that one run would go on from "
            "another; let it make a fresh network each time"
        )


def _places(module: nn.Module) -> dict[str, int]:
    """Where parameters and buffers lie in memory; those that hold nothing lie nowhere."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    plain = {path: t for path, t in tensors.items() if not t.is_meta and t.layout == torch.strided}
    places = {path: t.untyped_storage().data_ptr() for path, t in plain.items() if not is_lazy(t)}
    return {path: place for path, place in places.items() if place}


def _require_fresh(name: str, module: nn.Module, given: dict[int, weakref.ref[nn.Parameter]]) -> None:
    """Refuse parameters that were given out before: what trains one run would be where the next begins."""
    for parameter in module.parameters():
        known = given.get(id(parameter))
        if known is not None and known() is parameter:
            raise ShrinkbenchError(
                f"'{name}' returns parameters that it has returned before, so that one run would go on from "
                "another; let it make a fresh network each time"
            )
    for gone in [key for key, known in given.items() if known() is None]:
        del given[gone]
    given.update({id(parameter): weakref.ref(parameter) for parameter in module.parameters()})


def figures_of(card: ModelCard) -> tuple[int | None, int | None]:
    """Parameters and multiply-adds: the card's, else counted; ``None`` where the card does not say enough."""
    if card.parameters is not None and card.multiply_adds is not None:
        return card.parameters, card.multiply_adds
    if not card.input_shape:
        return card.parameters, card.multiply_adds
    return count(lambda: card.build(card.num_classes or 0), example_for(card, card.input_shape))


def parameters_of(card: ModelCard) -> int:
    """How many parameters the network has: as the card says, else counted."""
    if card.parameters is not None:
        return card.parameters
    return sum(p.numel() for p in card.build(card.num_classes or 0).parameters())


def shape_for(card: ModelCard, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """``shape`` of the data, else the card's; raises ``ShrinkbenchError`` where neither is known."""
    found = shape or card.input_shape
    if not found:
        raise ShrinkbenchError(
            f"the input shape of '{card.name}' is not known here; name a dataset, state input_shape in its "
            "card, or pass --input-shape to a command that takes it"
        )
    return found
