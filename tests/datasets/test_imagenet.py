"""ImageNet: the 1,000 synsets and the sample of real images."""

import pytest
from made_images import write_class_folders

from shrinkbench.datasets import load_dataset
from shrinkbench.datasets.imagenet import synsets
from shrinkbench.errors import ShrinkbenchError


def test_the_synsets_are_those_of_timm():
    info = pytest.importorskip("timm.data.imagenet_info", reason="timm holds the independent list")
    assert list(synsets()) == info.ImageNetInfo().label_names()


def test_the_real_sample_has_one_image_of_each_of_36_synsets(imagenet_folder):
    imagenet = load_dataset("imagenet", imagenet_folder)
    folders = sorted(path.name for path in (imagenet_folder / "val").iterdir())
    assert len(imagenet.test) == len(folders) == 36
    assert [imagenet.class_names[label] for label in imagenet.test.labels] == folders
    assert len(imagenet.class_names) == 1000
    # Labels of well-known classes: goldfinch, pug and pole, as the weights of torchvision order them.
    known = {"n01531178": 11, "n02110958": 254, "n03976657": 733}
    for folder, label in zip(folders, imagenet.test.labels.tolist(), strict=True):
        assert known.get(folder, label) == label


def test_the_classes_are_in_the_order_of_the_published_weights(imagenet_folder):
    import torchvision

    categories = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    for path in (imagenet_folder / "val").glob("*/*"):
        synset, _, words = path.stem.partition("_")
        assert categories[synsets().index(synset)].lower() == words.replace("_", " ").lower()


def test_a_folder_of_synsets_alone_is_the_test_split(imagenet_folder):
    direct = load_dataset("imagenet", imagenet_folder / "val")
    assert len(direct.test) == 36
    assert direct.revision == load_dataset("imagenet", imagenet_folder).revision


def test_train_and_val_make_three_splits(tmp_path):
    write_class_folders(tmp_path / "train", synsets()[:2], 100, height=1, width=1)
    write_class_folders(tmp_path / "val", synsets()[:3], 1, height=1, width=1)
    imagenet = load_dataset("imagenet", tmp_path)
    assert [len(part) for part in (imagenet.train, imagenet.validation, imagenet.test)] == [198, 2, 3]
    assert [imagenet.validation.encoded.names[row] for row in imagenet.validation.rows] == [
        f"{synset}/099.png" for synset in synsets()[:2]
    ]


def test_a_class_folder_too_many_is_named(tmp_path):
    write_class_folders(tmp_path / "val", (*synsets()[:2], "n99999999"), 1)
    with pytest.raises(ShrinkbenchError, match="n99999999 is one too many: 'n99999999' is none of the 1000"):
        load_dataset("imagenet", tmp_path)


def test_unsorted_images_are_explained(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    with pytest.raises(ShrinkbenchError, match="images that are not sorted"):
        load_dataset("imagenet", tmp_path)


def test_no_folder_says_how_to_get_it():
    with pytest.raises(ShrinkbenchError, match=r"image-net\.org.*--data"):
        load_dataset("imagenet")
