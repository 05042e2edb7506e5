"""Extra evaluations: robustness sets beside the test split, each bound to the dataset whose classes it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shrinkbench.datasets import cifar10_1
from shrinkbench.datasets.card import ExtraCard, ExtraImages
from shrinkbench.datasets.corruptions import Corrupted, load_cifar10_c, load_imagenet_c, parse_corruption
from shrinkbench.registry import Registry

Loader = Callable[[ExtraCard, Corrupted, Path | None], ExtraImages]

_CORRUPTED: dict[str, tuple[str, Loader, str]] = {
    "cifar10-c": ("cifar10", load_cifar10_c, "CC BY 4.0"),
    "imagenet-c": ("imagenet", load_imagenet_c, "CC BY 4.0"),
}


def _card(family: str, corruption: str) -> ExtraCard:
    dataset, loader, licence = _CORRUPTED[family]
    wanted = parse_corruption(corruption)
    what = (
        "the 15 corruptions of the benchmark at severities 1 to 5, all images together"
        if not corruption
        else f"{wanted.corruptions[0]} at severity {', '.join(map(str, wanted.severities))}"
    )

    def load(data: Path | None) -> ExtraImages:
        return loader(card, wanted, data)

    card = ExtraCard(
        name=f"{family}/{corruption}" if corruption else family,
        dataset=dataset,
        description=f"the test images of {dataset} under {what}",
        reference="hendrycks2019robustness",
        licence=licence,
        load=load,
    )
    return card


EXTRAS: Registry[ExtraCard] = Registry("extra evaluation", of=ExtraCard)


@EXTRAS.add_resolver
def _resolve(name: str) -> ExtraCard | None:
    """``cifar10-c/fog`` and ``cifar10-c/fog/3``: one corruption, at all severities or at one."""
    family, _, corruption = name.lower().partition("/")
    return _card(family, corruption) if family in _CORRUPTED and corruption else None


def _cifar10_1(version: str, images: int) -> ExtraCard:
    def load(data: Path | None) -> ExtraImages:
        return cifar10_1.load(card, version, data)

    card = ExtraCard(
        name="cifar10.1" if version == "v6" else f"cifar10.1-{version}",
        dataset="cifar10",
        description=f"CIFAR-10.1 {version}: {images:,} new images collected as CIFAR-10's test images were",
        reference="recht2018cifar",
        licence="MIT",
        load=load,
    )
    return card


EXTRAS.add("cifar10.1", _cifar10_1("v6", 2000), aliases=("cifar10.1-v6",))
EXTRAS.add("cifar10.1-v4", _cifar10_1("v4", 2021))
for _family in _CORRUPTED:
    EXTRAS.add(_family, _card(_family, ""))


def load_extra(name: str, data: Path | str | None = None) -> ExtraImages:
    """Load the extra evaluation ``name`` from the folder ``data`` (``None``: the cache, or a download)."""
    return EXTRAS.get(name).load(None if data is None else Path(data).expanduser())
