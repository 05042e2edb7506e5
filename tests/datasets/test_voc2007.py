"""PASCAL VOC 2007 in the published layout, on made images."""

import pytest
from made_images import noise, png

from shrinkbench.datasets import load_dataset
from shrinkbench.datasets.voc2007 import largest_object
from shrinkbench.errors import ShrinkbenchError


def box(name, width, height, difficult=0):
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>"
        f"<xmax>{1 + width}</xmax><ymax>{1 + height}</ymax></bndbox></object>"
    )


def annotation(*objects):
    return f"<annotation><filename>x.jpg</filename>{''.join(objects)}</annotation>"


@pytest.mark.parametrize(
    ("objects", "label"),
    [
        ([box("dog", 10, 10)], 11),
        ([box("dog", 10, 10), box("person", 9, 12)], 14),  # 108 pixels against 100
        ([box("dog", 10, 10), box("person", 90, 90, difficult=1)], 11),
        ([box("cat", 2, 2, difficult=1), box("tvmonitor", 3, 3, difficult=1)], 19),
    ],
)
def test_the_label_is_that_of_the_largest_object(tmp_path, objects, label):
    (tmp_path / "a.xml").write_text(annotation(*objects))
    assert largest_object(tmp_path / "a.xml") == label


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2007"
    for folder in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    splits = {"train": ["000001", "000004"], "val": ["000002"], "test": ["000003"]}
    names = {"000001": "aeroplane", "000002": "cow", "000003": "tvmonitor", "000004": "boat"}
    for split, identifiers in splits.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{i}\n" for i in identifiers))
    for identifier, name in names.items():
        (root / "JPEGImages" / f"{identifier}.jpg").write_bytes(png(noise(1, height=80, width=60)))
        (root / "Annotations" / f"{identifier}.xml").write_text(annotation(box(name, 5, 5)))
    return root


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_the_published_splits_are_kept(root, levels):
    dataset = load_dataset("voc2007", [root, root.parent, root.parent.parent][levels])
    names = [
        [dataset.class_names[label] for label in part.labels]
        for part in (dataset.train, dataset.validation, dataset.test)
    ]
    assert names == [["aeroplane", "boat"], ["cow"], ["tvmonitor"]]
    batch, _ = next(dataset.test.batches(1, normalisation=dataset.card.normalisation))
    assert batch.shape == (1, 3, 224, 224)


def test_without_the_test_archive_there_is_no_test_split(root):
    (root / "ImageSets" / "Main" / "test.txt").unlink()
    dataset = load_dataset("voc2007", root)
    assert (len(dataset.validation), len(dataset.test)) == (1, 0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "Annotations" / "000002.xml").unlink(), "000002.xml cannot be read"),
        (lambda root: (root / "Annotations" / "000002.xml").write_text("<annotation>"), "000002.xml cannot be"),
        (lambda root: (root / "Annotations" / "000002.xml").write_text(annotation()), "names no object"),
        (lambda root: (root / "Annotations" / "000002.xml").write_text(annotation(box("yak", 1, 1))), "'yak'"),
        (lambda root: (root / "ImageSets" / "Main" / "val.txt").write_text(""), "val.txt names no image"),
        (lambda root: (root / "JPEGImages" / "000004.jpg").unlink(), "cannot read .*000004"),
    ],
)
def test_damage_is_named(root, damage, message):
    damage(root)
    with pytest.raises(ShrinkbenchError, match=message) as caught:
        load_dataset("voc2007", root)
    assert "\n" not in str(caught.value)
