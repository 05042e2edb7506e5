"""Any classifier of timm by name, where that optional package is installed."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import nn

from shrinkbench.errors import UnknownNameError
from shrinkbench.libraries import optional, torchvision
from shrinkbench.models.card import MODELS, NO_PUBLIC_WEIGHTS, ModelCard, WeightsEntry
from shrinkbench.models.counting import count
from shrinkbench.spec import Normalisation
from shrinkbench.spec.published_names import PUBLISHED_AS


def _timm() -> Any:
    torchvision()  # timm imports it
    return optional("timm", extra="timm", purpose="models named timm/...")


@MODELS.add_resolver
def _from_name(name: str) -> ModelCard | None:
    """``timm/NAME``; the library is imported only then."""
    family, _, network = name.partition("/")
    return make_card(network) if family.lower() == "timm" and network else None


@lru_cache
def make_card(name: str) -> ModelCard:
    """Card of timm's classifier ``name``, with or without a tag (``resnet50`` or ``resnet50.a1_in1k``).

    Parameters and multiply-adds are counted here, on the meta device. The weights are those of the tag, or of
    every tag with as many classes as the default one.
    """
    timm = _timm()
    architecture, _, tag = name.lower().partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(f'timm/{n}' for n in near)}?" if near else ""
        raise UnknownNameError(f"timm {timm.__version__} has no model '{name}'{hint}")
    known = timm.list_pretrained(f"{architecture}.*")
    default = timm.get_pretrained_cfg(architecture)
    if tag and f"{architecture}.{tag}" not in known:
        raise UnknownNameError(
            f"timm's {architecture} has no weights '{tag}'; it has {', '.join(known) or 'none'}"
        )
    config = timm.get_pretrained_cfg(f"{architecture}.{tag}") if tag else default
    classes = (config.num_classes if config else None) or 1000
    shape = tuple(config.input_size) if config else (3, 224, 224)
    build = _build(timm.create_model, architecture)
    parameters, multiply_adds = count(lambda: build(classes), shape)
    first = f"{architecture}.{tag or (default.tag if default else '')}"
    tags = [first] if tag else sorted(known, key=lambda k: k != first)
    entries = tuple(e for k in tags if (e := _entry(k, timm.get_pretrained_cfg(k), classes)) is not None)
    return ModelCard(
        name=f"timm/{architecture}{'.' if tag else ''}{tag}",
        family="timm",
        definition=f"timm {timm.__version__} {architecture}, input {'x'.join(map(str, shape))}",
        reference="wightman2019timm",
        input_shape=shape,
        num_classes=classes,
        parameters=parameters,
        multiply_adds=multiply_adds,
        agrees_with="counted from the module that timm builds",
        build=build,
        published_as=PUBLISHED_AS.get(architecture, ()),
        weights=entries,
        weights_note="" if entries else NO_PUBLIC_WEIGHTS,
    )


def _build(create: Callable[..., nn.Module], architecture: str) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        return create(architecture, pretrained=False, num_classes=num_classes)

    return build


def _entry(name: str, config: Any, classes: int) -> WeightsEntry | None:
    """Entry of one tag; ``None`` where it has other classes or no download."""
    url, file = config.url or None, None
    if config.hf_hub_id:
        remote = config.hf_hub_filename or "model.safetensors"
        url = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{remote}"
        file = f"timm-{name}.{remote.rsplit('.', 1)[-1]}"
    if url is None or config.num_classes != classes:
        return None
    return WeightsEntry(
        name=name.partition(".")[2] or name,
        dataset="imagenet" if classes == 1000 else f"{classes} classes",
        source=f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else url,
        licence=config.license or "not stated by timm",
        normalisation=Normalisation(mean=tuple(config.mean), std=tuple(config.std)),
        url=url,
        note=(
            f"the package states neither digest nor accuracy; evaluated at {config.input_size[-1]} pixels, "
            f"{config.interpolation} interpolation, crop {config.crop_pct:g}"
        ),
        file=file,
    )
