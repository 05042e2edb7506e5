"""From the parts that a source has to the three splits of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shrinkbench.datasets.absent import AbsentImages
from shrinkbench.datasets.card import Dataset, DatasetCard, ImageSource
from shrinkbench.datasets.memory import InMemoryImages
from shrinkbench.datasets.revision import revision_of
from shrinkbench.datasets.splits import every_nth, occurrence
from shrinkbench.datasets.streamed import StreamedImages
from shrinkbench.errors import ShrinkbenchError

SplitImages = InMemoryImages | StreamedImages


def assemble(
    card: DatasetCard,
    parts: Mapping[str, SplitImages],
    *,
    data: Path,
    digests: Mapping[str, str],
    class_names: tuple[str, ...],
) -> Dataset:
    """The dataset of ``parts`` (keys ``train``, ``validation``, ``test``), whose content has ``digests``.

    A part that the data lack is an error once its images are asked for, not before: weights can be evaluated
    where there is nothing to train on.
    """

    def split(name: str) -> ImageSource:
        return parts[name] if name in parts else AbsentImages(f"{data} has no {name} images; add them")

    return Dataset(
        card=card,
        train=split("train"),
        validation=split("validation"),
        test=split("test"),
        revision=revision_of(card, *(f"{name} {digest}" for name, digest in sorted(digests.items()))),
        class_names=class_names,
    )


def hold_out(parts: Mapping[str, SplitImages], n: int, data: Path) -> dict[str, SplitImages]:
    """Where ``train`` has no ``validation`` beside it, cut one off: every n-th image of each class."""
    found = dict(parts)
    if "train" in found and "validation" not in found:
        whole = found["train"]
        kept, cut = every_nth(whole.labels, n)
        if not len(cut):
            raise ShrinkbenchError(
                f"no class of {data} has the {n} training images from which one is cut off for validation; "
                "add images, or a validation split"
            )
        found["train"], found["validation"] = whole.select(kept), whole.select(cut)
    return found


def cut_tenths(whole: SplitImages, data: Path) -> dict[str, SplitImages]:
    """Cut a source without splits: of every ten images of a class the 9th is validation, the 10th test."""
    place = occurrence(whole.labels) % 10
    if not (place == 9).any():
        raise ShrinkbenchError(
            f"no class of {data} has the ten images from which validation and test are cut; "
            "add images, or the folders train/ and val/"
        )
    return {
        "train": whole.select((place < 8).nonzero().flatten()),
        "validation": whole.select((place == 8).nonzero().flatten()),
        "test": whole.select((place == 9).nonzero().flatten()),
    }
