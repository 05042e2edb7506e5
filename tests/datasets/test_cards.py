"""Every card is filled in, and importing the package stays cheap."""

import re
import subprocess
import sys

import pytest
from made_images import write_class_folders
from places import ROOT

from shrinkbench.datasets import DATASETS, EXTRAS, load_dataset
from shrinkbench.datasets.places365 import categories
from shrinkbench.errors import ShrinkbenchError, UnknownNameError

# A card's references need not name a paper where the data are the user's own.
OWN_DATA = ("imagefolder", "parquet", "text-files")


@pytest.mark.parametrize("name", DATASETS.names())
def test_every_card_is_filled_in(name):
    card = DATASETS.get(name)
    assert card.name == name
    assert all([card.description, card.licence, card.splits, card.recipe, card.pretrain_recipe])
    assert card.reference or name in OWN_DATA
    assert card.recipe.removesuffix("finetune") == card.pretrain_recipe.removesuffix("train")
    if name not in OWN_DATA:
        assert card.num_classes >= 2
        channels = card.image_shape[0] if card.task is None else 0  # tokens are not normalised
        assert len(card.normalisation.mean) == len(card.normalisation.std) == channels


def test_references_are_in_the_bibliography():
    bibliography = ROOT / "docs" / "references.bib"
    keys = set(re.findall(r"@\w+\{([^,]+),", bibliography.read_text(encoding="utf-8")))
    cards = [card for _, card in (*DATASETS.items(), *EXTRAS.items())]
    assert {card.reference for card in cards if card.reference} <= keys


def test_importing_the_package_loads_no_heavy_library():
    code = (
        "import sys, shrinkbench.datasets\n"
        "print([m for m in ('torchvision', 'sklearn', 'pyarrow', 'scipy', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_dataset_is_explained():
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10'"):
        load_dataset("cifar1O")


def test_places365_folders_are_labelled_by_category(tmp_path):
    names = ("airfield", "alley", "zen_garden")
    write_class_folders(tmp_path / "val", names, 1)
    places = load_dataset("places365", tmp_path)
    assert places.test.labels.tolist() == [0, 4, 364]
    assert [places.class_names[label] for label in places.test.labels] == list(names)
    assert len(set(categories())) == 365
    write_class_folders(tmp_path / "train", ("moon",), 1)
    with pytest.raises(ShrinkbenchError, match="train/moon is one too many"):
        load_dataset("places365", tmp_path)
