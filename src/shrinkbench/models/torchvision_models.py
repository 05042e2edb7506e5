"""Any classifier of torchvision by name, with the weights that torchvision publishes for it."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import nn

from shrinkbench.errors import ShrinkbenchError, UnknownNameError
from shrinkbench.libraries import torchvision
from shrinkbench.models.ambiguous import AMBIGUOUS, plain
from shrinkbench.models.card import MODELS, ModelCard, WeightsEntry
from shrinkbench.models.counting import count
from shrinkbench.spec import Normalisation
from shrinkbench.spec.published_names import PUBLISHED_AS

# Longest matching prefix wins.
REFERENCES = {
    "alexnet": "krizhevsky2014one",
    "convnext": "liu2022convnet",
    "densenet": "huang2017densely",
    "efficientnet_b": "tan2019efficientnet",
    "efficientnet_v2": "tan2021efficientnetv2",
    "googlenet": "szegedy2015going",
    "inception_v3": "szegedy2016rethinking",
    "maxvit": "tu2022maxvit",
    "mnasnet": "tan2019mnasnet",
    "mobilenet_v2": "sandler2018mobilenetv2",
    "mobilenet_v3": "howard2019searching",
    "regnet": "radosavovic2020designing",
    "resnet": "he2016deep",
    "resnext": "xie2017aggregated",
    "shufflenet": "ma2018shufflenet",
    "squeezenet": "iandola2016squeezenet",
    "swin_": "liu2021swin",
    "swin_v2": "liu2022swin",
    "vgg": "simonyan2015very",
    "vit": "dosovitskiy2021image",
    "wide_resnet": "zagoruyko2016wide",
}


@MODELS.add_resolver
def _from_name(name: str) -> ModelCard | None:
    """``torchvision/NAME``; the library is imported only then."""
    family, _, network = name.partition("/")
    return _make_card(network) if family.lower() == "torchvision" and network else None


def _make_card(name: str) -> ModelCard:
    """Card of torchvision's classifier ``name``, from the metadata of its default weights.

    Parameters and multiply-adds are counted here, on the meta device: torchvision rounds the latter to
    millions, and its parameters of Inception-v3 include a head that only training uses.
    """
    library = torchvision()
    return _card(_spell(name, library.models.list_models(module=library.models)))


@lru_cache
def _card(name: str) -> ModelCard:
    library = torchvision()
    entries = library.models.get_model_weights(name)
    default = entries.DEFAULT
    size = _crop_size(default)
    builder = library.models.get_model_builder(name)
    options = _options(name, size)
    build = _build(name, builder, options)
    classes = len(default.meta["categories"])
    parameters, multiply_adds = count(lambda: build(classes), (3, size, size))
    ordered = (default, *(w for w in entries if w is not default))
    return ModelCard(
        name=f"torchvision/{name}",
        family="torchvision",
        definition=_definition(name, builder, options, library.__version__),
        reference=REFERENCES[max((p for p in REFERENCES if name.startswith(p)), key=len)],
        input_shape=(3, size, size),
        num_classes=classes,
        parameters=parameters,
        multiply_adds=multiply_adds,
        agrees_with=(
            f"torchvision's metadata of {default}: {default.meta['num_params']:,} parameters, "
            f"{default.meta['_ops']:g}e9 multiply-adds"
        ),
        build=build,
        namesakes=_namesakes(name),
        published_as=PUBLISHED_AS.get(name, ()),
        weights=tuple(_entry(w) for w in ordered if _fits(name, w, size)),
    )


def _namesakes(name: str) -> dict[str, str]:
    candidates = AMBIGUOUS.get(plain(name).removesuffix("bn"), {})
    return {k: v for k, v in candidates.items() if k != f"torchvision/{name}"}


def _spell(name: str, known: list[str]) -> str:
    """Torchvision's spelling: exact but for case and hyphens, else the one that differs in separators alone."""
    exact = name.lower().replace("-", "_")
    if exact in known:
        return exact
    # regnet_x_16gf and regnet_x_1_6gf differ in a separator alone.
    alike = [k for k in known if plain(k) == plain(name)]
    if len(alike) == 1:
        return alike[0]
    near = alike or difflib.get_close_matches(name, known, n=3) or sorted(known)
    raise UnknownNameError(f"torchvision has no classifier '{name}'; it has {', '.join(near)}")


def _options(name: str, size: int) -> dict[str, Any]:
    """Arguments beyond the defaults that make the builder return the classifier its weights are for."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "transform_input": True, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": size}
    return {}


def _build(name: str, builder: Callable[..., Any], options: dict[str, Any]) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        module = builder(weights=None, num_classes=num_classes, **options)
        if not isinstance(module, nn.Module):
            raise ShrinkbenchError(f"torchvision's {name} is not a module; choose another network")
        return module

    return build


def _definition(name: str, builder: Callable[..., Any], options: dict[str, Any], version: str) -> str:
    first = (inspect.getdoc(builder) or name).split("\n\n")[0].replace("\n", " ").strip().rstrip(".")
    plain = re.sub(r"`+([^`<]*?)\s*(?:<[^>]*>)?`+_*", r"\1", first)
    extra = ", ".join(f"{k}={v}" for k, v in options.items())
    return f"torchvision {version} {name}{f' ({extra})' if extra else ''}: {plain}"


def _crop_size(weights: Any) -> int:
    crop = weights.transforms().crop_size
    return int(crop[0] if isinstance(crop, list | tuple) else crop)


def _fits(name: str, weights: Any, size: int) -> bool:
    """Position embeddings tie a ViT to one image size."""
    return not name.startswith("vit_") or _crop_size(weights) == size


def _entry(weights: Any) -> WeightsEntry:
    transform = weights.transforms()
    digits = re.search(r"-([0-9a-f]{8,64})\.pth$", weights.url)
    metrics = weights.meta["_metrics"].get("ImageNet-1K", {})
    return WeightsEntry(
        name=weights.name,
        dataset="imagenet",
        source=weights.meta.get("recipe") or weights.meta["_docs"] or "https://docs.pytorch.org/vision",
        licence=weights.meta.get("license")
        or "BSD-3-Clause (torchvision); trained on ImageNet-1K, whose images are for research use",
        normalisation=Normalisation(mean=tuple(transform.mean), std=tuple(transform.std)),
        sha256=digits.group(1) if digits else None,
        url=weights.url,
        published_top1=round(metrics["acc@1"] / 100, 5) if "acc@1" in metrics else None,
        note=(
            f"evaluated with resize {transform.resize_size[0]}, centre crop {transform.crop_size[0]}, "
            f"{transform.interpolation.value} interpolation"
        ),
    )
