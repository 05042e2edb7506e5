"""Tiny ImageNet in the published layout, on made images."""

import shutil

import numpy as np
import pytest
from made_images import noise, png

from shrinkbench.datasets import load_dataset
from shrinkbench.errors import ShrinkbenchError

SYNSETS = tuple(f"n{number:08d}" for number in range(200))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """20 training images in two classes, one in the rest; one validation image per class, listed backwards."""
    root = tmp_path_factory.mktemp("tiny") / "tiny-imagenet-200"
    for number, synset in enumerate(SYNSETS):
        folder = root / "train" / synset / "images"
        folder.mkdir(parents=True)
        (folder.parent / f"{synset}_boxes.txt").write_text("")
        for image in range(20 if number < 2 else 1):
            content = png(noise((number, image), height=64, width=64))
            (folder / f"{synset}_{image:02d}.JPEG").write_bytes(content)
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for row, synset in enumerate(reversed(SYNSETS)):
        (root / "val" / "images" / f"val_{row}.JPEG").write_bytes(png(noise(row, height=64, width=64)))
        lines.append(f"val_{row}.JPEG\t{synset}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


@pytest.fixture
def root(published, tmp_path):
    return shutil.copytree(published, tmp_path / "tiny-imagenet-200")


@pytest.mark.parametrize("inside", [True, False])
def test_the_published_layout_is_read(published, inside):
    dataset = load_dataset("tiny-imagenet", published if inside else published.parent)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [236, 2, 200]
    assert dataset.class_names == SYNSETS
    assert dataset.test.labels.tolist() == list(range(199, -1, -1))
    assert np.array_equal(dataset.test.images[3].permute(1, 2, 0), noise(3, height=64, width=64))
    assert np.array_equal(dataset.validation.images[1].permute(1, 2, 0), noise((1, 19), height=64, width=64))


def test_validation_images_in_class_folders_are_read(root):
    for row, synset in enumerate(reversed(SYNSETS)):
        (root / "val" / synset).mkdir()
        (root / "val" / "images" / f"val_{row}.JPEG").rename(root / "val" / synset / f"val_{row}.JPEG")
    shutil.rmtree(root / "val" / "images")
    (root / "val" / "val_annotations.txt").unlink()
    assert load_dataset("tiny-imagenet", root).test.labels.tolist() == list(range(200))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root / "val"), "lacks the folder val/"),
        (lambda root: shutil.rmtree(root / "train" / SYNSETS[5]), "has 199 class folders"),
        (
            lambda root: shutil.rmtree(root / "train" / SYNSETS[5] / "images"),
            "cannot read the folder .*5/images",
        ),
        (lambda root: (root / "val" / "images" / "val_7.JPEG").unlink(), "cannot read .*val_7"),
        (
            lambda root: (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99999999\n"),
            "row 0 of .*val_annotations.txt names the class 'n99999999'",
        ),
    ],
)
def test_damage_is_named(root, damage, message):
    damage(root)
    with pytest.raises(ShrinkbenchError, match=message):
        load_dataset("tiny-imagenet", root)
