"""Any image-classification dataset in Hugging Face's Parquet or Arrow form, described by its own metadata."""

from __future__ import annotations

from pathlib import Path

from shrinkbench.datasets.assemble import assemble, cut_tenths, hold_out
from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.folders import require_folder
from shrinkbench.datasets.parquet import class_names_of, find_parquet, open_parquet
from shrinkbench.datasets.sized import sources
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import IMAGENET_NORMALISATION

HOLD_OUT = 10


def _load(data: Path | None) -> Dataset:
    """Load the Parquet file ``data``, or the folder ``data`` of Parquet files or of ``save_to_disk``."""
    place = data if data is not None and data.is_file() else require_folder(data, "parquet")
    files = find_parquet(place, "parquet")
    if not files:
        raise ShrinkbenchError(
            f"the folder {place} holds no Parquet file and no dataset of save_to_disk; put train.parquet and "
            "test.parquet there, or save a dataset of images there"
        )
    class_names = class_names_of(files.get("train") or next(iter(files.values())))
    encoded = {part: open_parquet(paths, class_names) for part, paths in files.items()}
    card, parts, digests = sources(PARQUET, encoded, class_names)
    splits = cut_tenths(parts["train"], place) if set(parts) == {"train"} else hold_out(parts, HOLD_OUT, place)
    return assemble(card, splits, data=place, digests=digests, class_names=class_names)


PARQUET = DATASETS.add(
    "parquet",
    DatasetCard(
        name="parquet",
        description="any Hugging Face image-classification Parquet: a column image (or img) of encoded images "
        "and a column label; small images of one size (at most 64 x 64) live in memory, others stream at "
        "224 x 224",
        reference="",
        licence="that of the images",
        num_classes=None,
        image_shape=None,
        normalisation=IMAGENET_NORMALISATION,
        splits="train*, validation* and test* files as they are; validation without test is test; without "
        "validation every tenth training image of each class, in order of row; train alone: of every ten "
        "images of a class the 9th is validation and the 10th test",
        augmentation="resized-crop-flip",
        recipe="imagenet-finetune",
        pretrain_recipe="imagenet-train",
        load=_load,
    ),
)
