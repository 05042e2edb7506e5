"""Extra evaluations on made files in the published layouts."""

import shutil

import numpy as np
import pytest
import torch
from made_images import noise, png, write_class_folders

from shrinkbench.datasets import DATASETS, EXTRAS, load_extra
from shrinkbench.datasets.corruptions import BENCHMARK, GROUPS, SEVERITIES
from shrinkbench.datasets.imagenet import synsets
from shrinkbench.errors import ShrinkbenchError, UnknownNameError
from shrinkbench.spec import IMAGENET_NORMALISATION, Normalisation

DATA, LABELS = "cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy"
RAW = Normalisation(mean=(0.0,) * 3, std=(1 / 255,) * 3)


def pixels_of(source):
    images, labels = zip(*source.batches(7, normalisation=RAW), strict=True)
    return torch.cat(images).round().permute(0, 2, 3, 1).to(torch.uint8).numpy(), torch.cat(labels).tolist()


def write_cifar10_1(folder, version, count):
    pixels = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.int32)
    np.save(folder / f"cifar10.1_{version}_data.npy", pixels)
    np.save(folder / f"cifar10.1_{version}_labels.npy", labels)
    return pixels, labels


@pytest.mark.parametrize(("name", "version"), [("cifar10.1", "v6"), ("cifar10.1-v4", "v4")])
@pytest.mark.parametrize("inside", [".", "datasets"])
def test_cifar10_1_is_read(tmp_path, name, version, inside):
    (tmp_path / inside).mkdir(exist_ok=True)
    pixels, labels = write_cifar10_1(tmp_path / inside, version, 23)
    extra = load_extra(name, tmp_path)
    got, got_labels = pixels_of(extra.images)
    assert np.array_equal(got, pixels)
    assert got_labels == labels.tolist()
    assert extra.card.dataset == "cifar10"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "cifar10.1_v6_labels.npy").unlink(),
            "cifar10.1_v6_labels.npy is missing; fetch it from",
        ),
        (lambda f: (f / "cifar10.1_v6_data.npy").write_bytes(b"\x93NUMPY"), "cifar10.1_v6_data.npy is damaged"),
        (lambda f: np.save(f / "cifar10.1_v6_labels.npy", np.arange(23)), "the label 10 in row 10 of"),
        (
            lambda f: np.save(f / "cifar10.1_v6_labels.npy", np.arange(9)),
            r"where \(9, 32, 32, 3\) was expected",
        ),
        (lambda f: np.save(f / "cifar10.1_v6_data.npy", np.zeros((23, 32, 32, 3))), "float64 values"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message):
    write_cifar10_1(tmp_path, "v6", 23)
    damage(tmp_path)
    with pytest.raises(ShrinkbenchError, match=message):
        load_extra("cifar10.1", tmp_path)


@pytest.fixture(scope="module")
def cifar10_c(tmp_path_factory):
    """Four images at each severity; every corruption is its own constant, plus the severity."""
    folder = tmp_path_factory.mktemp("extra") / "CIFAR-10-C"
    folder.mkdir()
    severity = np.repeat(np.arange(1, 6), 4).reshape(-1, 1, 1, 1)
    for number, name in enumerate(GROUPS):
        pixels = np.broadcast_to(10 * number + severity, (20, 32, 32, 3)).astype(np.uint8)
        np.save(folder / f"{name}.npy", pixels)
    np.save(folder / "labels.npy", np.tile(np.arange(4), 5))
    return folder


def test_one_corruption_at_one_severity(cifar10_c):
    extra = load_extra("cifar10-c/fog/3", cifar10_c.parent)
    pixels, labels = pixels_of(extra.images)
    assert pixels.shape == (4, 32, 32, 3)
    assert (pixels == 10 * list(GROUPS).index("fog") + 3).all()
    assert labels == [0, 1, 2, 3]


def test_the_benchmark_is_every_corruption_at_every_severity(cifar10_c):
    pixels, labels = pixels_of(load_extra("cifar10-c", cifar10_c).images)
    values = pixels[:, 0, 0, 0].tolist()
    expected = [10 * number + s for number in range(15) for s in SEVERITIES for _ in range(4)]
    assert values == expected
    assert labels == [0, 1, 2, 3] * 75
    assert len(load_extra("cifar10-c/fog", cifar10_c).images) == 20


def test_a_subset_takes_every_corruption_in_equal_shares(cifar10_c):
    subset = load_extra("cifar10-c", cifar10_c).images.subset(76)
    values, counts = np.unique(pixels_of(subset)[0][:, 0, 0, 0], return_counts=True)
    assert len(values) == 75
    assert sorted(counts) == [1] * 74 + [2]


def test_corrupted_images_cannot_be_trained_on(cifar10_c):
    images = load_extra("cifar10-c/fog/1", cifar10_c).images
    with pytest.raises(ShrinkbenchError, match="not to be shuffled, augmented or trained on"):
        images.batches(2, normalisation=RAW, generator=torch.Generator())


def test_a_missing_corruption_is_named(cifar10_c, tmp_path):
    copy = shutil.copytree(cifar10_c, tmp_path / "CIFAR-10-C")
    (copy / "snow.npy").unlink()
    with pytest.raises(ShrinkbenchError, match=r"snow\.npy is missing"):
        load_extra("cifar10-c", tmp_path)


def test_revisions_follow_name_and_content(cifar10_c, tmp_path):
    copy = shutil.copytree(cifar10_c, tmp_path / "CIFAR-10-C")
    np.save(copy / "fog.npy", np.zeros((20, 32, 32, 3), dtype=np.uint8))
    wanted = [("cifar10-c/fog/3", cifar10_c), ("cifar10-c/fog/4", cifar10_c), ("cifar10-c/fog/3", copy)]
    revisions = [load_extra(name, folder).revision for name, folder in wanted]
    assert len(set(revisions)) == 3
    assert load_extra("cifar10-c/snow/3", copy).revision == load_extra("cifar10-c/snow/3", cifar10_c).revision


@pytest.mark.parametrize("grouped", [True, False])
def test_imagenet_c_is_cut_and_not_resized(tmp_path, grouped):
    for severity in SEVERITIES:
        parent = tmp_path / "weather" if grouped else tmp_path
        write_class_folders(
            parent / "fog" / str(severity), synsets()[3:5], 1, height=224, width=224, seed=severity
        )
    extra = load_extra("imagenet-c/fog/2", tmp_path)
    images, labels = next(extra.images.batches(2, normalisation=IMAGENET_NORMALISATION))
    assert labels.tolist() == [3, 4]
    mean, std = (torch.tensor(v) for v in (IMAGENET_NORMALISATION.mean, IMAGENET_NORMALISATION.std))
    expected = torch.from_numpy(noise((2, 1, 0), height=224, width=224)) / 255
    assert torch.allclose(images[1].permute(1, 2, 0) * std + mean, expected, atol=1e-6)
    assert len(load_extra("imagenet-c/fog", tmp_path).images) == 10
    with pytest.raises(ShrinkbenchError, match="gaussian_noise/1 is missing"):
        load_extra("imagenet-c", tmp_path)


def test_every_extra_belongs_to_a_dataset_and_is_filled_in():
    for name, card in EXTRAS.items():
        assert card.name == name
        assert card.dataset in DATASETS
        assert all([card.description, card.reference, card.licence])
    assert EXTRAS.get("cifar10-c/fog").name == "cifar10-c/fog"
    assert len(BENCHMARK) == 15


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("cifar10-c/rain", ShrinkbenchError, "unknown corruption 'rain'"),
        ("cifar10-c/fog/6", ShrinkbenchError, "the severity '6' of fog"),
        ("cifar11.1", UnknownNameError, "did you mean 'cifar10.1'"),
        ("cifar100-c/fog", UnknownNameError, "unknown extra evaluation"),
    ],
)
def test_unknown_names_are_explained(name, error, message):
    with pytest.raises(error, match=message):
        EXTRAS.get(name)


def test_a_damaged_corrupted_image_is_named(tmp_path):
    (tmp_path / "fog" / "1" / synsets()[0]).mkdir(parents=True)
    path = tmp_path / "fog" / "1" / synsets()[0] / "a.png"
    path.write_bytes(png(noise(0))[:50])
    images = load_extra("imagenet-c/fog/1", tmp_path).images
    with pytest.raises(ShrinkbenchError, match=str(path)):
        list(images.batches(1, normalisation=IMAGENET_NORMALISATION))


def test_a_corruption_overwritten_after_it_was_hashed_is_refused(tmp_path):
    pixels = np.zeros((50, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "labels.npy", np.arange(50) % 10)
    np.save(tmp_path / "fog.npy", pixels)
    source = load_extra("cifar10-c/fog", tmp_path).images
    assert len(list(source.batches(10, normalisation=RAW))) == 5
    batches = source.subset(20).batches(4, normalisation=RAW)
    next(batches)
    with (tmp_path / "fog.npy").open("rb+") as file:  # in place: the file stays mapped
        file.seek(-1, 2)
        file.write(b"\1")
    with pytest.raises(ShrinkbenchError, match=r"fog\.npy has changed since it was hashed"):
        list(batches)
    with pytest.raises(ShrinkbenchError, match=r"fog\.npy has changed since it was hashed"):
        next(iter(source.batches(10, normalisation=RAW)))
