"""Images with boxes on a small made set in the layout of VOC 2007."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_voc import OBJECT, write_voc
from PIL import Image

from shrinkbench.datasets.voc2007 import CLASSES
from shrinkbench.datasets.voc_detection import DetectionData, parse_objects, read_voc
from shrinkbench.errors import ShrinkbenchError

PERSON, CAR = CLASSES.index("person") + 1, CLASSES.index("car") + 1


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("voc"))


def test_boxes_count_from_zero_and_difficult_objects_are_told_apart(voc):
    images = read_voc(voc, "trainval")
    image, objects = images[0]
    assert len(images) == 8
    assert image.shape == (3, 96, 128)
    assert objects.labels.tolist() == [CAR, PERSON]
    assert objects.difficult.tolist() == [False, True]
    assert objects.boxes[1].tolist() == [99, 69, 119, 89]
    left, top, right, bottom = objects.boxes[0].int().tolist()
    assert image[2, top + 1, left + 1] > 0.8 > 0.6 > image[2, top - 2 if top > 2 else bottom + 3, right + 3]
    assert objects.easy().labels.tolist() == [CAR]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation></annotation>", "names no object"),
        ("<annotation><object><name>unicorn</name></object></annotation>", "class 'unicorn'"),
        ("<annotation><object><name>cat</name></object></annotation>", "cannot be read"),
        (f"<annotation>{OBJECT.format(5, 5, 5, 9, name='cat', difficult=0)}</annotation>", "box without area"),
        (f"<annotation>{OBJECT.format('nan', 5, 8, 9, name='cat', difficult=0)}</annotation>", "of no numbers"),
        (f"<annotation>{OBJECT.format(5, 5, 'inf', 9, name='cat', difficult=0)}</annotation>", "of no numbers"),
        ("<annotation", "cannot be read"),
    ],
)
def test_damaged_annotations_are_told_with_their_file(text, message):
    with pytest.raises(ShrinkbenchError, match=message) as raised:
        parse_objects(text.encode(), Path("000001.xml"))
    assert "000001.xml" in str(raised.value)


def test_a_missing_split_names_those_that_exist(voc, tmp_path):
    with pytest.raises(ShrinkbenchError, match="it has: test, trainval"):
        read_voc(voc, "val")
    with pytest.raises(ShrinkbenchError, match="holds no VOC2007"):
        read_voc(tmp_path, "test")


def data_of(folder, **fields):
    return DetectionData(
        train_images=read_voc(folder, "trainval"), test_images=read_voc(folder, "test"), **fields
    )


def epoch_of(data, *, augment=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [pair for batch in data.train(3, generator=generator, augment=augment) for pair in batch]


def test_training_shows_every_image_once_some_mirrored_with_their_boxes(voc):
    plain = {tuple(objects.easy().boxes[0].tolist()) for _, objects in read_voc(voc, "trainval")}
    mirrored = 0
    for image, objects in epoch_of(data_of(voc)):
        left, top, right, bottom = objects.boxes[0].int().tolist()
        assert (image[:, top + 5 : bottom - 5, left + 5 : right - 5] - 0.5).abs().mean() > 0.3  # in colour
        mirrored += tuple(objects.boxes[0].tolist()) not in plain
    assert 0 < mirrored < 8
    whole = epoch_of(data_of(voc), augment=False)
    assert {tuple(objects.boxes[0].tolist()) for _, objects in whole} == plain
    assert [len(objects.labels) for _, objects in whole] == [1] * 8  # the difficult one is left out


def test_images_of_difficult_objects_alone_are_no_training_set(tmp_path):
    root = write_voc(tmp_path) / "VOCdevkit" / "VOC2007"
    text = OBJECT.format(5, 5, 50, 50, name="cat", difficult=1)
    for path in root.glob("Annotations/*.xml"):
        path.write_text(f"<annotation>{text}</annotation>")
    with pytest.raises(ShrinkbenchError, match="no image has an object that is not difficult"):
        epoch_of(data_of(tmp_path))


def test_the_revision_follows_from_every_file_split_and_size(tmp_path):
    root = write_voc(tmp_path) / "VOCdevkit" / "VOC2007"
    specs = [data_of(tmp_path).spec, data_of(tmp_path, sides=(96, 128)).spec]
    specs.append(data_of(tmp_path, validation_images=read_voc(tmp_path, "test")).spec)
    annotation = root / "Annotations" / "000003.xml"
    annotation.write_text(annotation.read_text().replace("person", "car"))
    specs.append(data_of(tmp_path).spec)
    picture = root / "JPEGImages" / "000002.jpg"
    picture.write_bytes((root / "JPEGImages" / "000004.jpg").read_bytes())
    specs.append(data_of(tmp_path).spec)
    (root / "ImageSets" / "Main" / "test.txt").write_text("000001")
    specs.append(data_of(tmp_path).spec)
    assert len(set(specs)) == len(specs)
    assert data_of(tmp_path).spec == specs[-1]


def test_files_that_changed_since_they_were_hashed_are_refused(tmp_path):
    root = write_voc(tmp_path) / "VOCdevkit" / "VOC2007"
    images = read_voc(tmp_path, "trainval")
    assert images.digest == read_voc(tmp_path, "trainval").digest
    annotation = root / "Annotations" / "000003.xml"
    annotation.write_text(annotation.read_text().replace("person", "car"))
    with pytest.raises(ShrinkbenchError, match=r"000003\.xml has changed since it was hashed"):
        images[3]


def test_grey_images_of_16_bits_are_read_and_of_32_refused(tmp_path):
    folder = write_voc(tmp_path)
    images = read_voc(folder, "trainval")
    path = images.root / images._contents.names[0]
    Image.fromarray(np.full((96, 128), 30_000, dtype=np.uint16)).save(path, format="png")
    assert float(read_voc(folder, "trainval")[0][0].max()) == pytest.approx(117 / 255)
    Image.fromarray(np.full((96, 128), 30_000, dtype=np.int32)).save(path, format="tiff")
    with pytest.raises(ShrinkbenchError, match="32 bits per pixel"):
        read_voc(folder, "trainval")[0]
