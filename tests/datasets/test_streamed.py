"""Streamed images: torchvision's transforms, the same whatever the workers and the global random state."""

import io

import pytest
import torch
import torchvision
from made_images import noise, png, write_class_folders
from PIL import Image

from shrinkbench.datasets import load_dataset
from shrinkbench.datasets.encoded import FileImages, decode, pixels_of
from shrinkbench.datasets.folders import list_images
from shrinkbench.datasets.streamed import StreamedImages
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import IMAGENET_NORMALISATION

NAMES = ("ant", "bee")


@pytest.fixture
def source(tmp_path):
    write_class_folders(tmp_path / "made", NAMES, 6, height=40, width=56)
    return StreamedImages.of(list_images(tmp_path / "made", NAMES), size=32, resize=36)


def whole(source, *, workers=0, **arguments):
    batches = StreamedImages(
        encoded=source.encoded, rows=source.rows, size=source.size, resize=source.resize, workers=workers
    ).batches(5, normalisation=IMAGENET_NORMALISATION, **arguments)
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_evaluation_of_real_images_is_that_of_torchvisions_weights(imagenet_folder):
    imagenet = load_dataset("imagenet", imagenet_folder)
    preset = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    paths = sorted((imagenet_folder / "val").glob("*/*"))
    images, labels = next(imagenet.test.batches(36, normalisation=imagenet.card.normalisation))
    assert len(paths) == len(images) == 36
    for path, image, label in zip(paths, images, labels.tolist(), strict=True):
        assert imagenet.class_names[label] == path.parent.name
        with Image.open(path) as opened:
            expected = preset(opened.convert("RGB"))
        assert torch.equal(image, expected)


def test_training_is_torchvisions_crop_and_flip_under_each_images_seed(source):
    images, labels = whole(source, generator=seeded(4), augment=True)
    generator = seeded(4)
    order = torch.randperm(12, generator=generator)
    seeds = torch.randint(2**62, (12,), generator=generator)
    transforms = torchvision.transforms
    reference = transforms.Compose([transforms.RandomResizedCrop(32), transforms.RandomHorizontalFlip()])
    for place, row in enumerate(order.tolist()):
        assert labels[place] == source.labels[row]
        image = decode(source.encoded, row, channels=3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seeds[place]))
            pixels = torchvision.transforms.functional.to_tensor(reference(image))
        mean, std = IMAGENET_NORMALISATION.mean, IMAGENET_NORMALISATION.std
        expected = torchvision.transforms.functional.normalize(pixels, mean, std)
        assert torch.equal(images[place], expected)


def test_workers_and_global_random_state_change_nothing(source):
    alone, labels = whole(source, generator=seeded(1), augment=True)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    shared, shared_labels = whole(source, workers=2, generator=seeded(1), augment=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(alone, shared)
    assert torch.equal(labels, shared_labels)
    assert not torch.equal(alone, whole(source, generator=seeded(2), augment=True)[0])


def test_without_resizing_the_centre_is_cut(tmp_path):
    written = write_class_folders(tmp_path / "made", ("one",), 2, height=40, width=56)["one"]
    source = StreamedImages.of(list_images(tmp_path / "made", ("one",)), size=32, resize=None)
    images, _ = next(source.batches(2, normalisation=IMAGENET_NORMALISATION))
    mean = torch.tensor(IMAGENET_NORMALISATION.mean).view(3, 1, 1)
    std = torch.tensor(IMAGENET_NORMALISATION.std).view(3, 1, 1)
    for image, pixels in zip(images, written, strict=True):
        expected = torch.from_numpy(pixels[4:36, 12:44]).permute(2, 0, 1) / 255
        assert torch.allclose(image * std + mean, expected, atol=1e-6)


def test_channels_last_changes_the_layout_only(source):
    last = whole(source, memory_format=torch.channels_last)[0]
    assert torch.equal(last, whole(source)[0])
    batch, _ = next(source.batches(4, normalisation=IMAGENET_NORMALISATION, memory_format=torch.channels_last))
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_subset_takes_the_classes_in_turn(source):
    assert source.subset(6).labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert [source.encoded.names[row] for row in source.subset(3).rows] == [
        "ant/000.png",
        "bee/000.png",
        "ant/001.png",
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_does_not_decode_is_named_in_one_sentence(source, workers):
    path = source.encoded.root / "bee" / "003.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ShrinkbenchError) as caught:
        whole(source, workers=workers)
    assert str(path) in str(caught.value)
    assert "does not decode" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_vanished_is_named(source, workers):
    path = source.encoded.root / "ant" / "001.png"
    path.unlink()
    with pytest.raises(ShrinkbenchError, match=r"cannot read .*001\.png"):
        whole(source, workers=workers)


def one_file(path, content):
    path.write_bytes(content)
    return FileImages(root=path.parent, names=(path.name,), labels=torch.tensor([0]))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_colour_mode_becomes_what_is_asked(tmp_path, mode):
    stream = io.BytesIO()
    Image.fromarray(noise(0)).convert(mode).save(stream, format="TIFF")
    encoded = one_file(tmp_path / "image.tiff", stream.getvalue())
    for channels in (1, 3):
        assert pixels_of(decode(encoded, 0, channels=channels)).shape == (8, 8, channels)


def test_png_decodes_to_its_pixels(tmp_path):
    encoded = one_file(tmp_path / "image.png", png(noise(7)))
    assert (pixels_of(decode(encoded, 0, channels=3)) == noise(7)).all()
